"""
Several processes on one store at once, of which one is killed at a time while the others go on.

Each writes keys of its own, so that what must be in them is known; all write shared counters and
shared markers. Nothing that a dead process acknowledged is lost, no batch is there by half, and the
survivors are not held up.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import workers

import pykv

SEED = 31_415
PROCESSES = 4
COUNTERS = [b"shared:count:%d" % n for n in range(2)]
MARKS = [b"shared:mark:%d" % n for n in range(4)]
EVERY = 5  # each so many operations, a counter and the markers are written too
STALL_SECONDS_MAX = 5.0  # of a loaded machine; what is measured is printed


def work(report: Callable[..., None], path: Path, name: bytes, seed: int, stop: Path) -> None:
    """Write own keys and shared ones until killed or told to stop; report how long each took."""
    scans: list[Any] = []
    options: dict[str, Any] = {"durability": "commit"} if seed % 7 == 0 else {}
    with pykv.open(path, "w", segment_bytes=workers.SEGMENT_BYTES, **options) as db:
        for count, operation in enumerate(workers.operations(seed, name), 1):
            start = time.monotonic_ns()
            workers.apply(db, operation, scans)
            took_ns = time.monotonic_ns() - start
            if count % EVERY == 0:
                db.incr(COUNTERS[count % len(COUNTERS)])
                db.put_many((key, b"%s%d" % (name, count)) for key in MARKS)
                found = list(db.values(prefix=b"shared:mark:"))
                assert len(found) in (0, len(MARKS)), found
                assert len(set(found)) <= 1, f"half a batch of another process: {found}"
            report(count, took_ns if operation[0] in ("put", "delete") and not options else 0)
            if count % 64 == 0 and stop.exists():
                break


def increments(done: int, counter: int) -> int:
    """Return how often a worker that did so many operations has counted."""
    return sum(1 for n in range(EVERY, done + 1, EVERY) if n % len(COUNTERS) == counter)


def test_kill_one_of_four(tmp_path: Path, kills: int) -> None:
    """The others go on, the next one takes the place, and all that was acknowledged is there."""
    path, stop = tmp_path / "store.kv", tmp_path / "stop"
    choose = random.Random(SEED)
    names = [b"%c:" % (ord("a") + n) for n in range(PROCESSES)]
    models: list[workers.Model] = [{} for _ in names]
    running: list[tuple[workers.Worker, int]] = []
    least, most = [0, 0], [0, 0]  # of each counter
    longest_ns = total = 0
    workers.in_child(lambda: pykv.open(path, segment_bytes=workers.SEGMENT_BYTES).close())

    def start(n: int, seed: int) -> tuple[workers.Worker, int]:
        return workers.Worker(work, path, names[n], seed, stop), seed

    def settle(n: int, at_rest: bool) -> None:
        nonlocal total
        worker, seed = running[n]
        total += worker.done
        for counter in range(len(COUNTERS)):
            counted = increments(worker.done, counter)
            least[counter] += counted
            most[counter] += counted
            if not at_rest:  # the one under way
                most[counter] += increments(worker.done + 1, counter) - counted

        def check() -> None:
            with pykv.open(path, "r") as db:
                found = dict(db.items(prefix=names[n]))
                assert found == {key: db[key] for key in found}
            workers.settle(models[n], found, seed, worker.done, names[n])
            (tmp_path / "model").write_bytes(repr(models[n]).encode())

        workers.in_child(check)
        models[n] = eval((tmp_path / "model").read_bytes())

    running = [start(n, SEED + n) for n in range(PROCESSES)]
    for number in range(kills):
        victim = choose.randrange(PROCESSES)
        pause = time.monotonic() + 0.005 + 0.1 * choose.random()
        while time.monotonic() < pause:
            for worker, _ in running:
                worker.listen(0.002)
        running[victim][0].kill()
        for n, (worker, _) in enumerate(running):
            if n != victim:
                worker.listen(0.03)  # those who waited for the dead one's lock
        try:
            settle(victim, at_rest=False)
        except BaseException as error:
            error.add_note(f"kill {number}, acknowledged: {running[victim][0].done}")
            raise
        longest_ns = max([longest_ns, *(worker.longest_ns for worker, _ in running)])
        running[victim] = start(victim, SEED + PROCESSES + number)
    stop.touch()
    for worker, _ in running:
        worker.join()
        longest_ns = max(longest_ns, worker.longest_ns)
    for n in range(PROCESSES):
        settle(n, at_rest=True)

    def check() -> None:
        with pykv.open(path, "w") as db:
            for counter, key in enumerate(COUNTERS):
                value = int(db.get(key, b"0"))
                assert least[counter] <= value <= most[counter], (least, value, most)
            report = db.verify()
            assert report.ok, report
            assert len(db) == len(dict(db.items()))
            assert db.stats().processes == 1

    workers.in_child(check)
    assert longest_ns < STALL_SECONDS_MAX * 1e9
    print(
        f"{kills} kills, {total} operations, longest put or delete of a survivor {longest_ns / 1e6:.1f} ms"
    )


def hold(report: Callable[..., None], path: Path) -> None:
    """Open the store, begin an iteration, and wait to be killed."""
    db = pykv.open(path, "w")
    scan = iter(db.items())
    next(scan)
    report(1)
    time.sleep(30)
    del scan


def test_a_dead_process_leaves_its_place(tmp_path: Path) -> None:
    """Processes that were killed count no longer, and others take their slots: more than there are."""
    path = tmp_path / "store.kv"
    with pykv.open(path) as db:
        db[b"k"] = b"v"

    def check() -> None:
        with pykv.open(path, "w") as db:
            for number in range(20):
                held = [workers.Worker(hold, path) for _ in range(3)]
                for worker in held:
                    while not worker.done:
                        worker.listen(0.05)
                assert db.stats().processes == 7  # they have the store they inherited, too
                for worker in held:
                    worker.kill()
                assert db.stats().processes == 1
                db[b"k"] = b"%d" % number
                with pykv.open(path, "w") as again:
                    assert again[b"k"] == b"%d" % number
                    again[b"k"] = b"v"

    workers.in_child(check)


@pytest.mark.parametrize("how", ["killed", "closed"])
def test_iterations_that_nobody_finished_are_forgotten(tmp_path: Path, how: str) -> None:
    """Deleted keys do not pile up in the keydir because of an iteration whose process is gone."""
    path = tmp_path / "store.kv"
    with pykv.open(path) as db:
        db.put_many((b"%d" % n, b"v") for n in range(1_000))

    def leave(report: Callable[..., None]) -> None:
        with pykv.open(path, "w") as db:
            scan = iter(db.items())
            next(scan)
            report(1)
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(4)  # the store is closed, the process goes on
        del scan

    def check() -> None:
        with pykv.open(path, "w") as db:
            worker = workers.Worker(leave)
            while not worker.done:
                worker.listen(0.05)
            if how == "killed":
                worker.kill()
            before = db.stats().keydir_bytes
            time.sleep(1.5)  # the helper looks once a second
            for n in range(60):
                keys = [b"%d:%d" % (n, m) for m in range(1_000)]
                db.put_many((key, b"") for key in keys)
                db.delete_many(keys)
            assert db.stats().keydir_bytes <= before + 131_072

    workers.in_child(check)
