"""
space.py -- disk against write throughput: the same overwrites under each bound on the space that
dead records may take (`space_factor`).
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pykv
from pykv._bench.data import read_pairs
from pykv._bench.engines import grouped
from pykv._bench.operations import CHUNK

PERCENTS = (120, 150, 200, 300, 400)
SEGMENTS = 64  # that the live data fills: the bound leaves room for two more
SEGMENT_BYTES_MIN = 64 << 10
TIMES = 3  # how often the data is written anew, at least
TIMES_MAX = 12


def measure(directory: Path, data: str, percent: int, seconds: float) -> dict[str, Any]:
    """
    Overwrite keys at random, for some time, and a few times over.

    Returns:
        Puts a second, with the waiting for compaction; bytes written to disk for each byte put; the
        most that the files had, over the live bytes.
    """
    pairs = read_pairs(Path(data))
    size = sum(map(len, pairs)) + sum(map(len, pairs.values()))
    segment = max(SEGMENT_BYTES_MIN, size // SEGMENTS)
    keys = list(pairs)
    source = random.Random(percent)
    with pykv.open(directory / "store", segment_bytes=segment, space_factor=percent / 100) as db:
        for chunk in grouped(pairs.items(), CHUNK):
            db.put_many(chunk)
        first = db.stats()
        taken, done, most = 0.0, 0, 0.0
        changed: dict[bytes, bytes] = {}
        while done < TIMES * len(keys) or (taken < seconds and done < TIMES_MAX * len(keys)):
            chunk = [(key, pairs[key][::-1]) for key in source.choices(keys, k=CHUNK)]
            begun = time.perf_counter()
            for key, value in chunk:
                db[key] = value
            taken += time.perf_counter() - begun
            changed.update(chunk)
            done += CHUNK
            stats = db.stats()
            most = max(most, stats.log_bytes / stats.live_bytes)
        written = stats.written_bytes - first.written_bytes
        copied = stats.copied_bytes - first.copied_bytes
        wrong = sum(value != changed.get(key, pairs[key]) for key, value in db.items())
        wrong += len(pairs) - len(db)
        disk = db.stats().disk_bytes / db.stats().live_bytes
    return {
        "rate": done / taken,
        "write_amplification": 1 + copied / written,
        "log_to_live": most,
        "disk_to_live": disk,
        "segment_bytes": segment,
        "problems": [f"space_factor {percent / 100}: {wrong:,} keys are wrong"] if wrong else [],
    }
