"""
A store that is open when its process forks goes on in both, parent and child.

Nothing that either acknowledged is lost, neither hangs, and the end of one is not the end of the
other: whether the parent dies, the child dies, or another thread was inside a call at the fork.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import workers

import pykv

# CPython 3.12 and later warn of fork() beside other threads; here it is the point.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


@pytest.fixture
def db(tmp_path: Path) -> Iterator[pykv.Store]:
    """A store with a key in it, open before any fork."""
    with pykv.open(tmp_path / "store.kv", segment_bytes=workers.SEGMENT_BYTES) as store:
        store[b"before"] = b"fork"
        yield store


def fork(act: Callable[[], None]) -> workers.Worker:
    """Run act() in a child."""
    return workers.Worker(lambda report: act())


def test_both_write(db: pykv.Store) -> None:
    """Parent and child use the handle that was open at the fork, and see each other's writes."""

    def child() -> None:
        assert db[b"before"] == b"fork"
        for n in range(3_000):
            db[b"child:%d" % n] = b"x" * 50
            db.incr(b"count")

    worker = fork(child)
    for n in range(3_000):
        db[b"parent:%d" % n] = b"x" * 50
        db.incr(b"count")
    worker.join()
    assert db[b"count"] == b"6000"
    assert len(list(db.keys(prefix=b"child:"))) == 3_000
    assert len(list(db.keys(prefix=b"parent:"))) == 3_000
    assert db.verify().ok


def test_each_counts_as_a_process(db: pykv.Store) -> None:
    """The child has a place of its own, which it gives up at its end."""

    def child() -> None:
        assert db.stats().processes == 2

    fork(child).join()
    assert db.stats().processes == 1


def test_the_child_ends(db: pykv.Store) -> None:
    """A child that closes the store, or just ends, closes nothing of the parent's."""
    fork(db.close).join()
    fork(lambda: None).join()
    db[b"after"] = b"1"
    with pykv.open(db.path, "w") as other:
        assert other[b"after"] == b"1"
        assert other.stats().processes == 2


def test_the_parent_dies(tmp_path: Path) -> None:
    """A parent that is killed is seen to be dead, though its child lives on with the store open."""
    path = tmp_path / "store.kv"
    outcome = tmp_path / "outcome"

    def grandchild(db: pykv.Store, parent: int) -> None:
        while os.getppid() == parent:
            time.sleep(0.001)
        for n in range(1_000):
            db[b"grandchild:%d" % n] = b"v"
        # A thread of the parent may still be in a system call, and lets go of the files when it ends.
        while db.stats().processes != 1:
            time.sleep(0.001)
        outcome.write_text("alone")

    def parent(report: Callable[..., None]) -> None:
        db = pykv.open(path, segment_bytes=workers.SEGMENT_BYTES)
        if (pid := os.getpid()) and os.fork() == 0:
            try:
                grandchild(db, pid)
            finally:
                os._exit(0)

        def write(name: bytes) -> None:
            for n in range(1_000_000_000):
                db[name + b"%d" % (n % 500)] = b"x" * 100

        for n in range(2):
            threading.Thread(target=write, args=(b"%d:" % n,), daemon=True).start()
        report(1)
        signal.pause()

    for _ in range(5):
        outcome.unlink(missing_ok=True)
        worker = workers.Worker(parent)
        worker.listen_beyond(0)
        time.sleep(0.02)
        worker.kill()
        end = time.monotonic() + 10
        while not outcome.exists() or not outcome.read_text():
            assert time.monotonic() < end, "the grandchild hangs"
            time.sleep(0.01)
        assert outcome.read_text() == "alone"
    with pykv.open(path) as db:
        assert db.verify().ok
        assert len(list(db.keys(prefix=b"grandchild:"))) == 1_000


def test_the_parent_closes_first(tmp_path: Path) -> None:
    """The store stays in use by the child; one who opens it meanwhile joins it."""
    path = tmp_path / "store.kv"
    db = pykv.open(path)
    go = tmp_path / "go"

    def child() -> None:
        while not go.exists():
            time.sleep(0.001)
        db[b"child"] = b"1"
        assert db.stats().processes == 2
        db.close()

    worker = fork(child)
    db.close()
    with pykv.open(path, "n") as other:
        go.touch()
        worker.join()
        assert other[b"child"] == b"1"
        assert other.verify().ok


def test_another_takes_the_place_of_a_dead_parent(tmp_path: Path) -> None:
    """While a child of a killed parent goes on, others open and close the store."""
    path, stop = tmp_path / "store.kv", tmp_path / "stop"

    def parent(report: Callable[..., None]) -> None:
        db = pykv.open(path)
        if os.fork() == 0:
            try:
                while not stop.exists():
                    db.incr(b"n")
            finally:
                os._exit(0)
        report(1)
        signal.pause()

    worker = workers.Worker(parent)
    worker.listen_beyond(0)
    worker.kill()
    try:
        for number in range(10):
            with pykv.open(path, "w") as db, pykv.open(path, "w") as other:
                db[b"k"] = b"%d" % number
                assert other[b"k"] == b"%d" % number
                assert db.stats().processes == 3
    finally:
        stop.touch()
    with pykv.open(path, "w") as db:
        end = time.monotonic() + 10
        while db.stats().processes > 1 and time.monotonic() < end:
            time.sleep(0.01)
        assert db.stats().processes == 1
        assert db.verify().ok


@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_fork_beside_busy_threads(tmp_path: Path, kills: int, io: Any) -> None:
    """Whatever other threads of the parent are doing at the fork, the child reads and writes."""
    path = tmp_path / "store.kv"
    stop = threading.Event()
    choose = random.Random(1)
    with pykv.open(path, io=io, segment_bytes=workers.SEGMENT_BYTES) as db:

        def write(name: bytes) -> None:
            n = 0
            while not stop.is_set():
                db[name + b"%d" % (n % 300)] = b"x" * 200
                n += 1
                if n % 50 == 0:
                    db.put_many((name + b"b%d" % m, b"%d" % n) for m in range(20))

        def read() -> None:
            while not stop.is_set():
                for _ in db.items():
                    pass
                db.get_many([b"0:%d" % n for n in range(300)])

        def reopen() -> None:
            while not stop.is_set():
                pykv.open(path, "w").close()

        acts: list[tuple[Callable[..., None], tuple[bytes, ...]]] = [
            (write, (b"0:",)), (write, (b"1:",)), (read, ()), (reopen, ())
        ]  # fmt: skip
        threads = [threading.Thread(target=act, args=arguments) for act, arguments in acts]
        for thread in threads:
            thread.start()
        try:
            for number in range(kills):

                def child(number: int = number) -> None:
                    for n in range(40):
                        db[b"child:%d:%d" % (number, n)] = b"x" * 300
                    assert len(db.get_many([b"0:%d" % n for n in range(300)])) == 300
                    db.sync()
                    for _ in db.items(prefix=b"child:"):
                        pass
                    if number % 3 == 0:
                        db.close()

                worker = fork(child)
                if number % 4 == 3:
                    worker.listen(0.005 * choose.random())
                    worker.kill()
                else:
                    worker.join(20)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        for number in range(kills):
            if number % 4 != 3:
                assert len(list(db.keys(prefix=b"child:%d:" % number))) == 40
        report = db.verify()
        assert report.ok, report
        assert len(db) == len(dict(db.items()))


def test_an_iteration_goes_on_in_both(db: pykv.Store) -> None:
    """Parent and child each finish what one had begun before the fork, as of the same instant."""
    keys = {b"%d" % n for n in range(3_000)}
    db.put_many((key, b"v") for key in keys)
    scan = iter(db.keys())
    first = next(scan)

    def child() -> None:
        assert {first, *scan} == {b"before", *keys}
        db.delete_many(keys)

    fork(child).join()
    db[b"late"] = b""
    assert {first, *scan} == {b"before", *keys}
    assert set(db) == {b"before", b"late"}

    # Ended here, unfinished there: what the child still looks at stays.
    db.put_many((key, b"v") for key in keys)
    scan = iter(db.keys())
    first = next(scan)
    ready, go = os.pipe(), os.pipe()

    def slow_child() -> None:
        os.write(ready[1], b".")
        os.read(go[0], 1)
        assert len([first, *scan]) == 3_002

    worker = fork(slow_child)
    os.read(ready[0], 1)
    del scan
    db.delete_many(keys)
    db.put_many((key, b"w") for key in keys)
    os.write(go[1], b".")
    worker.join()
    for end in (*ready, *go):
        os.close(end)


# A child waits in fork() before its stores know of it, until it is told to go on.
CLOSED_BEFORE_THE_CHILD_HOLDS_IT = """
import ctypes, os, signal, sys
libc = ctypes.CDLL(None)
signal.signal(signal.SIGUSR1, lambda *_: None)
libc.__register_atfork(None, None, ctypes.cast(libc.pause, ctypes.c_void_p), None)
import pykv
pairs = {b"%d" % n: b"x" * 200 for n in range(2_000)}
with pykv.open(sys.argv[1], segment_bytes=65_536) as db:
    db.put_many(pairs)
    snapshot = db.snapshot()
    assert dict(snapshot) == pairs
    child = os.fork()
    if child == 0:
        lost = 0
        for call in (
            lambda: snapshot[b"7"], lambda: snapshot.get_many([b"7"]), lambda: list(snapshot)
        ):
            try:
                call()
            except pykv.SnapshotLostError:
                lost += 1
        os._exit(lost)
    db.put_many((key, b"y" * 200) for key in pairs)
    snapshot.close()
    db.compact()
    os.kill(child, signal.SIGUSR1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs to come first in a fork")
def test_the_parent_closes_a_snapshot_before_the_child_holds_it(tmp_path: Path) -> None:
    """The child is told that the snapshot is lost, and not that the store is damaged."""
    script = CLOSED_BEFORE_THE_CHILD_HOLDS_IT
    subprocess.run([sys.executable, "-c", script, tmp_path / "s"], check=True, timeout=60)


def test_a_view_stays(db: pykv.Store) -> None:
    """A view that was taken before the fork reads the same in both."""
    db[b"k"] = b"view" * 1_000
    view = db.view(b"k")

    def child() -> None:
        db[b"k"] = b""
        db.close()
        assert view == b"view" * 1_000

    fork(child).join()
    assert view == b"view" * 1_000
    view.release()


@pytest.mark.parametrize("reads", [False, True])
def test_a_child_that_does_not_write_holds_nothing(tmp_path: Path, reads: bool) -> None:
    """What the parent's compaction removes goes, whether the child reads now and then or not at all."""
    keys = [b"%d" % n for n in range(2_000)]
    with pykv.open(tmp_path / "store.kv", segment_bytes=workers.SEGMENT_BYTES) as db:
        db.put_many((key, b"x" * 200) for key in keys)
        assert all(db[key] for key in keys)
        told = os.pipe()

        def child() -> None:
            if reads:
                assert all(db[key] for key in keys)
            os.write(told[1], b".")
            signal.pause()

        worker = fork(child)
        os.read(told[0], 1)
        db.put_many((key, b"y" * 200) for key in keys)
        db.compact()
        end = time.monotonic() + 10
        while held := removed_segments(worker.pid):
            assert time.monotonic() < end, held
            time.sleep(0.01)
        worker.kill()
        for end_of_pipe in told:
            os.close(end_of_pipe)


@pytest.mark.skipif(os.getuid() != 0, reason="needs to become another user")
def test_a_child_of_who_may_not_write_reads_what_was_removed(tmp_path: Path) -> None:
    """A reader with a keydir of its own, and its child, see the store as it was when it was opened."""
    path, pairs = tmp_path / "store.kv", {b"%d" % n: b"x" * 200 for n in range(2_000)}
    with pykv.open(path, mode=0o644, segment_bytes=workers.SEGMENT_BYTES) as db:
        db.put_many(pairs)
    (path / "keydir").unlink()
    for parent in path.parents:
        if parent.stat().st_uid == os.getuid() and not parent.stat().st_mode & 0o005:
            parent.chmod(parent.stat().st_mode | 0o055)
    told, go = os.pipe(), os.pipe()

    def reader() -> None:
        os.setgroups([])
        os.setgid(65_534)
        os.setuid(65_534)
        with pykv.open(path, "r") as db:
            os.write(told[1], b".")
            os.read(go[0], 1)
            fork(lambda: check(db)).join()
            check(db)

    def check(db: pykv.Store) -> None:
        assert dict(db.items()) == pairs

    worker = fork(reader)
    os.read(told[0], 1)
    with pykv.open(path, segment_bytes=workers.SEGMENT_BYTES) as db:
        db.put_many((key, b"y" * 200) for key in pairs)
        db.compact()
        os.write(go[1], b".")
        worker.join()
    for end in (*told, *go):
        os.close(end)


def removed_segments(pid: int) -> list[str]:
    """What a process has mapped or open of segments that are no more."""
    proc = Path("/proc") / str(pid)
    names = [line.split(maxsplit=5)[-1] for line in (proc / "maps").read_text().splitlines()]
    names += [str(path.readlink()) for path in (proc / "fd").iterdir()]
    return [name for name in names if re.search(r"/segment-\d+ \(deleted\)$", name)]


def test_the_helper_starts_again(tmp_path: Path) -> None:
    """In a child too the interval's sync happens without any call for it."""
    with pykv.open(tmp_path / "store.kv", durability="interval", interval_ms=20) as db:

        def child() -> None:
            db[b"k"] = b"v"
            end = time.monotonic() + 10
            while db.stats().unsynced_bytes and time.monotonic() < end:
                time.sleep(0.01)
            assert db.stats().unsynced_bytes == 0

        fork(child).join()


def test_fork_of_a_fork(db: pykv.Store) -> None:
    """And so on, ten generations deep."""

    def generation(n: int) -> None:
        db[b"generation:%d" % n] = b"%d" % db.stats().processes
        if n < 10:
            fork(lambda: generation(n + 1)).join()

    fork(lambda: generation(1)).join()
    assert dict(db.items(prefix=b"generation:")) == {
        b"generation:%d" % n: b"%d" % (n + 1) for n in range(1, 11)
    }


def test_a_closed_store_stays_closed(tmp_path: Path) -> None:
    """A child of a process that has closed its store finds it closed."""
    db = pykv.open(tmp_path / "store.kv")
    db.close()

    def child() -> None:
        with pytest.raises(pykv.ClosedError):
            db[b"k"] = b"v"

    fork(child).join()


def test_without_a_lock_file(db: pykv.Store) -> None:
    """If the child cannot take a place of its own the store is closed in it, and only in it."""
    (Path(db.path) / "lock").rename(Path(db.path).parent / "lock")

    def child() -> None:
        with pytest.raises(pykv.ClosedError):
            db[b"k"] = b"v"
        db.close()

    fork(child).join()
    (Path(db.path).parent / "lock").rename(Path(db.path) / "lock")
    db[b"k"] = b"v"
    fork(lambda: db.incr(b"n")).join()
    assert db[b"n"] == b"1"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(db: pykv.Store, method: str) -> None:
    """Pools of each kind count in a store that is open in the parent."""
    with multiprocessing.get_context(method).Pool(3) as pool:
        assert sum(pool.starmap(workers.count, [(db.path, 200)] * 6)) == 1_200
        pool.close()
        pool.join()
    assert db[b"mp"] == b"1200"
    assert db.stats().processes == 1
