"""
tradeoff.py -- bytes of RAM a pair against the time of a get: the same data as values in Python, in
mapped files, or on disk with nothing but the keydir in memory.

Keys are read at random, each as likely as the other, which no cache can guess: what an
`functools.lru_cache` keeps is what it saves. "cold" is with the log out of the page cache, and so
few reads that it stays so.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pykv
from pykv._bench.data import read_pairs
from pykv._bench.latency import summary
from pykv._bench.machine import memory_of_process
from pykv._bench.pagecache import READS_SHARE, evict, read_at_random, read_through, resident_bytes

# name -> io, whether the log is in the page cache, percent of the pairs in an lru_cache before it
CHOICES: dict[str, tuple[str, bool, int]] = {
    "keydir only: pread, cold": ("pread", False, 0),
    "lru_cache of 10 %, cold": ("pread", False, 10),
    "lru_cache of 50 %, cold": ("pread", False, 50),
    "lru_cache of 90 %, cold": ("pread", False, 90),
    "mapped, cold": ("mmap", False, 0),
    "mapped, warm": ("mmap", True, 0),
    "pread, warm": ("pread", True, 0),
    "dict": ("", True, 0),
}


def measure(directory: Path, data: str, choice: str, seconds: float) -> dict[str, Any]:
    """
    Read keys at random, and tell what that takes in RAM.

    Args:
        directory: Holds `store`, with the pairs in it, and open nowhere.
        data: File of these pairs.
        choice: One of CHOICES.
        seconds: How long to read.
    """
    store = directory / "store"
    pairs = read_pairs(Path(data))
    keys = list(pairs)
    io, warm, percent = CHOICES[choice]
    evict(store)
    gc.collect()
    before = memory_of_process()
    get: Callable[[bytes], bytes | None]
    if not io:
        table = {_copy(key): _copy(value) for key, value in pairs.items()}
        get, mapped = table.get, 0
        times, wrong = read_at_random(get, pairs, keys, seconds, None)
    else:
        with pykv.open(store, "r", io=io) as db:  # type: ignore[arg-type]
            get = db.get
            if percent:
                get = functools.lru_cache(maxsize=len(pairs) * percent // 100)(db.get)
                for key in keys:  # of which it keeps the last
                    get(_copy(key))
                evict(store)
            if warm:
                read_through(store)
            mapped = db.stats().keydir_bytes + resident_bytes(store)
            calls_max = None if warm else len(pairs) // READS_SHARE
            times, wrong = read_at_random(get, pairs, keys, seconds, calls_max)
    after = memory_of_process()
    private = after.private - before.private if before and after else None
    return {
        "ram_bytes": None if private is None else max(0, private) + mapped,
        "keys": len(pairs),
        "mean_ns": sum(times) / len(times),
        "latency": summary(times)["percentiles"],
        "problems": [f"{choice}: {wrong:,} answers are wrong"] if wrong else [],
    }


def _copy(data: bytes) -> bytes:
    """Return the same bytes in memory of their own."""
    return bytes(bytearray(data))
