"""
workers.py -- processes to be killed, and the work they do until then.

A worker's operations follow from its seed alone. It reports each one on a pipe once the store has
acknowledged it, so whoever kills it knows what must be there: the operations up to the last report,
and of the next one either all or nothing.
"""

from __future__ import annotations

import os
import random
import select
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pykv

REPORT = struct.Struct("=QQ")  # operations acknowledged, nanoseconds that the last one took
SEGMENT_BYTES = 64 << 10

Operation = tuple[Any, ...]
Model = dict[bytes, bytes]


# ---- Processes ----


class Worker:
    """A forked process that runs act(report, ...) and then ends."""

    def __init__(self, act: Callable[..., None], *arguments: Any) -> None:
        self.done = 0
        self.longest_ns = 0
        self._read, write = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.close(self._read)

                def report(count: int, took_ns: int = 0) -> None:
                    os.write(write, REPORT.pack(count, took_ns))

                act(report, *arguments)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        os.close(write)

    def listen(self, seconds: float) -> None:
        """Take in reports for so long, or until the worker has ended."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._ready(left) and not self._take():
                break

    def kill(self) -> None:
        """End it with SIGKILL, now, and take in its last words."""
        os.kill(self.pid, signal.SIGKILL)
        status = self._wait()
        assert status == -signal.SIGKILL or status == 0, f"the worker ended with status {status}"

    def join(self, seconds: float = 60) -> None:
        """Wait for it to end by itself, without a failure."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self._ready(0.1) and not self._take():
                break
        else:
            os.kill(self.pid, signal.SIGKILL)
        status = self._wait()
        assert status == 0, f"the worker ended with status {status}"

    def _ready(self, seconds: float) -> bool:
        poll = select.poll()  # not select(), which takes no descriptor beyond 1023
        poll.register(self._read, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def _take(self) -> bool:
        data = os.read(self._read, 4096 * REPORT.size)
        for count, took_ns in REPORT.iter_unpack(data):
            self.done = count
            self.longest_ns = max(self.longest_ns, took_ns)
        return len(data) != 0

    def _wait(self) -> int:
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        while self._ready(0) and self._take():
            pass  # not up to the end of the pipe, which a child of its own may hold open
        os.close(self._read)
        return status


def count(path: str, times: int) -> int:
    """What a process of multiprocessing does: it must be able to import this."""
    with pykv.open(path, "w") as db:
        for _ in range(times):
            db.incr(b"mp")
    return times


def in_child(act: Callable[[], None], seconds: float = 60) -> None:
    """Run act() in a process of its own; fail if it does."""
    Worker(lambda report: act()).join(seconds)


# ---- Operations ----


def operations(seed: int, prefix: bytes = b"") -> Iterator[Operation]:
    """Yield what a worker does, without end: puts, deletes, batches, counters."""
    choose = random.Random(seed)
    sizes = [0, 5, 100, 100, 100, 900, 3_000]

    def key() -> bytes:
        return prefix + b"key:%d" % choose.randrange(200)

    def value() -> bytes:
        size = choose.choice(sizes)
        if choose.random() < 0.004:
            size = choose.choice([70_000, 200_000, 1_300_000])  # more than a segment, than a map
        return b"%016x" % choose.getrandbits(64) * (size // 16) + b"." * (size % 16)

    while True:
        kind = choose.random()
        if kind < 0.45:
            yield "put", key(), value()
        elif kind < 0.60:
            yield "delete", key()
        elif kind < 0.75:
            # Markers: one batch writes the same token under all keys of a group.
            group, token = choose.randrange(5), b"%016x" % choose.getrandbits(64)
            changes = {prefix + b"mark:%d:%d" % (group, n): token for n in range(6)}
            yield "batch", changes
        elif kind < 0.85:
            mixed: dict[bytes, bytes | None] = {}
            for _ in range(choose.randrange(1, 40)):
                mixed[key()] = None if choose.random() < 0.4 else value()
            yield "batch", mixed
        elif kind < 0.97:
            yield "incr", prefix + b"count:%d" % choose.randrange(3), choose.randrange(-5, 100)
        elif kind < 0.985:
            yield "delete_many", [key() for _ in range(20)]
        elif kind < 0.995:
            yield ("scan",)
        elif kind < 0.999:
            yield ("sync",)
        else:
            yield ("verify",)


def apply(db: pykv.Store, operation: Operation, scans: list[Any]) -> None:
    """Do it to the store. *scans* are left open on the way, as a killed reader leaves them."""
    match operation:
        case "put", key, value:
            db[key] = value
        case "delete", key:
            db.delete(key)
        case "batch", changes:
            with db.batch() as batch:
                for key, value in changes.items():
                    if value is None:
                        batch.delete(key)
                    else:
                        batch[key] = value
        case "incr", key, by:
            db.incr(key, by)
        case "delete_many", keys:
            db.delete_many(keys)
        case ("scan",):
            scan = iter(db.items())
            next(scan, None)
            scans.append(scan)
            del scans[:-2]
        case ("sync",):
            db.sync()
        case ("verify",):
            assert db.verify().ok


def apply_model(model: Model, operation: Operation) -> None:
    """Do the same to a dict."""
    match operation:
        case "put", key, value:
            model[key] = value
        case "delete", key:
            model.pop(key, None)
        case "batch", changes:
            for key, value in changes.items():
                if value is None:
                    model.pop(key, None)
                else:
                    model[key] = value
        case "incr", key, by:
            model[key] = b"%d" % (int(model.get(key, b"0")) + by)
        case "delete_many", keys:
            for key in keys:
                model.pop(key, None)


def work(report: Callable[..., None], path: Any, seed: int, options: dict[str, Any]) -> None:
    """What the only process of a store does until it is killed."""
    scans: list[Any] = []
    with pykv.open(path, "w", segment_bytes=SEGMENT_BYTES, **options) as db:
        for count, operation in enumerate(operations(seed), 1):
            apply(db, operation, scans)
            report(count)


def settle(model: Model, found: Model, seed: int, done: int, prefix: bytes = b"") -> None:
    """
    Bring *model* up to what a killed worker must have left, and hold it against what was found.

    The operation that was under way may be there, wholly, or not.
    """
    work_done = operations(seed, prefix)
    for _ in range(done):
        apply_model(model, next(work_done))
    if model != found:
        last = next(work_done)
        without = dict(model)
        apply_model(model, last)
        assert model == found, explain(without, model, found, last)


def explain(without: Model, model: Model, found: Model, last: Operation) -> str:
    """Say how what was found differs from both states that it may have."""
    lines = [f"neither without nor with the last operation, a {last[0]}:"]
    for name, expected in (("without", without), ("with", model)):
        differing = [
            key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)
        ]
        for key in sorted(differing)[:8]:
            want, got = expected.get(key), found.get(key)
            lines.append(f"  {name}: {key!r} is {got and got[:40]!r}, not {want and want[:40]!r}")
    return "\n".join(lines)


def count_shared(db: pykv.Store, worker: int, writes: int) -> int:
    """Write beside others, in a spawned process: the handle came by pickle, and closes with us."""
    with db:
        for n in range(writes):
            db[b"%d:%d" % (worker, n)] = b"v"
            db.incr(b"count")
        return db.incr(b"done")
