"""
What a put costs by what it survives: pykv's three modes beside peers that sync, and a bare loop of
pwrite and fdatasync on a file that has its blocks; and many threads, which share a sync, beside one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engines import VALUE, LmdbDurable, Sqlite

import pykv

PUTS = 100  # in a round, of one thread


def put_many_times(put: Callable[[bytes, bytes], None], number: int = 0) -> None:
    for count in range(PUTS):
        put(b"%08d%08d" % (number, count), VALUE)


@pytest.mark.benchmark(group="put that survives a power cut")
def test_bare_loop(tmp_path: Path, measure: Callable[..., Any]) -> None:
    """What the disk can do: 144 bytes, as a put of 16 and 100 bytes takes, and a sync each."""
    record = bytes(144)
    fd = os.open(tmp_path / "bare", os.O_RDWR | os.O_CREAT, 0o600)
    os.pwrite(fd, bytes(1 << 20), 0)
    os.fsync(fd)

    def run() -> None:
        for number in range(PUTS):
            os.pwrite(fd, record, number * len(record))
            os.fdatasync(fd)

    measure(run, PUTS, rounds=5, warmup_rounds=1)
    os.close(fd)


@pytest.mark.benchmark(group="put that survives a power cut")
@pytest.mark.parametrize("name", ["pykv", "lmdb", "sqlite"])
def test_commit(tmp_path: Path, measure: Callable[..., Any], name: str) -> None:
    """Each put by itself; py-lmdb with its defaults, SQLite with synchronous=FULL."""
    store: Any
    if name == "pykv":
        store = pykv.open(tmp_path / "store.kv", durability="commit")
        put = store.__setitem__
    else:
        store = (LmdbDurable if name == "lmdb" else Sqlite)(tmp_path)
        put = store.put
    if name == "sqlite":
        store.execute("PRAGMA synchronous=FULL")
    measure(lambda: put_many_times(put), PUTS, rounds=5, warmup_rounds=1)
    store.close()


@pytest.mark.benchmark(group="put, by durability")
@pytest.mark.parametrize("durability", ["process", "interval", "commit"])
def test_modes(tmp_path: Path, measure: Callable[..., Any], durability: Any) -> None:
    with pykv.open(tmp_path / "store.kv", durability=durability) as db:
        measure(lambda: put_many_times(db.__setitem__), PUTS, rounds=20, warmup_rounds=1)


@pytest.mark.benchmark(group="put that survives a power cut, of threads at once")
@pytest.mark.parametrize("threads", [1, 4, 16, 64])
def test_threads(tmp_path: Path, benchmark: Any, measure: Callable[..., Any], threads: int) -> None:
    """As many puts of each of so many threads."""

    def run() -> None:
        workers = [
            threading.Thread(target=put_many_times, args=(db.__setitem__, number))
            for number in range(threads)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    with pykv.open(tmp_path / "store.kv", durability="commit") as db:
        before = db.stats()
        measure(run, PUTS * threads, rounds=5, warmup_rounds=1)
        after = db.stats()
        puts = after.version - before.version
        benchmark.extra_info["puts a sync"] = round(puts / (after.syncs - before.syncs), 1)
