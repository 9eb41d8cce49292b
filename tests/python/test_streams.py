"""Large values: parts of them, and values as files."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import os
import random
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

import pykv
from pykv import aio
from pykv._streams import BUFFER_SIZE, _Scratch

CHUNK = 65_536
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK - 1, 2 * CHUNK, 2 * CHUNK + 9, 5 * CHUNK - 7]
LARGE = 2_500_003  # bytes: more than a segment, and than what is copied at a time


def value_of(size: int) -> bytes:
    """Bytes that differ from chunk to chunk."""
    return random.Random(size).randbytes(size)


def place_of(path: Path, value: bytes) -> tuple[Path, int]:
    """Return the segment that *value* lies in, and where in it."""
    for segment in sorted(path.glob("segment-*")):
        place = segment.read_bytes().find(value[:4096])
        if place >= 0:
            return segment, place
    raise AssertionError("the value is in no segment")


def flip(segment: Path, at: int) -> None:
    """Change a bit of the byte at *at*."""
    with segment.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 4]))


def lose_keydir(path: Path) -> None:
    """So that the next open reads all segments."""
    for file in [path / "keydir", *path.glob("checkpoint-*")]:
        file.unlink()


# ---- Parts ----


@pytest.mark.parametrize("size", [*SIZES, LARGE])
def test_a_part_is_that_slice(db: pykv.Store, size: int) -> None:
    """At every border of a chunk a part is what the slice of the whole value is."""
    value = value_of(size)
    db[b"k"] = value
    borders = {0, 1, size - 1, size, size + 1, 1 << 40}
    borders |= {n * CHUNK + d for n in range(6) for d in (-1, 0, 1)}
    borders = {border for border in borders if border >= 0}
    with db.snapshot() as snapshot, db.transaction() as transaction:
        db[b"k"] = b"now"
        for offset in borders:
            for length in (0, 1, 7, CHUNK - 1, CHUNK, CHUNK + 1, size, 1 << 40):
                part = value[offset : offset + length]
                assert snapshot.get(b"k", None, offset, length) == part
            assert snapshot.get(b"k", offset=offset) == value[offset:]
            assert snapshot.get(b"k", length=offset) == value[:offset]
            assert transaction.get(b"k", offset=offset, length=9) == value[offset : offset + 9]
    assert db.get(b"k", offset=1) == b"ow"


@pytest.mark.parametrize("size", SIZES)
def test_sizes_around_chunks_everywhere(path: Path, size: int) -> None:
    """Such a value is the same after a reopen, a rebuild, an expiry, a batch and a compaction."""
    value = value_of(size)
    with pykv.open(path, segment_bytes=1 << 20) as db:
        db[b"k" * 9] = value
        db.put(b"expires", value, ttl=1000)
        db.put_many({b"a": b"small", b"b": value, b"c": value})
        db.put_many((b"%d" % n, b"x" * 4_000) for n in range(500))
        db.delete_many(b"%d" % n for n in range(500))
        db.compact()
    for lost in ("", "keydir", "manifest"):
        if lost:
            lose_keydir(path)
        if lost == "manifest":
            (path / lost).unlink()
        for mode in ("mmap", "pread"):
            with pykv.open(path, io=mode) as db:
                assert db.verify().ok
                assert db[b"k" * 9] == db[b"expires"] == db[b"b"] == db[b"c"] == value
                assert db.get(b"expires", offset=size // 2) == value[size // 2 :]
                assert dict(db)[b"b"] == value
                with db.view(b"b") as view:
                    assert view == value


def test_a_part_of_what_is_absent(db: pykv.Store) -> None:
    """Absent is the default, also in part; a part of an empty value is empty."""
    assert db.get(b"absent", 7, offset=3) == 7
    assert db.get(b"absent", length=0) is None
    db[b"empty"] = b""
    assert db.get(b"empty", offset=0, length=9) == b""


@pytest.mark.parametrize("wrong", [{"offset": -1}, {"length": -1}, {"offset": 0, "length": -5}])
def test_negative_bounds_are_refused(db: pykv.Store, wrong: dict[str, int]) -> None:
    """There is no part before the beginning: unlike a slice nothing counts from the end."""
    db[b"k"] = b"value"
    with db.snapshot() as snapshot, db.transaction() as transaction:
        for reader in (db, snapshot, transaction):
            given = f"{wrong.get('offset')}, {wrong.get('length')}"
            with pytest.raises(pykv.InvalidError, match=f"negative: {given}$"):
                reader.get(b"k", **wrong)
    with pytest.raises(TypeError):
        db.get(b"k", offset=1.5)  # type: ignore[call-overload]
    with pytest.raises(pykv.NotBytesError):
        db.get("k", offset=1)  # type: ignore[call-overload]


def test_a_transaction_reads_parts_of_its_own_writes(db: pykv.Store) -> None:
    """A part that was read counts as a read: a write of others in between is a conflict."""
    db[b"k"] = b"0123"
    with db.transaction() as transaction:
        transaction[b"new"] = b"value"
        assert transaction.get(b"new", offset=1, length=2) == b"al"
        del transaction[b"k"]
        assert transaction.get(b"k", 5, length=1) == 5
    with pytest.raises(pykv.ConflictError), db.transaction() as transaction:
        assert transaction.get(b"new", offset=4) == b"e"
        db[b"new"] = b"other"
        transaction[b"k"] = b""
    with pytest.raises(pykv.ConflictError), db.transaction() as transaction:
        assert transaction.get(b"k", offset=4) is None
        db[b"k"] = b"there"
        transaction[b"x"] = b""


def test_parts_for_asyncio(path: Path) -> None:
    """The awaitable get takes the same arguments."""

    async def main() -> None:
        async with await aio.open(path) as db:
            await db.put(b"k", b"value")
            assert await db.get(b"k", offset=2) == b"lue"
            assert await db.get(b"absent", 3, length=1) == 3

    asyncio.run(main())


@pytest.mark.parametrize("mode", ["mmap", "pread"])
def test_a_damaged_chunk_hurts_whoever_touches_it(path: Path, mode: Any) -> None:
    """Parts elsewhere are readable; its own parts, the value and verify() name the place."""
    value = value_of(10 * CHUNK + 5)
    with pykv.open(path, segment_bytes=1 << 20) as db:
        db[b"before"] = b"b"
        db[b"k"] = value
        db[b"after"] = b"a"
    segment, place = place_of(path, value)
    flip(segment, place + 4 * CHUNK + 100)
    with pykv.open(path, io=mode) as db:
        assert db.get(b"k", length=4 * CHUNK) == value[: 4 * CHUNK]
        assert db.get(b"k", offset=5 * CHUNK) == value[5 * CHUNK :]
        assert b"k" in db
        assert set(db) == {b"before", b"k", b"after"}
        for read in (
            lambda: db[b"k"],
            lambda: db.view(b"k"),
            lambda: db.get(b"k", offset=4 * CHUNK - 1, length=2),
            lambda: db.get(b"k", offset=5 * CHUNK - 1, length=1),
            lambda: db.get_many([b"k"]),
            lambda: list(db.values()),
            lambda: db.open_value(b"k").read(),
        ):
            with pytest.raises(pykv.CorruptError) as caught:
                read()
            assert caught.value.path == segment.name
            assert caught.value.offset == place + 4 * CHUNK
        report = db.verify()
        assert not report.ok
        head = 24 + len(b"k") + 11 * 4
        (found,) = report.damage
        assert (found.path, found.offset) == (segment.name, place - head)
        assert found.size == (head + len(value) + 15) // 16 * 16
        db[b"k"] = b"replaced"
        assert db[b"k"] == b"replaced"
        assert db[b"after"] == b"a"


@pytest.mark.parametrize("mode", ["mmap", "pread"])
def test_chunks_that_changed_places_are_damage(path: Path, mode: Any) -> None:
    """A chunk verifies in its own place alone."""
    value = value_of(4 * CHUNK)
    with pykv.open(path) as db:
        db[b"k"] = value
    segment, place = place_of(path, value)
    data = segment.read_bytes()
    swapped = value[CHUNK : 2 * CHUNK] + value[:CHUNK] + value[2 * CHUNK :]
    segment.write_bytes(data[:place] + swapped + data[place + len(value) :])
    with pykv.open(path, io=mode) as db:
        for chunk in (0, 1):
            with pytest.raises(pykv.CorruptError):
                db.get(b"k", offset=chunk * CHUNK, length=1)
        assert db.get(b"k", offset=2 * CHUNK) == value[2 * CHUNK :]


def test_damage_in_the_head_is_damage_of_all(path: Path) -> None:
    """What tells the checksums is itself under one: a changed table is never believed."""
    value = value_of(3 * CHUNK)
    with pykv.open(path) as db:
        db[b"k"] = value
    segment, place = place_of(path, value)
    flip(segment, place - 4)
    with pykv.open(path) as db, pytest.raises(pykv.CorruptError):
        db.get(b"k", length=1)


def test_rebuild_and_repair_around_a_damaged_chunk(path: Path) -> None:
    """A rebuild refuses, and with repair loses that value alone: the rest is where its head says."""
    value = value_of(20 * CHUNK)
    with pykv.open(path, segment_bytes=1 << 20) as db:
        db[b"before"] = value_of(70_000)
        db.put_many({b"batch": value_of(80_000), b"small": b"s"})
        db[b"k"] = value
        db[b"after"] = value_of(90_000)
        db.sync()
    segment, place = place_of(path, value)
    flip(segment, place + 19 * CHUNK)
    lose_keydir(path)
    aside = path.with_name("repaired")
    repaired = pykv.repair(path, aside)
    assert repaired.keys == 4
    with pytest.raises(pykv.CorruptError) as caught:
        pykv.open(path)
    assert caught.value.path == segment.name
    options: dict[str, Any] = {"repair": True}
    for where, how in ((aside, {}), (path, options)):
        with pykv.open(where, **how) as db:
            assert set(db) == {b"before", b"batch", b"small", b"after"}
            assert db[b"after"] == value_of(90_000)
            assert db[b"batch"] == value_of(80_000)


@pytest.mark.parametrize("repair", [False, True])
def test_damage_anywhere_is_never_another_value(path: Path, repair: bool) -> None:
    """After a flipped byte or a lost page each read is right or an error; a repair has the rest."""
    values = {b"a": value_of(3 * CHUNK + 5), b"b": value_of(100), b"c": value_of(CHUNK + 1)}
    with pykv.open(path, segment_bytes=1 << 20) as db:
        db.put_many(values)
        db.put_many({b"d": value_of(2 * CHUNK), b"e": b"e"})
    values |= {b"d": value_of(2 * CHUNK), b"e": b"e"}
    segment, place = place_of(path, values[b"a"])
    whole, numbers = segment.read_bytes(), random.Random(7)
    end = len(whole.rstrip(b"\0"))
    near = [place + n * CHUNK + d for n in range(4) for d in (-1, 0)]
    for at in [*range(128, place), *near, *(numbers.randrange(place, end) for _ in range(60))]:
        size = min(numbers.choice((1, 4096)), end - at)
        changed = bytes([whole[at] ^ 1 << numbers.randrange(8)]) if size == 1 else bytes(size)
        if changed == whole[at : at + size]:
            continue
        target = path
        if repair:
            target = shutil.copytree(path, path.with_name("damaged"))
            lose_keydir(target)
        with (target / segment.name).open("r+b") as file:
            file.seek(at)
            file.write(changed)
        errors = 0
        with pykv.open(target, repair=True) if repair else pykv.open(target, "r") as db:
            for key, value in values.items():
                try:
                    assert db.get(key) in ((None, value) if repair else (value,))
                except pykv.CorruptError:
                    errors += 1
                for offset in range(0, len(value), CHUNK // 2):
                    with contextlib.suppress(pykv.CorruptError):
                        part = db.get(key, offset=offset, length=9)
                        assert part == value[offset : offset + 9] or (repair and part is None)
            assert len(db) >= 2
            if repair:
                assert errors == 0
            else:
                assert not db.verify().ok
        if repair:
            shutil.rmtree(target)
        else:
            segment.write_bytes(whole)


# ---- Reading as a file ----


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, BUFFER_SIZE + 1, LARGE])
def test_a_value_reads_as_a_file(db: pykv.Store, size: int) -> None:
    """In whatever pieces and places it is read, it shows the value as of its opening."""
    value = value_of(size)
    db[b"k"] = value
    with db.open_value(b"k", "rb") as file:
        db[b"k"] = b"now"
        assert file.readable() and file.seekable() and not file.writable()
        assert file.read() == value
        assert file.read() == b""
        assert file.seek(0) == 0
        assert b"".join(iter(lambda: file.read(100_001), b"")) == value
        assert file.seek(-min(size, 9), io.SEEK_END) == file.tell() == size - min(size, 9)
        assert file.read(99) == value[size - min(size, 9) :]
        for position in random.Random(1).choices(range(size + 2), k=20):
            file.seek(position)
            assert file.read(5_000) == value[position : position + 5_000]
        with pytest.raises(ValueError, match="negative"):
            file.seek(-1)
        with pytest.raises(ValueError, match="whence"):
            file.raw.seek(0, 9)
    assert db.stats().snapshots == 0


def test_a_reader_of_lines(db: pykv.Store) -> None:
    """What wraps a binary file wraps this one."""
    lines = [f"line {n}\n" for n in range(30_000)]
    db[b"k"] = "".join(lines).encode()
    with io.TextIOWrapper(db.open_value(b"k"), "ascii") as text:
        assert list(text) == lines


def test_a_reader_of_what_is_absent(db: pykv.Store) -> None:
    """KeyError, and no snapshot is left behind."""
    with pytest.raises(KeyError):
        db.open_value(b"absent")
    with pytest.raises(pykv.NotBytesError):
        db.open_value("k")  # type: ignore[call-overload]
    with pytest.raises(pykv.KeySizeError):
        db.open_value(bytes(70_000))
    assert db.stats().snapshots == 0


def test_the_end_of_a_reader_lets_go(db: pykv.Store) -> None:
    """Closed, dropped, or its store closed: nothing is held, and reads say so."""
    db[b"k"] = value_of(CHUNK)
    file = db.open_value(b"k")
    assert db.stats().snapshots == 1
    file.close()
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.read()
    file = db.open_value(b"k")
    del file
    gc.collect()
    assert db.stats().snapshots == 0
    file = db.open_value(b"k")
    db.close()
    with pytest.raises(pykv.ClosedError):
        file.read()
    file.close()


def test_a_reader_outlives_compaction_and_many_writes(path: Path) -> None:
    """The instant is held: what it needs is not removed, in each mode."""
    value = value_of(LARGE)
    for mode in ("mmap", "pread"):
        with pykv.open(path, io=mode, segment_bytes=1 << 16) as db:
            db[b"k"] = value
            with db.open_value(b"k") as file:
                for n in range(20):
                    db[b"k"] = value_of(70_000 + n)
                    db[b"other"] = value_of(50_000)
                db.compact()
                assert file.read() == value
            assert db.verify().ok


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_reader_after_a_fork(db: pykv.Store) -> None:
    """Parent and child have the instant, each with a position of its own."""
    value = value_of(LARGE)
    db[b"k"] = value
    with db.open_value(b"k") as file:
        assert file.read(10) == value[:10]
        child = os.fork()
        if child == 0:
            ok = file.read() == value[10:]
            file.close()
            os._exit(0 if ok else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert file.read() == value[10:]


# ---- Writing as a file ----


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, LARGE])
def test_a_file_becomes_a_value(db: pykv.Store, path: Path, size: int) -> None:
    """Nothing is there before it is closed, and then all of it; no file is left."""
    value = value_of(size)
    names = {*path.iterdir(), path / "reserve"}  # which a helper makes when it likes
    with db.open_value(b"k", "wb") as file:
        assert {*path.iterdir(), path / "reserve"} == names
        assert file.writable() and file.seekable() and not file.readable()
        for at in range(0, size, 99_991):
            assert file.write(value[at : at + 99_991]) == len(value[at : at + 99_991])
        assert file.tell() == size
        assert b"k" not in db
    assert file.closed
    assert db[b"k"] == value
    file.close()
    assert db.stats().version == 1
    with pytest.raises(ValueError, match="closed"):
        file.write(b"more")
    assert not (path / "scratch.tmp").exists()


def test_a_writer_that_seeks(db: pykv.Store) -> None:
    """A header may be written last, a hole reads as zeros, and a cut end is gone."""
    with db.open_value(b"k", "wb") as file:
        file.write(b"????body")
        file.seek(100_000)
        file.write(b"end and more")
        file.truncate(100_003)
        file.seek(0)
        file.write(b"head")
    assert db[b"k"] == b"headbody" + bytes(99_992) + b"end"


def test_a_writer_of_text(db: pykv.Store) -> None:
    """What wraps the file is let go of at the end; after an exception nothing is stored."""
    with db.open_value(b"k", "wb") as file:
        text = io.TextIOWrapper(file, "utf-8")
        text.write("Gr\u00fc\u00dfe")
        text.detach()
    assert db[b"k"].decode() == "Gr\u00fc\u00dfe"
    with pytest.raises(ZeroDivisionError), db.open_value(b"k", "wb") as file:
        text = io.TextIOWrapper(file, "utf-8")
        text.write("x" * 100_000)
        raise ZeroDivisionError
    assert db[b"k"].decode() == "Gr\u00fc\u00dfe"


def test_a_value_copied_from_file_to_file(db: pykv.Store) -> None:
    """The two ends fit each other, and the value may be replaced by what is made of it."""
    db[b"k"] = value = value_of(LARGE)
    with db.open_value(b"k") as source, db.open_value(b"k", "wb") as target:
        shutil.copyfileobj(source, target)
        target.write(b"more")
    assert db[b"k"] == value + b"more"


def test_a_writer_with_ttl_and_durability(db: pykv.Store) -> None:
    """They are those of a put; what it would refuse is refused before anything is written."""
    with db.open_value(b"k", "wb", ttl=1000, durable=True) as file:
        file.write(b"v")
    left = db.ttl(b"k")
    assert left is not None and 990 < left <= 1000
    with pytest.raises(pykv.InvalidError):
        db.open_value(b"k", "wb", ttl=-1)
    with pytest.raises(TypeError):
        db.open_value(b"k", "wb", durable="yes")  # type: ignore[call-overload]
    with pytest.raises(pykv.KeySizeError):
        db.open_value(bytes(70_000), "wb")
    for wrong in ({"mode": "r"}, {"mode": "ab"}, {"mode": "rb", "ttl": 5}):
        with pytest.raises(pykv.InvalidError, match="mode"):
            db.open_value(b"k", **wrong)  # type: ignore[call-overload]


def test_a_writer_that_fails_changes_nothing(db: pykv.Store) -> None:
    """An exception in the block, a discard, or the loss of the file: the key is as it was."""
    db[b"k"] = b"before"
    with pytest.raises(ZeroDivisionError), db.open_value(b"k", "wb") as file:
        file.write(value_of(LARGE))
        raise ZeroDivisionError
    assert file.closed
    file = db.open_value(b"k", "wb")
    file.write(b"after")
    file.discard()
    file.close()
    file = db.open_value(b"k", "wb")
    file.write(b"after")
    with pytest.warns(ResourceWarning, match="dropped"):
        del file
        gc.collect()
    with db.open_value(b"k", "wb") as file:
        file.write(b"after")
        file.discard()
    assert db[b"k"] == b"before"
    assert db.stats().version == 1


def test_a_closed_writer_does_not_warn(db: pykv.Store) -> None:
    """A ResourceWarning is for what is lost."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with db.open_value(b"k", "wb") as file:
            file.write(b"v")
        with contextlib.suppress(KeyError), db.open_value(b"k", "wb") as file:
            raise KeyError
        del file
        gc.collect()


def test_a_store_that_is_closed_or_read_only(path: Path) -> None:
    """A writer is refused when it is opened; where the store closes first, at its end."""
    with pykv.open(path) as db:
        db[b"k"] = b"before"
        file = db.open_value(b"k", "wb")
        file.write(b"after")
    with pytest.raises(pykv.ClosedError):
        file.close()
    assert file.closed
    for call in (lambda: db.open_value(b"k"), lambda: db.open_value(b"k", "wb")):
        with pytest.raises(pykv.ClosedError):
            call()
    with pykv.open(path, "r") as db:
        with pytest.raises(pykv.ReadOnlyError):
            db.open_value(b"k", "wb")
        assert db.open_value(b"k").read() == b"before"


def test_a_value_that_is_too_long_is_refused_while_it_is_written(
    db: pykv.Store, tmp_path: Path
) -> None:
    """The error is that of a put, and comes with the first byte too many, even behind a hole."""
    with pytest.raises(pykv.ValueSizeError) as caught, db.open_value(b"k", "wb") as file:
        file.seek(4_294_967_290)
        file.write(b"five.")
        file.flush()
        file.write(b"!")
        file.flush()
    assert caught.value.size == 4_294_967_296
    assert b"k" not in db


def test_a_full_disk_is_told_while_it_is_written(db: pykv.Store) -> None:
    """ENOSPC of the gathering file is a StoreFullError, as it is of the log."""
    full = os.open("/dev/full", os.O_RDWR)
    with _Scratch(full, "w+b") as file, pytest.raises(pykv.StoreFullError):
        file.write(b"v")
    with pykv.open(db.path + "-limited", max_disk_bytes=1 << 20) as limited:
        limited[b"k"] = b"before"
        with pytest.raises(pykv.StoreFullError), limited.open_value(b"k", "wb") as writer:
            writer.write(value_of(LARGE))
        assert limited[b"k"] == b"before"


def test_what_a_dead_writer_left_is_in_nobodys_way(path: Path) -> None:
    """A death between the making of the file and the removal of its name leaves an empty file."""
    with pykv.open(path) as db:
        (path / "scratch.tmp").touch()
        with db.open_value(b"k", "wb") as file:
            file.write(b"v")
        assert not (path / "scratch.tmp").exists()
    (path / "scratch.tmp").touch()
    with pykv.open(path) as db:
        assert db[b"k"] == b"v"


def test_many_threads_write_and_read_files(db: pykv.Store) -> None:
    """Each value that is seen is one that was written, whole."""
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for n in range(10):
                value = bytes([seed]) * (100_000 + n)
                with db.open_value(b"k%d" % (n % 2), "wb") as file:
                    file.write(value[:50_000])
                    file.write(value[50_000:])
                with db.open_value(b"k%d" % (n % 2)) as file:
                    seen = file.read()
                part = db.get(b"k0", offset=99_000, length=500)
                assert len(set(seen)) == 1 and 100_000 <= len(seen) <= 100_009
                assert part is not None and len(set(part)) == 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert db.verify().ok


def test_a_backup_has_long_values(db: pykv.Store, tmp_path: Path) -> None:
    """As all others: a backup copies segments."""
    db[b"k"] = value = value_of(LARGE)
    db.backup(tmp_path / "copy")
    with pykv.open(tmp_path / "copy", "r") as copy:
        assert copy.open_value(b"k").read() == value
        assert copy.verify().ok


LARGER_THAN_MEMORY = """
import hashlib, os, resource, sys
import pykv

def figure(name):
    with open("/proc/self/status") as status:
        return int(dict(line.split(":", 1) for line in status)[name].split()[0]) << 10

def read(db):
    digest = hashlib.blake2b()
    with db.open_value(b"k") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.digest()

path, mode = sys.argv[1:]
piece = bytes(range(256)) * 4096
written = hashlib.blake2b()
with pykv.open(path, io=mode, segment_bytes=1 << 29) as db:
    before = figure("RssAnon")
    resource.setrlimit(resource.RLIMIT_DATA, (figure("VmData") + (64 << 20),) * 2)
    with db.open_value(b"k", "wb") as file:
        for n in range(128):
            written.update(b"%8d" % n + piece[8:])
            file.write(b"%8d" % n + piece[8:])
    assert read(db) == written.digest()
    assert db.get(b"k", offset=100 << 20, length=9) == b"     100\\x08"
    for n in range(8):
        db[b"dead"] = piece
    copied = db.stats().copied_bytes
    db.compact()
    assert db.stats().copied_bytes - copied > 128 << 20
    assert read(db) == written.digest()
    assert db.verify().ok
os.remove(path + "/keydir")
with pykv.open(path, io=mode) as db:
    assert read(db) == written.digest()
    assert figure("RssAnon") - before < 16 << 20, figure("RssAnon") - before
    try:
        db[b"k"]
    except MemoryError:
        print("and not otherwise")
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is told by Linux")
@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer's counts too")
@pytest.mark.parametrize("mode", ["mmap", "pread"])
def test_a_value_larger_than_memory(path: Path, mode: str) -> None:
    """A process with 64 MiB to go writes, reads, compacts, verifies and recovers a value of 128 MiB."""
    arguments = [sys.executable, "-c", LARGER_THAN_MEMORY, str(path), mode]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "and not otherwise\n"), result.stderr


HELD_ONCE = """
import resource, sys
import pykv

def data_size():
    with open("/proc/self/status") as status:
        return int(dict(line.split(":", 1) for line in status)["VmData"].split()[0]) << 10

path, mode = sys.argv[1:]
with pykv.open(path, io=mode) as db:
    with db.open_value(b"k", "wb") as file:
        for n in range(48):
            file.write(b"%8d" % n * (1 << 17))
    resource.setrlimit(resource.RLIMIT_DATA, (data_size() + (64 << 20),) * 2)
    for read in (db.__getitem__, db.view, db.snapshot().view):
        value = read(b"k")
        assert len(value) == 48 << 20
        assert value[-9:] == b"7      47"
        del value
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is told by Linux")
@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer's counts too")
@pytest.mark.parametrize("mode", ["mmap", "pread"])
def test_a_value_is_held_once(path: Path, mode: str) -> None:
    """A process with 64 MiB to go reads a value of 48 MiB."""
    arguments = [sys.executable, "-c", HELD_ONCE, str(path), mode]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
