"""Many keys in one call: batches of 10 and of 1,000, and iteration over all."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from engines import ROUNDS, VALUE

batches = pytest.mark.parametrize("count", [10, 1000])


def pieces(keys: list[bytes], count: int) -> list[list[bytes]]:
    """Batches of so many keys, a number of them that *ROUNDS* divides."""
    count = min(count, len(keys) // ROUNDS)
    end = len(keys) // (count * ROUNDS) * count * ROUNDS
    return [keys[at : at + count] for at in range(0, end, count)]


def rounds(of: list[Any]) -> Any:
    """A part of the batches for each round."""
    share = len(of) // ROUNDS
    return iter([of[i * share : (i + 1) * share] for i in range(ROUNDS)])


@batches
def test_put_many(
    engine: Any, keys: list[bytes], benchmark: Any, measure: Callable[..., Any], count: int
) -> None:
    benchmark.group = f"put_many of {count}"
    groups = pieces(keys, count)
    parts = rounds([dict.fromkeys(group, VALUE) for group in groups])

    def run() -> None:
        for group in next(parts):
            engine.put_many(group)

    measure(run, len(groups) // ROUNDS * len(groups[0]))


@batches
def test_get_many(
    filled: Any, shuffled: list[bytes], benchmark: Any, measure: Callable[..., Any], count: int
) -> None:
    """Beside py-lmdb's getmulti, SELECT ... IN, and [d[key] for key in keys] on a dict."""
    benchmark.group = f"get_many of {count}"
    filled.begin_reading()
    groups = pieces(shuffled, count)

    def run() -> Any:
        for group in groups:
            values = filled.get_many(group)
        return values

    assert len(measure(run, len(groups) * len(groups[0]))) == len(groups[-1])


@batches
def test_delete_many(
    filled: Any, shuffled: list[bytes], benchmark: Any, measure: Callable[..., Any], count: int
) -> None:
    benchmark.group = f"delete_many of {count}"
    groups = pieces(shuffled, count)
    parts = rounds(groups)

    def run() -> None:
        for group in next(parts):
            filled.delete_many(group)

    measure(run, len(groups) // ROUNDS * len(groups[0]))
    filled.begin_reading()
    assert filled.get(groups[0][0]) is None


@pytest.mark.benchmark(group="iteration over all pairs")
def test_items(filled: Any, keys: list[bytes], measure: Callable[..., Any]) -> None:
    filled.begin_reading()
    last: deque[Any] = measure(lambda: deque(filled.items(), 1), len(keys))
    assert last[0][1] == VALUE
