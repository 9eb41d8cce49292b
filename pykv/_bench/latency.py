"""
latency.py -- how long a caller waits who does not slow down when the store does.

An open loop: calls are due at even distances, and each is measured from when it was due, not from
when its turn came. A loop that waits for each answer before it asks again leaves out the calls that
a stall would have kept waiting ("coordinated omission"), and so calls a store fast that stops now
and then. Both times are kept: of the call alone, and since it was due.
"""

from __future__ import annotations

import gc
import random
import time
from array import array
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from hdrh.histogram import HdrHistogram

from pykv._bench.data import read_pairs
from pykv._bench.engines import Shape, engines, grouped
from pykv._bench.operations import CHUNK, FILL

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
LONGEST_NS = 3_600_000_000_000
DIGITS = 3
TICKS = 5  # points of the curve each time that what is left beyond it halves


def open_loop(
    call: Callable[[Any], object], arguments: Iterable[Any], rate: float
) -> tuple[array[int], array[int]]:
    """
    Make a call with each argument, so many a second.

    Returns:
        Nanoseconds since each was due, and of each call alone.
    """
    clock = time.perf_counter_ns
    since_due, alone = array("q"), array("q")
    distance = 1e9 / rate
    begin = clock()
    for number, argument in enumerate(arguments):
        due = begin + int(number * distance)
        while (started := clock()) < due:
            pass  # to sleep would add the time that waking up takes
        call(argument)
        ended = clock()
        since_due.append(ended - due)
        alone.append(ended - started)
    return since_due, alone


def summary(times: Iterable[int]) -> dict[str, Any]:
    """Return percentiles in nanoseconds, and the curve: (share of calls, nanoseconds) pairs."""
    histogram = HdrHistogram(1, LONGEST_NS, DIGITS)
    for each in times:
        histogram.record_value(max(1, each))
    curve = [
        (step.percentile_level_iterated_to / 100, step.value_iterated_to)
        for step in histogram.get_percentile_iterator(TICKS)
    ]
    return {
        "percentiles": {
            name: histogram.get_value_at_percentile(each) for name, each in PERCENTILES.items()
        },
        "curve": curve,
    }


def measure(directory: Path, engine: str, data: str, rate: float, seconds: float) -> dict[str, Any]:
    """
    Measure gets and overwriting puts of an engine in an open loop.

    Args:
        directory: For its store.
        engine: Its name.
        data: File of pairs.
        rate: Calls a second.
        seconds: Of each operation.
    """
    db = engines()[engine](directory, _shape(pairs := read_pairs(Path(data))))
    end = time.monotonic() + FILL * seconds
    keys: list[bytes] = []
    for chunk in grouped(pairs.items(), CHUNK):
        db.put_many(chunk)
        keys += [key for key, _ in chunk]
        if time.monotonic() > end:
            break
    chosen = random.Random(2).choices(keys, k=int(rate * seconds))
    gc.collect()
    gc.freeze()
    put, get = db.put, db.reader()
    wrong = 0

    def check(key: bytes) -> None:
        nonlocal wrong
        wrong += get(key) != pairs[key]

    out: dict[str, Any] = {"keys": len(keys), "operations": {}, "problems": []}
    work: dict[str, tuple[Callable[[Any], object], list[Any]]] = {
        "get": (check, chosen),
        "put": (lambda pair: put(*pair), [(key, pairs[key]) for key in chosen]),
    }
    for name, (call, arguments) in work.items():
        open_loop(call, arguments[: len(arguments) // 20], rate)  # to warm up
        begun = time.perf_counter()
        since_due, alone = open_loop(call, arguments, rate)
        out["operations"][name] = {
            "rate": len(arguments) / (time.perf_counter() - begun),
            "since_due": summary(since_due),
            "alone": summary(alone),
        }
    if wrong:
        out["problems"].append(f"open loop: {wrong:,} answers are wrong")
    db.close()
    return out


def _shape(pairs: dict[bytes, bytes]) -> Shape:
    return Shape(len(pairs), sum(map(len, pairs)) + sum(map(len, pairs.values())))
