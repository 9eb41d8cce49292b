"""
A process dies while it holds the writer lock: the others wait for it as long as it lives, whatever it
does, and go on when it is dead. All of it also where each process is in a pid namespace of its own,
as containers are that share a volume: there numbers of processes are equal, or mean nothing.

The holder is stopped inside the engine's copy of a value, by a value that lies in a mapping of a file
which has been cut: to read it is a SIGBUS, whose handler returns, so that it is read again, for ever.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import workers

import pykv

CLONE_NEWPID = 0x20000000
WRITERS = 3
DEATHS = 10
HELD_SECONDS = 0.1  # far longer than a waiter sleeps before it asks whether the owner lives

# CPython 3.12 and later warn of fork() beside other threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

Start = Callable[..., workers.Worker]


def start_here(act: Callable[..., None], *arguments: object) -> workers.Worker:
    return workers.Worker(act, *arguments)


def start_apart(act: Callable[..., None], *arguments: object) -> workers.Worker:
    """Run act() in a new pid namespace, as `unshare --pid --fork` does: as its process 1."""

    def begin(report: Callable[..., None]) -> None:
        assert os.getpid() == 1
        act(report, *arguments)

    with Path("/proc/self/ns/pid").open() as ours:
        call("unshare", CLONE_NEWPID)
        try:
            return workers.Worker(begin)
        finally:
            call("setns", ours.fileno(), CLONE_NEWPID)  # for our next child


def call(name: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def skip_unless_apart() -> None:
    """Skip a test where the system does not let us have a pid namespace."""
    try:
        start_apart(lambda report: None).join()
    except (OSError, AttributeError) as error:
        pytest.skip(f"no pid namespace can be had here: {error}")


@pytest.fixture(params=["here", "apart"])
def start(request: pytest.FixtureRequest) -> Start:
    """How to start a process: beside us, or in a pid namespace of its own."""
    if request.param == "here":
        return start_here
    skip_unless_apart()
    return start_apart


def write(report: Callable[..., None], path: Path, name: bytes) -> None:
    """Put, count, put many, until killed."""
    with pykv.open(path, "w", segment_bytes=workers.SEGMENT_BYTES) as db:
        for count in range(1, 1 << 60):
            start = time.monotonic_ns()
            db[name] = b"%d" % count
            took_ns = time.monotonic_ns() - start
            db.incr(b"count:" + name)
            db.put_many((name + b":%d" % n, b"%d" % count) for n in range(3))
            report(count, took_ns)


def hang_in_a_put(report: Callable[..., None], path: Path, size: int) -> None:
    """Write, and then take the writer lock and never give it back; report when we have it."""
    read, faults = os.pipe()
    os.set_blocking(faults, False)
    signal.signal(signal.SIGBUS, lambda *_: None)
    signal.set_wakeup_fd(faults, warn_on_full_buffer=False)
    with tempfile.TemporaryFile() as file, pykv.open(path, "w") as db:
        for n in range(100):
            db[b"before:%d" % n] = b"v"
        file.truncate(size)
        value = memoryview(mmap.mmap(file.fileno(), size))
        file.truncate(mmap.PAGESIZE)

        def tell() -> None:
            os.read(read, 1)  # written by the handler, so the fault has come
            report(1)

        threading.Thread(target=tell).start()
        db.put(b"hung", value)


SIZES = [300_000, 3_000_000]  # copied into the mapped segment; written to it piece by piece


@pytest.mark.parametrize("size", SIZES)
def test_the_holder_is_killed(tmp_path: Path, start: Start, size: int) -> None:
    """Nobody takes the lock from the living; when the holder is killed the others go on at once."""
    path = tmp_path / "store.kv"
    pykv.open(path, segment_bytes=workers.SEGMENT_BYTES).close()
    names = [b"%c" % (ord("a") + n) for n in range(WRITERS)]
    writers = [start(write, path, name) for name in names]
    waits: list[float] = []
    for _death in range(DEATHS):
        holder = start(hang_in_a_put, path, size)
        holder.listen_beyond(0)
        for writer in writers:  # what they had done before it took the lock
            writer.listen(0.01)
        before = [writer.done for writer in writers]
        held = time.monotonic() + HELD_SECONDS
        for writer in writers:
            writer.listen(max(0, held - time.monotonic()))
        # One call may have been past the lock, and its report on the way.
        assert all(w.done <= done + 1 for w, done in zip(writers, before, strict=True))
        before = [writer.done for writer in writers]
        holder.kill()
        killed = time.monotonic()
        for writer, done in zip(writers, before, strict=True):
            writer.listen_beyond(done)
        waits.append(time.monotonic() - killed)
    for writer in writers:
        writer.kill()
    with pykv.open(path, "w") as db:
        assert b"hung" not in db
        assert db.get_many([b"before:%d" % n for n in range(100)]) == [b"v"] * 100
        for name, writer in zip(names, writers, strict=True):
            assert writer.done <= int(db[name]) <= writer.done + 1
            assert writer.done <= int(db[b"count:" + name]) <= writer.done + 1
            assert len(set(db.get_many([name + b":%d" % n for n in range(3)]))) == 1
        assert db.stats().processes == 1
        report = db.verify()
        assert report.ok, report
    print(f"{DEATHS} deaths; all others had gone on after at most {max(waits) * 1e3:.1f} ms")


def test_equal_numbers_of_processes(tmp_path: Path) -> None:
    """Two processes with the number 1 share a store; each knows that the other lives, or is dead."""
    skip_unless_apart()
    path = tmp_path / "store.kv"
    pykv.open(path).close()

    def count(report: Callable[..., None], times: int) -> None:
        with pykv.open(path, "w") as db:
            report(1)
            for n in range(times):
                db.incr(b"count")
                db[b"%d:%d" % (times, n)] = b"v"
                assert db[b"%d:%d" % (times, n)] == b"v"
            report(2)
            while db.get(b"end") is None:
                time.sleep(0.001)

    counters = [start_apart(count, 2_000), start_apart(count, 2_001)]
    for counter in counters:
        counter.listen_beyond(1)
    with pykv.open(path, "w") as db:
        assert db[b"count"] == b"4001"
        assert len(db) == 4_002
        assert db.stats().processes == 3
        counters[0].kill()
        assert db.stats().processes == 2
        again = start_apart(count, 10)
        again.listen_beyond(1)
        assert db.stats().processes == 4  # it has the store that it inherited, too
        db[b"end"] = b""
        for counter in (counters[1], again):
            counter.join()
        assert db[b"count"] == b"4011"
        assert db.verify().ok
