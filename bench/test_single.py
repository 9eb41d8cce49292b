"""
One operation at a time, in a loop in Python: a round is a pass over many keys in random order.

Keys of 16 bytes, values of 100. A dict is the floor: it shows what the loop alone costs.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from engines import ROUNDS, VALUE

OTHER = bytes(range(100, 200))


def put_all(store: Any, keys: list[bytes], value: bytes) -> None:
    put = store.put
    for key in keys:
        put(key, value)


def get_all(store: Any, keys: list[bytes]) -> Any:
    get = store.get
    for key in keys:
        value = get(key)
    return value


def delete_all(store: Any, keys: list[bytes]) -> None:
    delete = store.delete
    for key in keys:
        delete(key)


@pytest.mark.benchmark(group="put")
def test_put(engine: Any, keys: list[bytes], measure: Callable[..., Any]) -> None:
    """A round puts a third of the keys: others each time, which were not there yet."""
    share = len(keys) // ROUNDS
    parts = iter([keys[i * share : (i + 1) * share] for i in range(ROUNDS)])
    measure(lambda: put_all(engine, next(parts), VALUE), share)


@pytest.mark.benchmark(group="overwrite")
def test_overwrite(filled: Any, shuffled: list[bytes], measure: Callable[..., Any]) -> None:
    measure(lambda: put_all(filled, shuffled, OTHER), len(shuffled))


@pytest.mark.benchmark(group="get, present")
def test_get(filled: Any, shuffled: list[bytes], measure: Callable[..., Any]) -> None:
    filled.begin_reading()
    assert measure(lambda: get_all(filled, shuffled), len(shuffled)) == VALUE


@pytest.mark.benchmark(group="get, absent")
def test_get_absent(filled: Any, shuffled: list[bytes], measure: Callable[..., Any]) -> None:
    filled.begin_reading()
    absent = [key[:15] + b"?" for key in shuffled if key[15] != 63]
    assert measure(lambda: get_all(filled, absent), len(absent)) is None


@pytest.mark.benchmark(group="delete, present")
def test_delete(filled: Any, shuffled: list[bytes], measure: Callable[..., Any]) -> None:
    share = len(shuffled) // ROUNDS
    parts = iter([shuffled[i * share : (i + 1) * share] for i in range(ROUNDS)])
    measure(lambda: delete_all(filled, next(parts)), share)
    filled.begin_reading()
    assert filled.get(shuffled[0]) is None


@pytest.mark.benchmark(group="delete, absent")
def test_delete_absent(filled: Any, shuffled: list[bytes], measure: Callable[..., Any]) -> None:
    absent = [key[:15] + b"?" for key in shuffled if key[15] != 63]
    measure(lambda: delete_all(filled, absent), len(absent))


@pytest.mark.benchmark
@pytest.mark.parametrize("size", [0, 100, 1_000, 10_000, 100_000, 1 << 20])
@pytest.mark.parametrize("what", ["put", "get"])
def test_values(
    engine: Any,
    keys: list[bytes],
    benchmark: Any,
    measure: Callable[..., Any],
    what: str,
    size: int,
) -> None:
    """Values of several sizes: of the long ones fewer, 64 MiB at most."""
    benchmark.group = f"{what}, value of {size:,} bytes"
    value = random.Random(3).randbytes(size)
    some = keys[: min(len(keys), (64 << 20) // max(size, 1))]
    if what == "put":
        measure(lambda: put_all(engine, some, value), len(some))
    else:
        put_all(engine, some, value)
        engine.begin_reading()
        assert measure(lambda: get_all(engine, some), len(some)) == value
