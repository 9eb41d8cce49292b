"""Processes that are killed, or run out of room, while they back up or restore a store."""

from __future__ import annotations

import itertools
import random
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import workers

import pykv

# CPython 3.12 and later warn of fork() beside other threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

DONE = 1000  # more reports than there are steps
OPTIONS = {"segment_bytes": workers.SEGMENT_BYTES}


def change(db: pykv.Store, chance: random.Random, count: int) -> None:
    for _ in range(count):
        db[b"%d" % chance.randrange(400)] = chance.randbytes(chance.randrange(3000))


def never_finished(path: Path) -> bool:
    """Whether there is no store yet, and that is what opening it says."""
    try:
        pykv.open(path, "r").close()
    except pykv.MissingError:
        return True
    except pykv.CorruptError as error:
        return "never finished" in str(error)
    return False


def counting(report: Callable[..., None]) -> Callable[[int, int], None]:
    """Return a progress function that reports how often it was called."""
    calls = itertools.count(1)
    return lambda _done, _total: report(next(calls))


def back_up(report: Callable[..., None], path: Path, dest: Path, link: bool) -> None:
    with pykv.open(path, "w", **OPTIONS) as db:
        db.backup(dest, link=link, progress=counting(report))
        report(DONE)


def restore(report: Callable[..., None], source: Path, dest: Path) -> None:
    pykv.restore(source, dest, progress=counting(report))
    report(DONE)


def test_backup_is_killed(tmp_path: Path, kills: int) -> None:
    """It holds the last instant that was finished or the one under way; the store and the next backup are whole."""
    path, dest, chance = tmp_path / "store.kv", tmp_path / "backup", random.Random(11)
    before: dict[bytes, bytes] | None = None
    for number in range(1 + kills // 3):
        with pykv.open(path, **OPTIONS) as db:
            change(db, chance, 300)
            if number % 3 == 0:
                db.compact()
            now = dict(db)
        worker = workers.Worker(back_up, path, dest, number % 2 == 0)
        worker.listen_beyond(chance.randrange(5))
        worker.kill()
        if never_finished(dest):
            assert before is None
        else:
            with pykv.open(dest, "r") as copy:
                assert copy.verify().ok
                found = dict(copy)
            assert found in (before, now)
            before = found
        with pykv.open(path, **OPTIONS) as db:
            assert dict(db) == now
            if number % 4 == 3:
                db.backup(dest)
                before = now


def test_restore_is_killed(tmp_path: Path, kills: int) -> None:
    """What it leaves is none or all of it, and another try finds its way; the backup stays as it is."""
    path, source, chance = tmp_path / "store.kv", tmp_path / "backup", random.Random(12)
    with pykv.open(path, **OPTIONS) as db:
        change(db, chance, 1000)
        expected = dict(db)
        db.backup(source)
    for number in range(1 + kills // 3):
        dest = tmp_path / f"restored-{number}"
        worker = workers.Worker(restore, source, dest)
        worker.listen_beyond(chance.randrange(25))
        worker.kill()
        if never_finished(dest):
            assert pykv.restore(source, dest).ok
        with pykv.open(dest, "w") as db:
            assert db.verify().ok
            assert dict(db) == expected
            db[b"new"] = b""
        with pykv.open(source, "r") as backup:
            assert dict(backup) == expected


def test_restore_without_room(tmp_path: Path) -> None:
    """An error that says so, whatever file has no room; with room the next try succeeds."""
    path, source, dest = tmp_path / "store.kv", tmp_path / "backup", tmp_path / "restored"
    with pykv.open(path, segment_bytes=1 << 20) as db:
        change(db, random.Random(13), 1000)
        expected = dict(db)
        db.backup(source)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        for limit in (0, 50, 4096, 100_000, 700_000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
            with pytest.raises(pykv.StoreFullError):
                pykv.restore(source, dest)
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            assert never_finished(dest)
            with pykv.open(source, "r") as backup:
                assert dict(backup) == expected
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert pykv.restore(source, dest).ok
    with pykv.open(dest, "r") as db:
        assert dict(db) == expected
