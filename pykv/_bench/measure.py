"""
measure.py -- time many single operations, and say what the times were.

Each call is timed on its own with perf_counter_ns. The rate is that of the calls alone, without the
loop around them. A percentile is given only where there were enough calls for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Timing:
    """
    What the calls of one operation took.

    Attributes:
        operation: Its name.
        calls: How often it was called.
        things: How many keys were read or written in all.
        total_ns: Nanoseconds of all calls together.
        p50_ns, p99_ns, p999_ns: Percentiles of a call; None: too few calls to tell.
        longest_ns: The longest call; None for one that is not divided into calls.
    """

    operation: str
    calls: int
    things: int
    total_ns: int
    p50_ns: int | None
    p99_ns: int | None
    p999_ns: int | None
    longest_ns: int | None

    @property
    def rate(self) -> float:
        """Keys a second."""
        return self.things / self.total_ns * 1e9 if self.total_ns else 0.0


def time_calls(
    operation: str,
    call: Callable[[Any], object],
    arguments: Iterable[Any],
    *,
    seconds: float,
    things: int = 1,
) -> Timing:
    """
    Call *call* with each of *arguments*, at most until *seconds* have passed.

    Args:
        operation: Its name.
        call: The operation.
        arguments: One of each call.
        seconds: When to stop; at least one call is made.
        things: Keys that a call reads or writes.
    """
    clock = time.perf_counter_ns
    taken: list[int] = []
    end = clock() + int(seconds * 1e9)
    for argument in arguments:
        before = clock()
        call(argument)
        after = clock()
        taken.append(after - before)
        if after > end:
            break
    return timing_of(operation, taken, things * len(taken))


def timing_of(operation: str, taken: list[int], things: int) -> Timing:
    """Return the timing of calls that took so many nanoseconds."""
    ordered = sorted(taken)
    count = len(ordered)

    def percentile(per_mille: int) -> int | None:
        # Where fewer than one call is expected beyond the percentile, it would be the longest.
        if count * (1000 - per_mille) < 1000:
            return None
        return ordered[min(count - 1, count * per_mille // 1000)]

    return Timing(
        operation,
        count,
        things,
        sum(ordered),
        percentile(500),
        percentile(990),
        percentile(999),
        ordered[-1] if ordered else None,
    )


def time_whole(operation: str, run: Callable[[], int]) -> Timing:
    """Time *run* as a whole; it returns the number of keys it read or wrote."""
    before = time.perf_counter_ns()
    things = run()
    return Timing(operation, 1, things, time.perf_counter_ns() - before, None, None, None, None)
