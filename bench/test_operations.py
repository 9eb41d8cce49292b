"""
pytest-benchmark suites: `pytest bench --benchmark-group-by=group`, each operation beside py-lmdb.

Comparable between runs with --benchmark-save and --benchmark-compare. Keys of 16 bytes, values of 100;
--keys sets how many.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pykv

VALUE = bytes(range(100))


class Pykv:
    def __init__(self, path: Path) -> None:
        self.db = pykv.open(path / "pykv.kv")
        self.get = self.db.get
        self.put = self.db.put
        self.get_many = self.db.get_many
        self.put_many = self.db.put_many
        self.close = self.db.close

    def items(self) -> int:
        return sum(1 for _ in self.db.items())


class Lmdb:
    """As its documentation advises: writemap and no sync for writes, one transaction for reads."""

    def __init__(self, path: Path) -> None:
        lmdb = pytest.importorskip("lmdb")
        self.env = lmdb.open(os.fspath(path / "lmdb"), map_size=4 << 30, writemap=True, sync=False)
        self.close = self.env.close

    def read(self) -> None:
        self.transaction = self.env.begin()
        self.get = self.transaction.get
        self.cursor = self.transaction.cursor()
        self.get_many = self.cursor.getmulti
        self.close = lambda: (self.cursor.close(), self.transaction.abort(), self.env.close())

    def put(self, key: bytes, value: bytes) -> None:
        with self.env.begin(write=True) as transaction:
            transaction.put(key, value)

    def put_many(self, pairs: dict[bytes, bytes]) -> None:
        with self.env.begin(write=True) as transaction:
            for key, value in pairs.items():
                transaction.put(key, value)

    def items(self) -> int:
        return sum(1 for _ in self.cursor)


@pytest.fixture(scope="session")
def keys(pytestconfig: pytest.Config) -> list[bytes]:
    source = random.Random(1)
    return [source.randbytes(16) for _ in range(pytestconfig.getoption("--keys"))]


@pytest.fixture(params=[Pykv, Lmdb], ids=["pykv", "lmdb"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    opened = request.param(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def filled(engine: Any, keys: list[bytes]) -> Any:
    for start in range(0, len(keys), 1000):
        engine.put_many(dict.fromkeys(keys[start : start + 1000], VALUE))
    if isinstance(engine, Lmdb):
        engine.read()
    return engine


def cycle(items: list[Any]) -> Callable[[], Any]:
    """A function that returns one item after the other, in random order."""
    order = items[:]
    random.Random(2).shuffle(order)
    state = iter(order)

    def following() -> Any:
        nonlocal state
        try:
            return next(state)
        except StopIteration:
            state = iter(order)
            return next(state)

    return following


@pytest.mark.benchmark(group="put")
def test_put(engine: Any, keys: list[bytes], benchmark: Any) -> None:
    key = cycle(keys)
    benchmark(lambda: engine.put(key(), VALUE))


@pytest.mark.benchmark(group="put_many of 1000")
def test_put_many(engine: Any, keys: list[bytes], benchmark: Any) -> None:
    pieces = [dict.fromkeys(keys[i : i + 1000], VALUE) for i in range(0, len(keys), 1000)]
    piece = cycle(pieces)
    benchmark(lambda: engine.put_many(piece()))


@pytest.mark.benchmark(group="get, present")
def test_get(filled: Any, keys: list[bytes], benchmark: Any) -> None:
    key = cycle(keys)
    assert benchmark(lambda: filled.get(key())) == VALUE


@pytest.mark.benchmark(group="get, absent")
def test_get_absent(filled: Any, keys: list[bytes], benchmark: Any) -> None:
    key = cycle([key + b"?" for key in keys])
    assert benchmark(lambda: filled.get(key())) is None


@pytest.mark.benchmark(group="get_many of 100")
def test_get_many(filled: Any, keys: list[bytes], benchmark: Any) -> None:
    groups = [keys[i : i + 100] for i in range(0, len(keys), 100)]
    group = cycle(groups)
    assert len(benchmark(lambda: filled.get_many(group()))) == 100


@pytest.mark.benchmark(group="items")
def test_items(filled: Any, keys: list[bytes], benchmark: Any) -> None:
    assert benchmark(filled.items) == len(keys)
