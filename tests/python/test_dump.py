"""Dump and load: versions and times to live go along, whatever the size, and whoever comes between."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

import pykv
from pykv import _records
from pykv._records import Record, load_batch, load_version, records_of, sort

click_testing = pytest.importorskip("click.testing")
pytest.importorskip("rich")


def run(*arguments: Any, stdin: bytes | str | None = None) -> Any:
    from pykv._cli import cli

    return click_testing.CliRunner().invoke(cli, [str(word) for word in arguments], input=stdin)


def load(path: Path, stdin: bytes | str) -> dict[str, int]:
    done = run("load", path, "--json", stdin=stdin)
    assert done.exit_code == 0, done.output
    counts: dict[str, int] = json.loads(done.stdout)
    return counts


def content(path: Path) -> set[Record]:
    with pykv.open(path, "r") as db:
        return set(records_of(db))


def version_of(path: Path) -> int:
    with pykv.open(path, "r") as db:
        return db.stats().version


def line(key: str, **fields: object) -> str:
    return json.dumps({"key": key, "value": "v", **fields}) + "\n"


@pytest.fixture
def source(path: Path) -> Path:
    """A store with replaced and deleted keys, batches, times to live, odd bytes and long values."""
    numbers = random.Random(3)
    with pykv.open(path, segment_bytes=1 << 20) as db:
        for n in range(2000):
            db[b"single:%d" % (n % 700)] = numbers.randbytes(n % 90)
            if n % 50 == 0:
                db.put_many({b"batch:%d:%d" % (n % 500, m): b"%d" % n for m in range(40)})
            if n % 9 == 0:
                db.delete(b"single:%d" % (n % 350))
            if n % 20 == 0:
                db.put(b"\xff\0%d" % n, b"\x80", ttl=1000 + n)
        db[b""] = numbers.randbytes(3 << 20)
        db[b"empty"] = b""
    return path


def test_round_trip(source: Path, tmp_path: Path) -> None:
    """A new store has all of it as it was, version and expiry; so has the copy of the copy."""
    expected, version = content(source), version_of(source)
    for name in ("one", "two"):
        dumped = run("dump", source, tmp_path / "dump").exit_code
        assert dumped == 0
        counts = load(tmp_path / name, (tmp_path / "dump").read_bytes())
        assert counts == {"loaded": len(expected), "versions_kept": len(expected), "expired": 0}
        source = tmp_path / name
        assert content(source) == expected
        assert version_of(source) == version
    with pykv.open(source) as db:
        db[b"next"] = b""
        assert db.get_with_version(b"next") == (b"", version + 1)


def test_what_was_loaded_is_a_store_like_any_other(source: Path, tmp_path: Path) -> None:
    """It is compacted, recovered from its segments, written to; versions stay and go on."""
    expected, newest = content(source), version_of(source)
    copy = tmp_path / "copy.kv"
    load(copy, run("dump", source).stdout_bytes)
    with pykv.open(copy) as db:
        db.compact()
        assert set(records_of(db)) == expected and db.verify().ok
    for file in copy.iterdir():
        if not file.name.startswith("segment-"):
            file.unlink()
    with pykv.open(copy) as db:
        assert set(records_of(db)) == expected
        assert db.stats().version == newest
        with db.snapshot() as before, db.transaction() as transaction:
            transaction[b"empty"] = b"full"
            assert before[b"empty"] == b""
        version = next(record.version for record in expected if record.key == b"")
        assert db.get_with_version(b"") == (db[b""], version)
        with db.batch() as batch:
            batch.expect_version(b"", version)
            batch.put(b"", b"changed")
        assert batch.version == newest + 2
        db.compact()
        assert db.verify().ok


def test_batches_are_batches_again(path: Path, tmp_path: Path) -> None:
    """Records of one version are written at once: a reader sees all of them or none."""
    with pykv.open(path) as db:
        db.put_many({b"%d" % n: b"x" for n in range(5000)})
        db[b"0"] = b"y"
    lines = run("dump", path).stdout_bytes
    assert load(tmp_path / "copy.kv", lines)["versions_kept"] == 5000
    with pykv.open(tmp_path / "copy.kv", "r") as db:
        assert {record.version for record in records_of(db)} == {1, 2}
        assert db.stats().version == 2


@pytest.mark.parametrize("lost", ["nothing", "keydir", "all but segments"])
def test_versions_of_what_was_deleted_are_not_given_again(
    path: Path, tmp_path: Path, lost: str
) -> None:
    """The dump tells the version of the store, also where nothing else is left."""
    with pykv.open(path) as db:
        for _ in range(3):
            db[b"k"] = b"v"
            del db[b"k"]
    lines = run("dump", path).stdout_bytes
    assert [json.loads(each) for each in lines.splitlines()] == [{"version": 6}]
    copy = tmp_path / "copy.kv"
    for _ in range(2):  # again: it is no new store any more
        assert load(copy, lines) == {"loaded": 0, "versions_kept": 0, "expired": 0}
        for file in copy.iterdir() if lost != "nothing" else ():
            if file.name == "keydir" or (lost != "keydir" and not file.name.startswith("segment-")):
                file.unlink()
        assert version_of(copy) == 6
    with pykv.open(copy) as db:
        assert db.verify().ok
        db[b"k"] = b"w"
        assert db.get_with_version(b"k") == (b"w", 7)


def test_a_version_without_records_outlasts_a_power_cut(path: Path, tmp_path: Path) -> None:
    """It was synced; what goes is all of the segment that was begun behind it."""
    copy, size = tmp_path / "copy.kv", 65_400
    with pykv.open(path, segment_bytes=65_536) as db:
        assert load_batch(db, 5, [Record(b"a", b"1", 0, 5)])
        assert load_version(db, 1000)
        db.sync()
        manifest = path / "manifest"
        before = manifest.read_bytes()
        db[b"lost"] = bytes(size)
        end = time.monotonic() + 10
        while manifest.read_bytes() == before:  # until it tells that the first one is whole
            assert time.monotonic() < end
        assert size < db.stats().unsynced_bytes < size + 100
        shutil.copytree(path, copy)
    (copy / "keydir").unlink()
    os.truncate(copy / "segment-0000000002", 0)
    with pykv.open(copy) as db:
        assert dict(db) == {b"a": b"1"}
        assert db.stats().version == 1000


def test_a_store_that_was_written_to_gives_new_versions(source: Path, tmp_path: Path) -> None:
    """And the command says so; also where all was deleted again."""
    copy = tmp_path / "copy.kv"
    with pykv.open(copy) as db:
        db[b"k"] = b"v"
        db.clear()
    lines = run("dump", source).stdout_bytes
    assert load(copy, lines)["versions_kept"] == 0
    assert {r[:3] for r in content(copy)} == {r[:3] for r in content(source)}
    told = run("load", copy, stdin=lines).stderr
    assert "with new versions, as the store was not new" in told


def test_a_dump_without_versions(path: Path) -> None:
    """Dumps of before there were versions load as ever: as they come, the last of a key counts."""
    lines = line("a", value="old") + line("b") + line("a", value="new")
    assert load(path, lines) == {"loaded": 3, "versions_kept": 0, "expired": 0}
    with pykv.open(path) as db:
        assert dict(db) == {b"a": b"new", b"b": b"v"}
        assert db.stats().version == 1


def test_a_mixture(path: Path) -> None:
    """Of two dumps, one behind the other, the newer version counts; what has none comes last."""
    lines = line("a", version=7) + line("b", value="w") + line("a", value="old", version=5)
    lines += line("c", version=7) + line("d", version=1)
    assert load(path, lines) == {"loaded": 5, "versions_kept": 4, "expired": 0}
    with pykv.open(path) as db:
        assert {key: db.get_with_version(key) for key in db} == {
            b"a": (b"v", 7),
            b"b": (b"w", 8),
            b"c": (b"v", 7),
            b"d": (b"v", 1),
        }


def test_versions_that_are_taken(path: Path) -> None:
    """Where somebody writes meanwhile the next version is given."""
    with pykv.open(path) as db:
        assert load_batch(db, 10, [Record(b"a", b"1", 0, 10)])
        assert not load_batch(db, 10, [Record(b"a", b"2", 0, 10)])
        assert not load_batch(db, 3, [Record(b"b", b"2", 0, 3)])
        assert dict(db) == {b"a": b"1"}
        for version in (1 << 47, (1 << 48) - 1, 1 << 48):  # as many are left for what comes after
            with pytest.raises(pykv.InvalidError, match="version"):
                load_batch(db, version, [Record(b"c", b"2", 0, 0)])
        assert load_batch(db, (1 << 47) - 1, [Record(b"b", b"2", 0, 0)])
        assert not load_version(db, 1 << 46)
        db[b"c"] = b"next"
        assert db.get_with_version(b"c") == (b"next", 1 << 47)
        assert db.verify().ok
    with pykv.open(path) as db:
        assert dict(db) == {b"a": b"1", b"b": b"2", b"c": b"next"}


def test_somebody_writes_meanwhile(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes after that write gets new versions, and the command tells of how many it is not so."""
    from pykv import _cli_load

    with pykv.open(path) as other:

        def write_between(db: pykv.Store, version: int, records: list[Record]) -> bool:
            if version == 3:
                other.put(b"other", b"")
            return load_batch(db, version, records)

        monkeypatch.setattr(_cli_load, "load_batch", write_between)
        lines = "".join(line(f"k{n}", version=n) for n in (4, 2, 3, 1))
        assert load(path, lines) == {"loaded": 4, "versions_kept": 2, "expired": 0}
        found = {key: other.get_with_version(key) for key in other}
    assert found == {
        b"k1": (b"v", 1),
        b"k2": (b"v", 2),
        b"other": (b"", 3),
        b"k3": (b"v", 4),
        b"k4": (b"v", 5),
    }


def test_expired_records(path: Path, tmp_path: Path) -> None:
    """Not dumped once they are over; nor loaded, though others of their batch are."""
    now_ms = int(time.time() * 1000)
    lines = line("over", version=1, expires_ms=now_ms - 1) + line("stays", version=1)
    lines += line("later", version=2, expires_ms=now_ms + 600_000)
    assert load(path, lines) == {"loaded": 2, "versions_kept": 2, "expired": 1}
    version, *dumped = [json.loads(each) for each in run("dump", path).stdout_bytes.splitlines()]
    assert version == {"version": 2}
    assert sorted((row["key"], row.get("expires_ms")) for row in dumped) == [
        ("later", now_ms + 600_000),
        ("stays", None),
    ]


def test_dump_is_one_instant(path: Path) -> None:
    """Value, version and expiry are those of the instant, though all are changed meanwhile."""
    with pykv.open(path) as db:
        db.put_many({b"%d" % n: b"old" for n in range(3000)})
        records = records_of(db)
        seen = [next(records)]
        db.put_many({b"%d" % n: b"new" for n in range(3000)}, ttl=100)
        db.compact()
        seen += records
        assert len(seen) == 3000
        assert {record[1:] for record in seen} == {(b"old", 0, 1)}


def test_killed_in_the_middle(source: Path, tmp_path: Path) -> None:
    """What a load that was killed has written is whole, with its versions; another store gets all."""
    expected = content(source)
    dump = tmp_path / "dump"
    run("dump", source, dump)
    for after in (1, 50, 400):
        copy = tmp_path / f"killed-{after}.kv"
        command = [sys.executable, "-c", KILLED, str(copy), str(dump), str(after)]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        with pykv.open(copy) as db:
            assert db.verify().ok
            found = set(records_of(db))
            assert found < expected and len({record.version for record in found}) == after
            db.compact()
            assert set(records_of(db)) == found
    assert load(tmp_path / "whole.kv", dump.read_bytes())["versions_kept"] == len(expected)


KILLED = """
import os, signal, sys
from pykv import _cli_load
from pykv._cli import cli

left = int(sys.argv[3])
load_batch = _cli_load.load_batch

def kill(*arguments):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return load_batch(*arguments)

_cli_load.load_batch = kill
cli(["load", sys.argv[1], sys.argv[2]])
"""


def test_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    """By version, then as they came, then those without one; in memory or by way of a file."""
    numbers = random.Random(5)
    records = [
        Record(b"%d" % n, numbers.randbytes(numbers.randrange(300)), n, numbers.randrange(200))
        for n in range(3000)
    ]
    expected = sorted(records, key=lambda record: record.version or 1 << 60)
    for run_size in (1 << 30, 100_000, 1):
        monkeypatch.setattr(_records, "RUN_SIZE", run_size)
        assert list(sort(iter(records))) == expected
    assert list(sort([])) == []


def test_no_room_to_sort(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is told on one line, and nothing is stored."""

    def full(_runs: object, _run: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_records, "RUN_SIZE", 1)
    monkeypatch.setattr(_records._Runs, "add", full)
    done = run("load", path, stdin=line("a", version=1))
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: cannot sort in ")
    assert done.stderr.endswith(": No space left on device\n")
    with pykv.open(path) as db:
        assert len(db) == 0


def test_memory_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of a dump of 40 MB, some runs of 1 MB are in memory, and none of its long values but one."""
    monkeypatch.setattr(_records, "RUN_SIZE", 1 << 20)
    dump = tmp_path / "dump"
    with dump.open("w") as file:
        for n in range(400):
            file.write(line(f"{n}", value="x" * 100_000, version=1 + n * 7 % 400))
    tracemalloc.start()
    try:
        assert run("load", path, dump).exit_code == 0
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20
    with pykv.open(path) as db:
        assert len(db) == 400
