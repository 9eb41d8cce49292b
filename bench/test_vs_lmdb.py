"""
Each operation of pykv beside py-lmdb and a dict: `pytest bench/test_vs_lmdb.py --keys 1000000`.

Keys of 16 bytes, values of 100. A round is one pass over many keys, in random order, in a loop in
Python; the time of a round divided by its keys is in extra_info as ns_a_key.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

ROUNDS = 3
VALUE = bytes(range(100))
OTHER = bytes(range(100, 200))


@pytest.fixture
def shuffled(keys: list[bytes]) -> list[bytes]:
    order = keys[:]
    random.Random(2).shuffle(order)
    return order


def passes(benchmark: Any, run: Callable[[], object], keys: list[bytes]) -> Any:
    """Benchmark passes over *keys*."""
    result = benchmark.pedantic(run, rounds=ROUNDS, warmup_rounds=0)
    if benchmark.stats is not None:  # as --benchmark-disable leaves it
        benchmark.extra_info["ns_a_key"] = benchmark.stats.stats.median / len(keys) * 1e9
    return result


def put_all(engine: Any, keys: list[bytes], value: bytes) -> None:
    put = engine.put
    for key in keys:
        put(key, value)


@pytest.mark.benchmark(group="put")
def test_put(engine: Any, keys: list[bytes], benchmark: Any) -> None:
    """A pass puts a quarter of the keys: others each time, which were not there yet."""
    share = len(keys) // (ROUNDS + 1)
    parts = iter([keys[i * share : (i + 1) * share] for i in range(ROUNDS + 1)])
    passes(benchmark, lambda: put_all(engine, next(parts), VALUE), keys[:share])


@pytest.mark.benchmark(group="put_many of 1000")
def test_put_many(engine: Any, keys: list[bytes], benchmark: Any) -> None:
    share = len(keys) // (ROUNDS + 1)
    pieces = [
        dict.fromkeys(keys[start : start + 1000], VALUE)
        for start in range(0, share * (ROUNDS + 1) - 999, 1000)
    ]
    count = len(pieces) // (ROUNDS + 1)
    parts = iter([pieces[i * count : (i + 1) * count] for i in range(ROUNDS + 1)])

    def run() -> None:
        for piece in next(parts):
            engine.put_many(piece)

    passes(benchmark, run, keys[: count * 1000])


@pytest.mark.benchmark(group="overwrite, random order")
def test_overwrite(filled: Any, shuffled: list[bytes], benchmark: Any) -> None:
    passes(benchmark, lambda: put_all(filled, shuffled, OTHER), shuffled)


@pytest.mark.benchmark(group="get, present")
def test_get(filled: Any, shuffled: list[bytes], benchmark: Any) -> None:
    filled.begin_reading()
    get = filled.get

    def run() -> object:
        for key in shuffled:
            value = get(key)
        return value

    assert passes(benchmark, run, shuffled) == VALUE


@pytest.mark.benchmark(group="get, absent")
def test_get_absent(filled: Any, shuffled: list[bytes], benchmark: Any) -> None:
    filled.begin_reading()
    get, absent = filled.get, [key[:15] + b"?" for key in shuffled if key[15] != 63]

    def run() -> object:
        for key in absent:
            value = get(key)
        return value

    assert passes(benchmark, run, absent) is None


@pytest.mark.benchmark(group="get_many of 100")
def test_get_many(filled: Any, shuffled: list[bytes], benchmark: Any) -> None:
    """Beside py-lmdb's getmulti, and beside [d[key] for key in keys] on a dict."""
    filled.begin_reading()
    groups = [shuffled[start : start + 100] for start in range(0, len(shuffled), 100)]

    def run() -> Any:
        for group in groups:
            values = filled.get_many(group)
        return values

    assert len(passes(benchmark, run, shuffled)) == len(groups[-1])


@pytest.mark.benchmark(group="items")
def test_items(filled: Any, keys: list[bytes], benchmark: Any) -> None:
    filled.begin_reading()
    assert passes(benchmark, filled.items, keys) == len(keys)
