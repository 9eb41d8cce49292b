"""What the benchmark suites share: options, keys, and the engines that they compare."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pykv

sys.path.insert(0, str(Path(__file__).parent))  # for sharing.py

VALUE = bytes(range(100))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--keys", type=int, default=100_000, help="keys in the store")
    parser.addoption("--backup-mib", type=int, default=256, help="size of the store backed up")
    parser.addoption("--value-mib", type=int, default=64, help="size of the large value")


class Pykv:
    """A store as it opens by default."""

    def __init__(self, path: Path) -> None:
        self.db = pykv.open(path / "pykv.kv")
        self.get = self.db.get
        self.put = self.db.__setitem__
        self.get_many = self.db.get_many
        self.put_many = self.db.put_many
        self.close = self.db.close

    def begin_reading(self) -> None:
        """Nothing to do."""

    def items(self) -> int:
        count = 0
        for _key, _value in self.db.items():
            count += 1
        return count


class Lmdb:
    """As its documentation advises: writemap and no sync for writes, one transaction for reads."""

    def __init__(self, path: Path) -> None:
        lmdb = pytest.importorskip("lmdb")
        self.env = lmdb.open(os.fspath(path / "lmdb"), map_size=8 << 30, writemap=True, sync=False)
        self.transaction: Any = None

    def begin_reading(self) -> None:
        self.transaction = self.env.begin()
        self.get = self.transaction.get
        self.cursor = self.transaction.cursor()
        self.get_many = self.cursor.getmulti

    def close(self) -> None:
        if self.transaction is not None:
            self.cursor.close()
            self.transaction.abort()
        self.env.close()

    def put(self, key: bytes, value: bytes) -> None:
        with self.env.begin(write=True) as transaction:
            transaction.put(key, value)

    def put_many(self, pairs: dict[bytes, bytes]) -> None:
        with self.env.begin(write=True) as transaction:
            for key, value in pairs.items():
                transaction.put(key, value)

    def items(self) -> int:
        count = 0
        for _key, _value in self.cursor:
            count += 1
        return count


class Dict:
    """A dict of the same pairs: the floor for what reads may cost in Python."""

    def __init__(self, _path: Path) -> None:
        self.pairs: dict[bytes, bytes] = {}
        self.get = self.pairs.get
        self.put = self.pairs.__setitem__
        self.put_many = self.pairs.update

    def begin_reading(self) -> None:
        """Nothing to do."""

    def get_many(self, keys: list[bytes]) -> list[bytes]:
        pairs = self.pairs
        return [pairs[key] for key in keys]

    def items(self) -> int:
        count = 0
        for _key, _value in self.pairs.items():
            count += 1
        return count

    def close(self) -> None:
        self.pairs.clear()


@pytest.fixture(scope="session")
def keys(pytestconfig: pytest.Config) -> list[bytes]:
    """Random keys of 16 bytes: --keys of them."""
    source = random.Random(1)
    return [source.randbytes(16) for _ in range(pytestconfig.getoption("--keys"))]


@pytest.fixture(params=[Pykv, Lmdb, Dict], ids=["pykv", "lmdb", "dict"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """An empty store of each engine."""
    opened = request.param(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def filled(engine: Any, keys: list[bytes]) -> Any:
    """A store of each engine that holds all keys."""
    for start in range(0, len(keys), 1000):
        engine.put_many(dict.fromkeys(keys[start : start + 1000], VALUE))
    return engine
