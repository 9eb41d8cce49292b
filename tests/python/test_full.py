"""What a store does at its limit, and on a full disk: refuse puts, keep all, give space back."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import pykv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMIT = 4 << 20
DISK = 16 << 20


def fill(db: pykv.Store, prefix: bytes = b"k", size: int = 1_000) -> int:
    """Put until it is refused: how many were not."""
    number = 0
    with pytest.raises(pykv.StoreFullError):
        while True:
            db[b"%b%d" % (prefix, number)] = b"%d" % number * (size // len(b"%d" % number))
            number += 1
    return number


def holds(db: pykv.Store, number: int, prefix: bytes = b"k", size: int = 1_000) -> bool:
    return db[b"%b%d" % (prefix, number)] == b"%d" % number * (size // len(b"%d" % number))


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


# ---- max_disk_bytes ----


@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_deletes_make_room_at_the_limit(tmp_path: Path, io: pykv.IO) -> None:
    """No put waits in vain: what was deleted is given back before one is refused."""
    with pykv.open(tmp_path / "db", max_disk_bytes=LIMIT, io=io) as db:
        count = fill(db)
        assert count * 1_000 > LIMIT * 0.7
        for number in range(0, count, 2):
            del db[b"k%d" % number]
        for number in range(count // 3):
            db[b"new%d" % number] = b"n" * 1_000
        assert all(holds(db, number) for number in range(1, count, 2))
        assert all(db[b"new%d" % number] == b"n" * 1_000 for number in range(count // 3))
        assert db.stats().log_bytes <= LIMIT
    (tmp_path / "db" / "keydir").unlink()
    with pykv.open(tmp_path / "db", io=io) as db:
        assert len(db) == count // 2 + count // 3


def test_overwrites_never_meet_a_limit_that_the_live_bytes_do_not(tmp_path: Path) -> None:
    chance = random.Random(7)
    with pykv.open(tmp_path / "db", max_disk_bytes=LIMIT) as db:
        keys = [b"%d" % number for number in range(LIMIT * 6 // 10 // 1_000)]
        for _ in range(10 * len(keys)):
            db[chance.choice(keys)] = chance.randbytes(900)
        assert db.stats().log_bytes <= LIMIT


def test_clear_at_the_limit(tmp_path: Path) -> None:
    """Many small records: their tombstones together have no room below the limit."""
    with pykv.open(tmp_path / "db", max_disk_bytes=LIMIT) as db:
        first = fill(db, size=8)
        db.clear()
        assert len(db) == 0
        assert fill(db, b"again", size=8) > first * 0.8


def test_other_writes_at_the_limit(tmp_path: Path) -> None:
    with pykv.open(tmp_path / "db", max_disk_bytes=LIMIT) as db:
        count = fill(db)
        fill(db, b"tiny", size=8)
        writes: tuple[Callable[[], object], ...] = (
            lambda: db.incr(b"counter"),
            lambda: db.expire(b"k1", 1_000),
            lambda: db.put_many([(b"1", b"1" * 1_000), (b"2", b"2")]),
            lambda: db.transact(lambda t: t.put(b"1", b"1" * 1_000)),
        )
        for write in writes:
            with pytest.raises(pykv.StoreFullError, match="max_disk_bytes"):
                write()
        assert db.delete_many([b"k%d" % number for number in range(100, 400)]) == 300
        for write in writes:
            write()
        assert db[b"counter"] == b"1"
        assert all(holds(db, number) for number in range(400, count))


def test_no_room_is_made_while_compaction_is_paused_or_a_snapshot_is_open(tmp_path: Path) -> None:
    with pykv.open(tmp_path / "db", max_disk_bytes=LIMIT) as db:
        count = fill(db)
        db.pause_compaction()
        db.delete_many([b"k%d" % number for number in range(count // 2)])
        fill(db, b"a")
        db.resume_compaction()
        db[b"resumed"] = b"x" * 1_000
        with db.snapshot() as snapshot:
            assert fill(db, b"b") < count
            assert snapshot[b"resumed"] == b"x" * 1_000
            db.delete_many([b"k%d" % number for number in range(count // 2, count)])
            fill(db, b"c")
        db[b"closed"] = b"x" * 1_000


def test_a_limit_below_the_least(tmp_path: Path) -> None:
    with pytest.raises(pykv.InvalidError, match="max_disk_bytes"):
        pykv.open(tmp_path / "db", max_disk_bytes=(1 << 20) - 1)


# ---- A full disk ----


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A small file system of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    size = getattr(request, "param", DISK)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(path)]
    if subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def open_on(disk: Path, io: pykv.IO = "mmap", segment: int | None = 1 << 20) -> pykv.Store:
    db = pykv.open(disk / "db", segment_bytes=segment, io=io)
    until((disk / "db" / "reserve").exists)
    return db


@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_deletes_work_on_a_full_disk_and_space_comes_back(disk: Path, io: pykv.IO) -> None:
    with open_on(disk, io) as db:
        count = fill(db)
        assert all(holds(db, number) for number in range(count))
        for number in range(count // 3, count):
            del db[b"k%d" % number]
        db.sync()
        until(lambda: fits(db, b"room"))
        for number in range(count // 3):
            until(lambda number=number: fits(db, b"again%d" % number))  # type: ignore[misc]
        assert all(holds(db, number) for number in range(count // 3))
    (disk / "db" / "keydir").unlink()
    with open_on(disk, io) as db:
        assert len(db) == count // 3 * 2 + 1


@pytest.mark.parametrize(
    ("disk", "segment"), [(DISK, 1 << 20), (4 * DISK, None)], indirect=["disk"], ids=str
)
def test_small_records_deleted_at_random(disk: Path, segment: int | None) -> None:
    """No segment is mostly dead, so space comes back only by copying nearly all of one."""
    with open_on(disk, segment=segment) as db:
        keys = [b"k%d" % number for number in range(fill(db, size=100))]
        random.Random(1).shuffle(keys)
        for key in keys[: len(keys) * 2 // 3]:
            del db[key]
        until(lambda: fits(db, b"room"))
        assert len(db) == len(keys) - len(keys) * 2 // 3 + 1


def fits(db: pykv.Store, key: bytes) -> bool:
    try:
        db[key] = b"x" * 1_000
    except pykv.StoreFullError:
        return False
    return True


def test_a_disk_that_others_have_filled(disk: Path) -> None:
    """Deletes work, puts are refused, and go on when the others have left."""
    filler = disk / "filler"
    with open_on(disk) as db:
        for number in range(2_000):
            db[b"k%d" % number] = b"%d" % number * 200
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="space"):
            while file.write(bytes(1 << 16)):
                pass
        fill(db, b"new")
        for number in range(1_000):
            del db[b"k%d" % number]
        fill(db, b"tiny", size=8)
        filler.unlink()
        db[b"room"] = b"x" * 100_000
        assert all(db[b"k%d" % number] == b"%d" % number * 200 for number in range(1_000, 2_000))


def test_a_full_disk_when_opening(disk: Path) -> None:
    """Also after kill -9, and for one that finds neither keydir nor reserve."""
    with open_on(disk) as db:
        count = fill(db)
    code = textwrap.dedent(
        f"""
        import os, signal, pykv
        db = pykv.open({os.fspath(disk / "db")!r}, "w")
        for number in range(100):
            del db[b"k%d" % number]
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False)
    assert ended.returncode == -signal.SIGKILL
    with pykv.open(disk / "db", "w") as db:
        assert len(db) == count - 100
        for number in range(100, count):
            del db[b"k%d" % number]
        until(lambda: fits(db, b"room"))


def test_a_full_disk_after_a_reboot(disk: Path) -> None:
    """The keydir of before is there and of no use; the new one has its room and the reserve's."""
    with open_on(disk) as db:
        count = fill(db, size=100)
    with (disk / "db" / "keydir").open("r+b") as file:
        file.write(b"of another boot")
    with pykv.open(disk / "db", "w") as db:
        assert len(db) == count
        for number in range(count):
            del db[b"k%d" % number]
        until(lambda: fits(db, b"room"))


def test_no_reserve_can_be_made(tmp_path: Path) -> None:
    """Something that is no file has its name: the store does without."""
    with pykv.open(tmp_path / "db") as db:
        db[b"k"] = b"v"
    (tmp_path / "db" / "reserve").unlink(missing_ok=True)
    os.mkfifo(tmp_path / "db" / "reserve")
    with pykv.open(tmp_path / "db") as db:
        db[b"k"] = b"w"
        time.sleep(0.05)
        assert db.verify().ok
    with pykv.open(tmp_path / "db") as db:
        assert db[b"k"] == b"w"


def test_the_reserve_follows_the_size_of_the_log(tmp_path: Path) -> None:
    path = tmp_path / "db" / "reserve"
    with pykv.open(tmp_path / "db", segment_bytes=1 << 20) as db:
        until(path.exists)
        assert path.stat().st_size <= 1 << 18
        db.put_many((b"%d" % number, b"x" * 1_000) for number in range(20_000))
        until(lambda: path.stat().st_size >= 1 << 20)
        assert path.stat().st_blocks * 512 >= 1 << 20
        db.clear()
        db.compact()
        until(lambda: path.stat().st_size <= 1 << 18)
