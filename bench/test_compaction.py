"""
What reclaiming space costs while it goes on: the rate of overwrites at several bounds beside that of a
fresh fill, and how long single puts and gets take beside compaction and checkpoints.

Segments are those that the log has by default, a sixteenth of it and 4 MiB at least, or of all the live bytes,
as large as the bound is wide then.
"""

from __future__ import annotations

import random
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engines import ROUNDS, VALUE

import pykv

RECORD_SIZE = 144  # of a key of 16 bytes and a value of 100
PASSES = 4  # over all keys, until the log is at its bound
SEGMENTS = (4 << 20, 128 << 20)  # what they have by default, in bytes


def put_all(db: pykv.Store, keys: list[bytes]) -> float:
    """Puts a second."""
    start = time.perf_counter()
    for key in keys:
        db[key] = VALUE
    return len(keys) / (time.perf_counter() - start)


def segment_bytes(keys: list[bytes], part: int = 1) -> int:
    return min(max(len(keys) * RECORD_SIZE // part, 64 << 10), 128 << 20)


@pytest.mark.benchmark(group="single puts")
def test_fresh_fill(tmp_path: Path, keys: list[bytes], measure: Callable[..., Any]) -> None:
    paths = (tmp_path / f"{number}" for number in range(ROUNDS))

    def prepare() -> tuple[tuple[Path], dict[str, Any]]:
        return (next(paths),), {}

    def run(path: Path) -> None:
        with pykv.open(path) as db:
            put_all(db, keys)

    measure(run, len(keys), setup=prepare)


@pytest.mark.benchmark(group="single puts")
@pytest.mark.parametrize("segments", ["default", "all live bytes"])
@pytest.mark.parametrize("space_factor", [1.2, 1.5, 2.0])
def test_overwrites(
    tmp_path: Path,
    keys: list[bytes],
    benchmark: Any,
    measure: Callable[..., Any],
    space_factor: float,
    segments: str,
) -> None:
    """Uniform, in random order, at the bound; a round is as many as there are keys."""
    source = random.Random(7)
    shares, spaces = [], []
    own = None if segments == "default" else segment_bytes(keys)
    with pykv.open(tmp_path / "db", segment_bytes=own, space_factor=space_factor) as db:
        fresh = put_all(db, keys)
        for _ in range(PASSES):
            put_all(db, source.choices(keys, k=len(keys)))

        def prepare() -> tuple[tuple[pykv.Store, list[bytes]], dict[str, Any]]:
            stats = db.stats()
            size = own or min(max(stats.log_bytes / 16, SEGMENTS[0]), SEGMENTS[1])
            shares.append(stats.disk_bytes / (space_factor * stats.live_bytes + 2 * size))
            spaces.append(stats.disk_bytes / stats.live_bytes)
            return (db, source.choices(keys, k=len(keys))), {}

        measure(put_all, len(keys), setup=prepare)
        if benchmark.stats is not None:
            steady = len(keys) / benchmark.stats.stats.median
            benchmark.extra_info["to the fill of this store"] = steady / fresh
        benchmark.extra_info["disk to its bound, most"] = max(shares)
        benchmark.extra_info["disk to the live bytes, most"] = max(spaces)
        benchmark.extra_info["write amplification"] = db.stats().write_amplification


def timed(db: pykv.Store, keys: list[bytes]) -> tuple[array[int], array[int]]:
    """Nanoseconds of a put and a get of each key, in turn."""
    puts, gets, clock, get = array("Q"), array("Q"), time.perf_counter_ns, db.get
    for key, other in zip(keys, reversed(keys), strict=True):
        start = clock()
        db[key] = VALUE
        middle = clock()
        get(other)
        gets.append(clock() - middle)
        puts.append(middle - start)
    return puts, gets


def p999(times: array[int]) -> float:
    return sorted(times)[len(times) * 999 // 1000] / 1000


@pytest.mark.benchmark(group="put and get beside compaction and checkpoints")
def test_latency(
    tmp_path: Path, keys: list[bytes], benchmark: Any, measure: Callable[..., Any]
) -> None:
    """
    The same loop twice: first nothing is compacted, and the log is too short for a checkpoint; then
    both go on. "checkpoint newer" and "compacted, MiB" tell whether they did.
    """
    source = random.Random(8)
    order = source.choices(keys, k=len(keys))
    with pykv.open(tmp_path / "quiet", segment_bytes=1 << 30) as db:
        db.pause_compaction()
        put_all(db, keys)
        quiet = timed(db, order)
        assert db.stats().checkpoint_version == 0, "choose fewer --keys: a checkpoint was made"
    with pykv.open(tmp_path / "db", segment_bytes=segment_bytes(keys)) as db:
        for _ in range(PASSES):
            put_all(db, source.choices(keys, k=len(keys)))
        before = db.stats()
        busy = measure(lambda: timed(db, order), 2 * len(keys), rounds=1)
        after = db.stats()
    benchmark.extra_info["compacted, MiB"] = (after.copied_bytes - before.copied_bytes) >> 20
    benchmark.extra_info["checkpoint newer"] = after.checkpoint_version > before.checkpoint_version
    for what, alone, beside in zip(("put", "get"), quiet, busy, strict=True):
        benchmark.extra_info[f"{what} p99.9 alone, us"] = p999(alone)
        benchmark.extra_info[f"{what} p99.9 beside, us"] = p999(beside)
        benchmark.extra_info[f"{what}, ratio"] = p999(beside) / p999(alone)
        benchmark.extra_info[f"{what}, longest alone, ms"] = max(alone) / 1e6
        benchmark.extra_info[f"{what}, longest beside, ms"] = max(beside) / 1e6


@pytest.mark.benchmark(group="all dead space given back")
@pytest.mark.parametrize("dead", [0.5, 1.0])
def test_compact(
    tmp_path: Path, keys: list[bytes], benchmark: Any, measure: Callable[..., Any], dead: float
) -> None:
    """`compact()`, when so much of each segment is dead."""

    def prepare() -> tuple[tuple[pykv.Store], dict[str, Any]]:
        db.pause_compaction()
        put_all(db, keys)
        db.delete_many(keys[:: round(1 / dead)])
        benchmark.extra_info["live, MiB"] = db.stats().live_bytes / (1 << 20)
        return (db,), {}

    with pykv.open(tmp_path / "db", segment_bytes=segment_bytes(keys, 16)) as db:
        measure(pykv.Store.compact, setup=prepare)
        benchmark.extra_info["left, MiB"] = db.stats().log_bytes / (1 << 20)
