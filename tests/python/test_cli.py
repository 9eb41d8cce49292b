"""The command line: what it prints, what it takes, how it ends."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import pykv

click_testing = pytest.importorskip("click.testing")
pytest.importorskip("rich")

COMMAND = [sys.executable, "-m", "pykv"]


def run(*arguments: Any, stdin: bytes | str | None = None) -> Any:
    from pykv._cli import cli

    return click_testing.CliRunner().invoke(cli, [str(word) for word in arguments], input=stdin)


def process(*arguments: Any, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*COMMAND, *arguments], input=stdin, capture_output=True, check=False)


# ---- Output that cannot be written ----


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
@pytest.mark.parametrize("command", ["get", "scan", "dump", "stats", "verify", "stats --json"])
def test_a_full_disk_is_one_line(path: Path, command: str) -> None:
    """Where standard output cannot be written, one line on stderr says so, and the exit code is 1."""
    with pykv.open(path) as db:
        db[b"k"] = b"v"
    name, *options = command.split()
    words = [*COMMAND, name, str(path), *(["k"] if name == "get" else []), *options]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr.decode()) == (1, "Error: No space left on device\n")


def test_a_file_that_cannot_be_written_is_named(path: Path, tmp_path: Path) -> None:
    with pykv.open(path) as db:
        db[b"k"] = b"v"
    done = run("bench", "--quick", "--directory", tmp_path / "missing")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert str(tmp_path / "missing") in done.stderr


# ---- One key ----


def test_put_get_delete(path: Path) -> None:
    """A value goes in and comes out; an absent key is exit code 1."""
    assert run("put", path, "k", "v").exit_code == 0
    got = run("get", path, "k")
    assert (got.exit_code, got.stdout) == (0, "v")
    assert json.loads(run("get", path, "k", "--json").stdout) == {
        "key": "k",
        "value": "v",
        "version": 1,
    }
    assert run("delete", path, "k", "other").exit_code == 0
    gone = run("delete", path, "k")
    assert (gone.exit_code, f"no key k in {path}\n" in gone.stderr) == (1, True)
    assert f"none of the keys is in {path}\n" in run("delete", path, "k", "l").stderr
    absent = run("get", path, "k")
    assert (absent.exit_code, absent.stdout) == (1, "")
    assert len(absent.stderr.splitlines()) == 1


def test_bytes_go_through_unchanged(path: Path) -> None:
    """Any bytes go in by standard input and come out the same, to the last line end."""
    content = bytes(range(256)) + b"\r\n\n"
    assert process("put", path, b"\xff", stdin=content).returncode == 0
    got = process("get", path, b"\xff")
    assert (got.returncode, got.stdout) == (0, content)
    with pykv.open(path) as db:
        assert dict(db) == {b"\xff": content}


def test_base64_arguments(path: Path) -> None:
    """Keys and values that no shell can pass are given in base64."""
    key, value = base64.b64encode(b"\0key").decode(), base64.b64encode(b"a\0b").decode()
    assert run("put", path, key, value, "--base64").exit_code == 0
    with pykv.open(path) as db:
        assert dict(db) == {b"\0key": b"a\0b"}
    assert run("get", path, key, "--base64").stdout_bytes == b"a\0b"
    assert run("scan", path, "--base64", "--prefix", "AGs=", "--keys").stdout == "\\x00key\n"
    assert run("delete", path, key, "--base64").exit_code == 0
    wrong = run("get", path, "%", "--base64")
    assert (wrong.exit_code, "no base64: '%'" in wrong.stderr) == (2, True)


def test_ttl_and_durable(path: Path) -> None:
    """A time to live is kept, and told as milliseconds since 1970."""
    assert run("put", path, "k", "v", "--ttl", 1000, "--durable").exit_code == 0
    expires_ms = json.loads(run("get", path, "k", "--json").stdout)["expires_ms"]
    assert 990 < expires_ms / 1000 - time.time() <= 1001
    assert run("put", path, "k", "v", "--ttl", -1).exit_code == 2


def test_delete_tells_how_many(path: Path) -> None:
    """Keys are removed as one batch; a key named twice counts once."""
    with pykv.open(path) as db:
        db.put_many({b"a": b"", b"b": b""})
    removed = run("delete", path, "a", "a", "c", "--json", "--durable")
    assert json.loads(removed.stdout) == {"removed": 1, "absent": 1}


# ---- All keys ----


def test_scan(path: Path) -> None:
    """A prefix selects, a limit stops."""
    with pykv.open(path) as db:
        db.put_many({b"a:%d" % n: b"x" for n in range(10)})
        db[b"b"] = b"y"
    assert run("scan", path, "--prefix", "b").stdout == "b\ty\n"
    assert len(run("scan", path, "--prefix", "a", "--keys").stdout.splitlines()) == 10
    assert len(run("scan", path, "--limit", 3).stdout.splitlines()) == 3
    assert run("scan", path, "--limit", 0).stdout == ""
    assert json.loads(run("scan", path, "--prefix", "b", "--json").stdout) == {
        "key": "b",
        "value": "y",
        "version": 2,
    }
    assert json.loads(run("scan", path, "--prefix", "b", "--json", "--keys").stdout) == {"key": "b"}


def test_scan_escapes(path: Path) -> None:
    """What a terminal would take for a command is escaped, and stays on its line."""
    with pykv.open(path) as db:
        db[b"k"] = b"\x1b[2J\n\xff\xc3\xbc"
    assert run("scan", path).stdout == "k\t\\x1b[2J\\n\\xffü\n"


def test_dump_and_load_through_a_pipe(path: Path, tmp_path: Path) -> None:
    """What dump writes, load reads: text as text, the rest as base64, times to live as they are."""
    data = {b"text": "grüß".encode(), b"\xff\0": b"\x80" * 100, b"": b"", b"lines": b"a\nb"}
    with pykv.open(path) as db:
        db.put_many(data)
        db.put(b"session", b"token", ttl=1000)
    copy = tmp_path / "copy.kv"
    with subprocess.Popen([*COMMAND, "dump", path], stdout=subprocess.PIPE) as dump:
        loaded = subprocess.run([*COMMAND, "load", copy, "--json"], stdin=dump.stdout, check=True,
                                capture_output=True)  # fmt: skip
    assert dump.returncode == 0
    assert json.loads(loaded.stdout) == {"loaded": 5, "versions_kept": 5, "expired": 0}
    assert loaded.stderr == b""
    with pykv.open(copy) as db:
        assert dict(db) == data | {b"session": b"token"}
    dumped, again = process("dump", path).stdout, process("dump", copy).stdout
    assert sorted(again.splitlines()) == sorted(dumped.splitlines())
    rows = [json.loads(line) for line in dumped.splitlines()]
    assert sorted(tuple(row) for row in rows) == [
        ("key", "value", "expires_ms", "version"),
        ("key", "value", "version"),
        ("key", "value", "version"),
        ("key", "value", "version"),
        ("key_base64", "value_base64", "version"),
        ("version",),
    ]


def test_dump_to_a_file_and_back(path: Path, tmp_path: Path) -> None:
    """Files do as well; --prefix selects; --batch divides without a loss."""
    with pykv.open(path) as db:
        db.put_many({b"a:%d" % n: b"%d" % n for n in range(1234)})
        db[b"b"] = b""
    file = tmp_path / "dump.jsonl"
    assert run("dump", path, file, "--prefix", "a:").exit_code == 0
    assert len(file.read_bytes().splitlines()) == 1 + 1234
    loaded = run("load", tmp_path / "copy.kv", file, "--batch", 100)
    assert (loaded.exit_code, loaded.stderr) == (0, "1,234 loaded, 1,234 with their versions\n")
    with pykv.open(tmp_path / "copy.kv") as db:
        assert dict(db) == {b"a:%d" % n: b"%d" % n for n in range(1234)}


def test_load_leaves_out_what_has_expired(path: Path) -> None:
    """A pair whose time is over is not stored; empty lines are none."""
    lines = '{"key": "a", "value": "", "expires_ms": 1}\n\n{"key": "b", "value": ""}'
    loaded = run("load", path, "--durable", stdin=lines)
    assert (loaded.exit_code, loaded.stderr) == (0, "1 loaded, 1 had expired\n")
    with pykv.open(path) as db:
        assert list(db) == [b"b"]


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[]",
        '{"key": "k"}',
        '{"key_base64": "*", "value": "v"}',
        '{"key": "k", "key_base64": "aw==", "value": "v"}',
        '{"key": 1, "value": "v"}',
        '{"key": "k", "value": null}',
        '{"key": "\\ud800", "value": "v"}',
        '{"key": "k", "value": "v", "ttl": 5}',
        '{"key": "k", "value": "v", "expires_ms": "soon"}',
        '{"key": "k", "value": "v", "expires_ms": true}',
        '{"key": "k", "value": "v", "expires_ms": -1}',
        '{"key": "k", "value": "v", "version": "1"}',
        '{"key": "k", "value": "v", "version": 281474976710656}',
        "[" * 100_000,
    ],
)
def test_load_refuses_other_lines(path: Path, line: str) -> None:
    """A line that is no row is named by its number, and so is what stays loaded."""
    first = '{"key": "a", "value": "b"}\n'
    loaded = run("load", path, "--batch", 1, stdin=first + line + "\n" + first)
    assert loaded.exit_code == 1
    assert "line 2" in loaded.stderr
    assert "loaded before it: 1 record\n" in loaded.stderr
    assert len(loaded.stderr.splitlines()) == 1
    with pykv.open(path) as db:
        assert dict(db) == {b"a": b"b"}


# ---- The store ----


def test_stats_and_verify(path: Path) -> None:
    """Figures as a table or as JSON; damage is exit code 1."""
    with pykv.open(path) as db:
        db[b"k"] = b"a value to be damaged"
    assert json.loads(run("stats", path, "--json").stdout)["keys"] == 1
    assert "keydir_bytes" in run("stats", path).stdout
    assert run("verify", path).exit_code == 0
    (segment,) = path.glob("segment-*")
    content = bytearray(segment.read_bytes())
    content[content.index(b"damaged")] ^= 1
    segment.write_bytes(content)
    report = run("verify", path, "--json")
    assert report.exit_code == 1
    assert json.loads(report.stdout)["damage"][0]["path"] == segment.name
    assert segment.name in run("verify", path).stdout
    got = run("get", path, "k")
    assert got.exit_code == 1
    assert segment.name in got.stderr


def test_repair_saves_what_is_whole(path: Path) -> None:
    """A store that damage keeps from opening opens with --repair, and dump saves the rest."""
    with pykv.open(path) as db:
        db.put_many({b"a": b"before", b"b": b"to be damaged", b"c": b"after"})
        for n in range(10):
            db[b"%d" % n] = b"%d" % n
    (segment,) = path.glob("segment-*")
    content = bytearray(segment.read_bytes())
    content[content.index(b"damaged")] ^= 1
    segment.write_bytes(content)
    (path / "keydir").unlink()
    refused = run("verify", path)
    assert refused.exit_code == 1
    assert segment.name in refused.stderr
    repaired = run("verify", path, "--repair")
    assert "left out by --repair: 1 damaged place" in repaired.stdout
    assert "skipped: 1 damaged place" in repaired.stdout
    assert repaired.exit_code == 0
    (path / "keydir").unlink()
    again = run("verify", path, "--json")
    assert again.exit_code == 0
    assert json.loads(again.stdout)["skipped_count"] == 1
    rows = [json.loads(line) for line in run("dump", path).stdout.splitlines()]
    assert {row.get("key") for row in rows} >= {str(n) for n in range(10)}
    assert "b" not in {row.get("key") for row in rows}


def test_failures_are_one_line(tmp_path: Path) -> None:
    """A store that is not there, or is none, is one line on stderr and exit code 1."""
    for path in (tmp_path / "missing", __file__):
        for command in (["get", path, "k"], ["scan", path], ["dump", path], ["delete", path, "k"]):
            result = run(*command)
            assert result.exit_code == 1
            assert result.stderr.startswith("Error: ")
            assert len(result.stderr.splitlines()) == 1
    assert run("put", tmp_path / "store.kv", "k" * 70_000, "v").exit_code == 2


def test_usage() -> None:
    """Wrong usage is exit code 2."""
    assert run("get").exit_code == 2
    assert run("nonsense").exit_code == 2
    assert run("load", "store.kv", "--batch", 0).exit_code == 2
    assert run("--version").stdout == f"pykv, version {pykv.__version__}\n"
    for command in ("get", "put", "delete", "scan", "load", "dump", "stats", "verify", "bench"):
        assert run(command, "--help").exit_code == 0


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    """Without click or rich the command line says what to install."""
    for name in ("click", "rich"):
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError('no', name='{name}')")
        paths = [str(tmp_path), str(Path(pykv.__file__).parents[1])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        done = subprocess.run(
            [*COMMAND, "stats", "x"], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert done.stderr == f"pykv: {name} is missing: pip install 'pykv-engine[cli]'\n"
        (tmp_path / f"{name}.py").unlink()


def test_a_reader_that_leaves_is_no_traceback(path: Path) -> None:
    """`pykv dump STORE | head -1` ends quietly."""
    with pykv.open(path) as db:
        db.put_many({b"%d" % n: b"x" * 100 for n in range(20_000)})
    with subprocess.Popen(
        [*COMMAND, "dump", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as dump:
        assert dump.stdout is not None
        assert dump.stderr is not None
        assert json.loads(dump.stdout.readline())
        dump.stdout.close()
        assert b"Traceback" not in dump.stderr.read()
