"""Files of a store that somebody removed while it is in use, as one removes what looks stale."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pykv


def test_removed_lock_file(path: Path) -> None:
    """Who opens a store whose lock file is gone is not let in beside those who still use it."""
    with pykv.open(path) as db:
        db[b"a"] = b"1"
        (path / "lock").unlink()
        with pytest.raises(pykv.BusyError, match="lock was removed"):
            pykv.open(path)
        db[b"b"] = b"2"
    with pykv.open(path) as db:
        assert dict(db) == {b"a": b"1", b"b": b"2"}


# Holds what a process holds of the keydir, for a moment: the system lets go of the lock file first.
DYING = """
import fcntl, sys, time
file = open(sys.argv[1], "r+b")
fcntl.lockf(file, fcntl.LOCK_EX, 1, SLOT)
print(flush=True)
time.sleep(0.1)
"""


def test_the_last_one_is_dying(path: Path) -> None:
    """Whose locks go one after the other: who opens the store then waits for the rest."""
    with pykv.open(path) as db:
        db[b"a"] = b"1"
    script = DYING.replace("SLOT", "64")
    command = [sys.executable, "-c", script, str(path / "keydir")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as dying:
        assert dying.stdout is not None
        dying.stdout.readline()
        with pykv.open(path) as db:
            assert dict(db) == {b"a": b"1"}


def test_removed_keydir(path: Path) -> None:
    """The same where it is the keydir; it is built anew once nobody uses the old one."""
    with pykv.open(path) as db:
        db[b"a"] = b"1"
        (path / "keydir").unlink()
        with pytest.raises(pykv.BusyError, match="keydir was removed"):
            pykv.open(path)
        with pytest.raises(pykv.BusyError, match="keydir was removed"):
            pykv.open(path, "n")
        db[b"b"] = b"2"
    with pykv.open(path) as db:
        assert dict(db) == {b"a": b"1", b"b": b"2"}


@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_copy_after_close(path: Path, io: str) -> None:
    """A copy has a keydir of the same boot that is not its own: it builds one, and both go on."""
    with pykv.open(path, io=io, segment_bytes=1 << 16) as db:
        db.put_many((b"%d" % n, b"x" * 100) for n in range(2_000))
    copy = path.with_name("copy.kv")
    shutil.copytree(path, copy)
    with pykv.open(path, io=io) as db, pykv.open(copy, io=io) as other:
        assert dict(db) == dict(other)
        other[b"0"] = b"other"
        db[b"0"] = b"db"
        assert (db[b"0"], other[b"0"]) == (b"db", b"other")
        assert db.verify().ok
        assert other.verify().ok


def test_emptied_while_others_use_it(path: Path) -> None:
    """Flag "n" empties a store that others have open, for all; an iteration keeps its instant."""
    with pykv.open(path) as db:
        db.put_many((b"%d" % n, b"x" * 100) for n in range(3_000))
        iteration = iter(db.items())
        next(iteration)
        with pykv.open(path, "n") as other:
            assert len(other) == len(db) == 0
        assert 1 + len(list(iteration)) == 3_000
        assert dict(db) == {}
        assert db.verify().ok
