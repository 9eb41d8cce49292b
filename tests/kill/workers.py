"""
workers.py -- processes to be killed.

A worker reports each operation on a pipe once the store has acknowledged it, so whoever kills it knows
what must be there: the operations up to the last report, and of the next one either all or nothing.
operations.py has what they do.
"""

from __future__ import annotations

import os
import select
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, ClassVar

import pykv

# Operations acknowledged; of the last one, nanoseconds that it took and, in the words of operations.py,
# what cleared the store around it, and the clears that were over before it.
REPORT = struct.Struct("=QQQQ")
SEGMENT_BYTES = 64 << 10


# ---- Processes ----


class Worker:
    """A forked process that runs act(report, ...) and then ends; at the latest with its test."""

    running: ClassVar[set[Worker]] = set()

    def __init__(self, act: Callable[..., None], *arguments: Any) -> None:
        self.done = 0
        self.longest_ns = 0
        self.over = 0
        self.events: dict[int, int] = {}
        self._read, write = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            self.running.clear()  # they are our parent's
            try:
                os.close(self._read)

                def report(count: int, took_ns: int = 0, event: int = 0, over: int = 0) -> None:
                    os.write(write, REPORT.pack(count, took_ns, event, over))

                act(report, *arguments)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        os.close(write)
        self.running.add(self)

    def listen(self, seconds: float) -> None:
        """Take in reports for so long, or until the worker has ended."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._ready(left) and not self._take():
                break

    def listen_beyond(self, done: int, seconds: float = 60) -> None:
        """Take in reports until there are more than *done*; fail if they do not come."""
        end = time.monotonic() + seconds
        while self.done <= done:
            if self._ready(max(0, end - time.monotonic())) and not self._take():
                raise AssertionError(f"the worker ended with status {self._wait()}")
            assert time.monotonic() < end, f"a worker does not go on after operation {self.done}"

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
        for count, took_ns, event, over in REPORT.iter_unpack(data):
            self.done = count
            self.over = over
            if event:
                self.events[count] = event
            self.longest_ns = max(self.longest_ns, took_ns)
        return len(data) != 0

    def _wait(self) -> int:
        self.running.discard(self)
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


def count_shared(db: pykv.Store, worker: int, writes: int) -> int:
    """Write beside others, in a spawned process: the handle came by pickle, and closes with us."""
    with db:
        for n in range(writes):
            db[b"%d:%d" % (worker, n)] = b"v"
            db.incr(b"count")
        return db.incr(b"done")
