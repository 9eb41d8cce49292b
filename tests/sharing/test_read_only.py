"""
A store is read by who may not write to it: without permission, on media that are read-only, on a copy;
while nobody has it open and beside a live writer. Nothing of it is changed, and nothing else is needed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import shutil
import signal
import subprocess
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pykv

NOBODY = 65_534
CLONE_NEWNS = 0x20000
SEGMENT_BYTES = 64 << 10
PAIRS = {b"key:%d" % n: b"v" * (n % 300) for n in range(1_000)}

# CPython 3.12 and later warn of fork() beside other threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


# ---- Who may not write ----


@contextlib.contextmanager
def nobody(path: Path) -> Iterator[Path]:
    """As another user, to whom all of it is readable."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    yield path


@contextlib.contextmanager
def bound(path: Path) -> Iterator[Path]:
    """As on a mount that is read-only, while others have one that is not."""
    with own_mounts():
        place = path.with_name("bound")
        place.mkdir()
        mount("--bind", str(path), str(place))
        mount("-o", "remount,bind,ro", str(place))
        yield place


@contextlib.contextmanager
def own_mounts() -> Iterator[None]:
    libc = ctypes.CDLL(None, use_errno=True)
    if os.getuid() != 0 or libc.unshare(CLONE_NEWNS) != 0:
        pytest.skip("no mounts of our own can be had here")
    mount("--make-rprivate", "/")
    yield


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def in_child(act: Callable[[], None]) -> None:
    """Run act() in a process that may give up its rights; a skip there is one here."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            act()
            status = 0
        except pytest.skip.Exception as skip:
            os.write(write, str(skip).encode())
            status = 2
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(write)
    reason = os.read(read, 1_000)
    os.close(read)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 2:
        pytest.skip(reason.decode())
    assert status == 0


Become = Callable[[Path], contextlib.AbstractContextManager[Path]]
everybody = pytest.mark.parametrize("become", [nobody, bound])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store that all may read, and no more."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.getuid() and not directory.stat().st_mode & 0o005:
            directory.chmod(directory.stat().st_mode | 0o055)
    place = tmp_path / "store.kv"
    with pykv.open(place, segment_bytes=SEGMENT_BYTES, mode=0o644) as db:
        db.put_many(PAIRS)
        db.delete(b"key:0")
    return place


EXPECTED = {key: value for key, value in PAIRS.items() if key != b"key:0"}


def files(path: Path) -> dict[str, tuple[int, int, int]]:
    """What there is of a store, and when it was changed."""
    stats = {file.name: file.stat() for file in path.iterdir()}
    return {name: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


def check(db: pykv.Store, expected: dict[bytes, bytes], *missing: str) -> None:
    """All ways to read agree, and each way to write is refused."""
    assert dict(db.items()) == expected
    assert len(db) == len(expected)
    assert db.get_many(expected) == list(expected.values())
    assert db.get(b"key:0") is None
    with db.snapshot() as snapshot:
        assert dict(snapshot) == expected
    with db.view(b"key:7") as view:
        assert view == expected[b"key:7"]
    assert [damage.path for damage in db.verify().damage] == [*missing]
    for write in (
        lambda: db.put(b"k", b"v"),
        lambda: db.delete(b"key:7"),
        lambda: db.incr(b"n"),
        lambda: db.clear(),
    ):
        with pytest.raises(pykv.ReadOnlyError):
            write()


# ---- Nobody else is there ----


@everybody
@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_a_closed_store(path: Path, become: Become, io: pykv._open.IO) -> None:
    """It is read as it is, and no file of it is made, changed or removed."""
    before = files(path)

    def act() -> None:
        with become(path) as place:
            for _ in range(2):
                with pykv.open(place, "r", io=io) as db:
                    check(db, EXPECTED)

    in_child(act)
    assert files(path) == before


@everybody
@pytest.mark.parametrize("lost", [("keydir",), ("lock",), ("keydir", "lock"), ("everything",)])
def test_a_store_without_what_can_be_made_again(
    path: Path, become: Become, lost: tuple[str, ...]
) -> None:
    """As after a reboot, or a copy that took the log alone: the reader makes it, in its own memory."""
    for file in list(path.iterdir()):
        if file.name in lost or (lost == ("everything",) and "segment-" not in file.name):
            file.unlink()
    before = files(path)

    def act() -> None:
        with become(path) as place, pykv.open(place, "r") as db:
            check(db, EXPECTED, *(["manifest"] if lost == ("everything",) else []))

    in_child(act)
    assert files(path) == before


@everybody
def test_a_store_whose_writer_was_killed(path: Path, become: Become) -> None:
    """What it had acknowledged is there; the keydir is as it was when it died."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        db = pykv.open(path, "w", segment_bytes=SEGMENT_BYTES)
        db[b"late"] = b"1"
        os.write(write, b".")
        signal.pause()
    os.read(read, 1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

    def act() -> None:
        with become(path) as place, pykv.open(place, "r") as db:
            check(db, EXPECTED | {b"late": b"1"})

    in_child(act)
    os.close(read)
    os.close(write)


@everybody
@pytest.mark.parametrize("flag", ["w", "c", "n"])
def test_to_write_is_refused(path: Path, become: Become, flag: pykv._open.Flag) -> None:
    """Who asks for more than "r" is told why not, and nothing has been touched."""
    before = files(path)

    def act() -> None:
        with become(path) as place:
            reason = "Permission denied" if become is nobody else "Read-only file system"
            with pytest.raises(pykv.AccessError, match=reason):
                pykv.open(place, flag)

    in_child(act)
    assert files(path) == before


# ---- Beside a live writer ----


def all_items(db: pykv.Store) -> dict[bytes, bytes]:
    """Who may not write holds nothing: compaction may come between, and says so."""
    while True:
        try:
            return dict(db.items())
        except pykv.SnapshotLostError:
            continue


@everybody
@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_beside_a_live_writer(path: Path, become: Become, io: pykv._open.IO) -> None:
    """Each write is there for the reader once it is acknowledged, over new segments and a clear."""
    go, done = os.pipe(), os.pipe()
    with pykv.open(path, "w", segment_bytes=SEGMENT_BYTES) as writer:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                writer.close()
                with become(path) as place, pykv.open(place, "r", io=io) as db:
                    os.write(done[1], b"r")
                    for n in range(50):
                        os.read(go[0], 1)
                        assert db[b"round"] == b"%d" % n
                        assert db[b"pad"] == b"%d" % n * 10_000
                        assert len(db) == len(all_items(db)) == (2 if n >= 25 else 1_001)
                        os.write(done[1], b".")
                status = 0
            except pytest.skip.Exception:
                os.write(done[1], b"s")
                status = 0
            except BaseException:
                traceback.print_exc()
                os.write(done[1], b"!")
            finally:
                os._exit(status)
        answer = os.read(done[0], 1)
        for n in range(50 if answer == b"r" else 0):
            if n == 25:
                writer.clear()
            writer[b"round"] = b"%d" % n
            writer[b"pad"] = b"%d" % n * 10_000
            os.write(go[1], b".")
            if os.read(done[0], 1) != b".":
                break
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert answer == b"s" or writer.stats().written_bytes > 5 * 65_536
    for end in (*go, *done):
        os.close(end)
    if answer == b"s":
        pytest.skip("neither another user nor a mount can be had here")


@everybody
def test_the_last_writer_leaves_the_keydir_to_its_readers(path: Path, become: Become) -> None:
    """It would make a smaller one, which they would not see: so it waits until they have gone."""
    go, done = os.pipe(), os.pipe()
    with pykv.open(path, "w", segment_bytes=SEGMENT_BYTES) as writer:
        writer.put_many((b"many:%d" % n, b"") for n in range(150_000))
        writer.delete_many([b"many:%d" % n for n in range(150_000)])
    pykv.open(path, "w", segment_bytes=SEGMENT_BYTES, expected_keys=200_000).close()
    keydir = path / "keydir"
    assert keydir.stat().st_size > 2 << 20
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with become(path) as place, pykv.open(place, "r") as db:
                os.write(done[1], b"r")
                for n in range(3):
                    os.read(go[0], 1)
                    assert db[b"round"] == b"%d" % n
                    os.write(done[1], b".")
            status = 0
        except pytest.skip.Exception:
            os.write(done[1], b"s")
            status = 0
        except BaseException:
            traceback.print_exc()
            os.write(done[1], b"!")
        finally:
            os._exit(status)
    answer = os.read(done[0], 1)
    for n in range(3 if answer == b"r" else 0):
        with pykv.open(path, "w", segment_bytes=SEGMENT_BYTES) as writer:
            writer[b"round"] = b"%d" % n
        assert keydir.stat().st_size > 2 << 20
        os.write(go[1], b".")
        if os.read(done[0], 1) != b".":
            break
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for end in (*go, *done):
        os.close(end)
    if answer == b"s":
        pytest.skip("neither another user nor a mount can be had here")
    pykv.open(path, "w", segment_bytes=SEGMENT_BYTES).close()
    assert not keydir.exists()
    with pykv.open(path, "w", segment_bytes=SEGMENT_BYTES) as writer:
        assert dict(writer) == EXPECTED | {b"round": b"2"}
        assert keydir.stat().st_size < 1 << 20


# ---- Read-only media ----


def test_a_file_system_that_is_read_only(path: Path) -> None:
    """Not a mount of another one: the medium itself cannot be written to."""

    def act() -> None:
        with own_mounts():
            medium = path.with_name("medium")
            medium.mkdir()
            mount("-t", "tmpfs", "none", str(medium))
            shutil.copytree(path, medium / "store.kv")
            mount("-o", "remount,ro", str(medium))
            with pykv.open(medium / "store.kv", "r") as db:
                check(db, EXPECTED)
            flags: list[pykv._open.Flag] = ["w", "c", "n"]
            for flag in flags:
                with pytest.raises(pykv.AccessError, match="Read-only"):
                    pykv.open(medium / "store.kv", flag)

    in_child(act)


# ---- Copies ----


def test_a_copy(path: Path) -> None:
    """It is a store of its own: what is written to either is not in the other."""
    copy = path.with_name("copy.kv")
    with pykv.open(path, "w") as db:
        db.sync()
        shutil.copytree(path, copy)
        with pykv.open(copy, "r") as reader:  # may write, though it does not: so it makes a keydir
            check(reader, EXPECTED)
            db[b"original"] = b"1"
            assert b"original" not in reader
            with pykv.open(copy, "w") as writer:
                writer[b"copy"] = b"1"
                assert reader[b"copy"] == b"1"
                assert b"copy" not in db
    with pykv.open(copy, "r") as reader:
        assert dict(reader) == EXPECTED | {b"copy": b"1"}


def test_copies_made_while_writing(path: Path) -> None:
    """Each is either a prefix of what was written, batches whole, or is refused; never wrong."""
    opened = refused = 0
    choose = random.Random(1)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with pykv.open(path, "w", segment_bytes=SEGMENT_BYTES) as db:
            for n in range(1 << 60):
                db[b"n"] = b"%d" % n
                db.put_many({b"a": b"%d" % n, b"b": b"%d" % n, b"%d" % (n % 999): b"x" * 500})
                if n % 100 == 0:
                    db.sync()
                if n == 1_000:
                    os.write(write, b".")
    os.read(read, 1)
    try:
        for number in range(20):
            copy = path.with_name(f"{number}.kv")
            copy.mkdir()
            names = sorted(file.name for file in path.iterdir())
            choose.shuffle(names)
            for name in names:
                with contextlib.suppress(FileNotFoundError):  # of an old checkpoint
                    shutil.copy(path / name, copy / name)
            try:
                with pykv.open(copy, "w") as db:
                    n = int(db[b"n"])
                    assert db[b"a"] == db[b"b"]
                    assert int(db[b"a"]) in (n, n - 1)
                    assert set(EXPECTED.items()) <= set(db.items())
                    assert db.verify().ok
                    opened += 1
            except pykv.CorruptError as error:
                assert error.path  # it says where
                refused += 1
            shutil.rmtree(copy)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(read)
        os.close(write)
    assert opened + refused == 20
    print(f"{opened} copies could be opened, {refused} were refused")
