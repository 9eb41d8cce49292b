"""
Puts that survive a power cut: beside a bare loop of pwrite and fdatasync on a file that has its
blocks, and many threads, which share a sync, beside one.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

import pykv

VALUE = bytes(range(100))
PUTS = 100  # in a round, of one thread


def note(benchmark: Any, puts: int) -> None:
    """Add the rate, unless --benchmark-disable leaves no times."""
    if benchmark.stats is not None:
        benchmark.extra_info["a_second"] = puts / benchmark.stats.stats.median


@pytest.mark.benchmark(group="durable put", min_rounds=3)
def test_bare_loop(tmp_path: Path, benchmark: Any) -> None:
    """What the disk can do: 144 bytes, as a put of 16 and 100 bytes takes, and a sync each."""
    record = bytes(144)
    fd = os.open(tmp_path / "bare", os.O_RDWR | os.O_CREAT, 0o600)
    os.pwrite(fd, bytes(1 << 20), 0)
    os.fsync(fd)

    def run() -> None:
        for number in range(PUTS):
            os.pwrite(fd, record, number * len(record))
            os.fdatasync(fd)

    benchmark.pedantic(run, rounds=5, warmup_rounds=1)
    os.close(fd)
    note(benchmark, PUTS)


@pytest.mark.benchmark(group="durable put")
@pytest.mark.parametrize("threads", [1, 4, 16, 64])
def test_put(tmp_path: Path, benchmark: Any, threads: int) -> None:
    """As many puts of each of so many threads."""

    def work(number: int) -> None:
        for count in range(PUTS):
            db[b"%08d%08d" % (number, count)] = VALUE

    def run() -> None:
        workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    with pykv.open(tmp_path / "store.kv", durability="commit") as db:
        benchmark.pedantic(run, rounds=5, warmup_rounds=1)
    note(benchmark, PUTS * threads)
