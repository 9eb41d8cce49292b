"""engines.py -- what is compared: pykv, its peers and a dict, behind the same few calls."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pykv

VALUE = bytes(range(100))
ROUNDS = 3


def fill(store: Any, keys: list[bytes], value: bytes = VALUE) -> None:
    for start in range(0, len(keys), 1000):
        store.put_many(dict.fromkeys(keys[start : start + 1000], value))


class Pykv:
    """A store as it opens by default."""

    options: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, path: Path) -> None:
        self.db = pykv.open(path / "store.kv", **self.options)
        self.get = self.db.get
        self.put = self.db.__setitem__
        self.delete = self.db.delete
        self.get_many = self.db.get_many
        self.put_many = self.db.put_many
        self.delete_many = self.db.delete_many
        self.items = self.db.items
        self.close = self.db.close

    def begin_reading(self) -> None:
        """Nothing to do."""


class PykvPread(Pykv):
    """Reads by system calls; small segments, since the one that is being written to is mapped."""

    options = {"io": "pread", "segment_bytes": 4 << 20}  # noqa: RUF012


class Lmdb:
    """As its documentation advises: writemap and no sync for writes, one transaction for reads."""

    options: dict[str, Any] = {"writemap": True, "sync": False}  # noqa: RUF012

    def __init__(self, path: Path) -> None:
        lmdb = pytest.importorskip("lmdb")
        self.env = lmdb.open(os.fspath(path / "lmdb"), map_size=8 << 30, **self.options)
        self.transaction: Any = None

    def begin_reading(self) -> None:
        self.transaction = self.env.begin()
        self.get = self.transaction.get
        self.cursor = self.transaction.cursor()
        self.get_many = self.cursor.getmulti
        self.items = self.cursor.iternext

    def close(self) -> None:
        if self.transaction is not None:
            self.cursor.close()
            self.transaction.abort()
        self.env.close()

    def put(self, key: bytes, value: bytes) -> None:
        with self.env.begin(write=True) as transaction:
            transaction.put(key, value)

    def delete(self, key: bytes) -> None:
        with self.env.begin(write=True) as transaction:
            transaction.delete(key)

    def put_many(self, pairs: dict[bytes, bytes]) -> None:
        with self.env.begin(write=True) as transaction:
            transaction.cursor().putmulti(pairs.items())

    def delete_many(self, keys: list[bytes]) -> None:
        with self.env.begin(write=True) as transaction:
            for key in keys:
                transaction.delete(key)


class LmdbDurable(Lmdb):
    """Its defaults: a put is on disk when it returns."""

    options = {}  # noqa: RUF012


class LmdbLarge(Lmdb):
    """As advised where the data is larger than memory."""

    options = Lmdb.options | {"readahead": False}


class Sqlite:
    """A table without row ids, WAL, synchronous=NORMAL; one transaction for reads."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path / "sqlite", isolation_level=None)
        self.execute = self.connection.execute
        self.execute("PRAGMA journal_mode=WAL")
        self.execute("PRAGMA synchronous=NORMAL")
        self.execute("CREATE TABLE IF NOT EXISTS t (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID")
        self.close = self.connection.close

    def begin_reading(self) -> None:
        self.execute("BEGIN")

    def get(self, key: bytes) -> bytes | None:
        row = self.execute("SELECT v FROM t WHERE k = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def put(self, key: bytes, value: bytes) -> None:
        self.execute("REPLACE INTO t VALUES (?, ?)", (key, value))

    def delete(self, key: bytes) -> None:
        self.execute("DELETE FROM t WHERE k = ?", (key,))

    def get_many(self, keys: list[bytes]) -> list[bytes]:
        marks = ",".join("?" * len(keys))
        return self.execute(f"SELECT v FROM t WHERE k IN ({marks})", keys).fetchall()

    def put_many(self, pairs: dict[bytes, bytes]) -> None:
        with self.connection:
            self.execute("BEGIN")
            self.connection.executemany("REPLACE INTO t VALUES (?, ?)", pairs.items())

    def delete_many(self, keys: list[bytes]) -> None:
        with self.connection:
            self.execute("BEGIN")
            self.connection.executemany("DELETE FROM t WHERE k = ?", [(key,) for key in keys])

    def items(self) -> Any:
        return self.execute("SELECT k, v FROM t")


class Dict:
    """A dict of the same pairs: the floor for what anything may cost in Python."""

    def __init__(self, _path: Path) -> None:
        self.pairs: dict[bytes, bytes] = {}
        self.get = self.pairs.get
        self.put = self.pairs.__setitem__
        self.put_many = self.pairs.update
        self.items = self.pairs.items
        self.close = self.pairs.clear

    def begin_reading(self) -> None:
        """Nothing to do."""

    def delete(self, key: bytes) -> None:
        self.pairs.pop(key, None)

    def get_many(self, keys: list[bytes]) -> list[bytes]:
        pairs = self.pairs
        return [pairs[key] for key in keys]

    def delete_many(self, keys: list[bytes]) -> None:
        for key in keys:
            self.pairs.pop(key, None)


ENGINES: dict[str, Callable[[Path], Any]] = {
    "pykv": Pykv,
    "pykv, pread": PykvPread,
    "lmdb": Lmdb,
    "sqlite": Sqlite,
    "dict": Dict,
}
