"""The command line: what it prints, what it takes, how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pykv

click_testing = pytest.importorskip("click.testing")
pytest.importorskip("rich")


def run(*arguments: Any, stdin: bytes | str | None = None) -> Any:
    from pykv._cli import cli

    return click_testing.CliRunner().invoke(cli, [str(word) for word in arguments], input=stdin)


def test_put_get_delete(path: Path) -> None:
    """A value goes in and comes out; an absent key is status 1."""
    assert run("put", path, "k", "v").exit_code == 0
    got = run("get", path, "k")
    assert (got.exit_code, got.stdout) == (0, "v\n")
    assert json.loads(run("get", path, "k", "--json").stdout) == {
        "key": "k",
        "value": "v",
        "version": 1,
    }
    assert run("delete", path, "k", "other").exit_code == 0
    assert run("delete", path, "k").exit_code == 1
    assert run("get", path, "k").exit_code == 1


def test_put_from_standard_input(path: Path) -> None:
    """Without a value, put reads it."""
    assert run("put", path, "k", stdin=b"\0\xff\n").exit_code == 0
    with pykv.open(path) as db:
        assert db[b"k"] == b"\0\xff\n"


def test_scan(path: Path) -> None:
    """A prefix selects, a limit stops."""
    with pykv.open(path) as db:
        db.put_many({b"a:%d" % n: b"x" for n in range(10)})
        db[b"b"] = b"y"
    assert run("scan", path, "--prefix", "b").stdout == "b\ty\n"
    assert len(run("scan", path, "--prefix", "a", "--keys").stdout.splitlines()) == 10
    assert len(run("scan", path, "--limit", 3).stdout.splitlines()) == 3
    assert json.loads(run("scan", path, "--prefix", "b", "--json").stdout) == {
        "key": "b",
        "value": "y",
    }


def test_dump_and_load_through_a_pipe(path: Path, tmp_path: Path) -> None:
    """What dump writes, load reads: text as text, the rest as base64, through real pipes."""
    data = {b"text": "grüß".encode(), b"\xff\0": b"\x80" * 100, b"": b"", b"lines": b"a\nb"}
    with pykv.open(path) as db:
        db.put_many(data)
    command = [sys.executable, "-m", "pykv"]
    dumped = subprocess.run([*command, "dump", path], capture_output=True, check=True).stdout
    rows = [json.loads(line) for line in dumped.splitlines()]
    assert sorted(tuple(row) for row in rows) == [
        ("key", "value"),
        ("key", "value"),
        ("key", "value"),
        ("key_base64", "value_base64"),
    ]
    copy = tmp_path / "copy.kv"
    subprocess.run([*command, "load", copy], input=dumped, capture_output=True, check=True)
    with pykv.open(copy) as db:
        assert dict(db.items()) == data


@pytest.mark.parametrize(
    "line", ["nonsense", "[]", '{"key": "k"}', '{"key_base64": "*", "value": "v"}']
)
def test_load_refuses_other_lines(path: Path, line: str) -> None:
    """A line that is no row is named by its number."""
    loaded = run("load", path, stdin='{"key": "a", "value": "b"}\n' + line + "\n")
    assert loaded.exit_code == 1
    assert "line 2" in loaded.stderr


def test_stats_and_verify(path: Path) -> None:
    """Figures as a table or as JSON; damage is status 1."""
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


def test_failures_are_one_line(tmp_path: Path) -> None:
    """A store that is not there, or is none, is one line on stderr and status 1."""
    for path in (tmp_path / "missing", __file__):
        result = run("get", path, "k")
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: ")
        assert len(result.stderr.splitlines()) == 1


def test_usage() -> None:
    """Wrong usage is status 2."""
    assert run("get").exit_code == 2
    assert run("bench").exit_code == 2
    assert run("--version").stdout.startswith("pykv, version ")
