"""
peers.py -- the stores on disk that a Python program can have in its own process: those that `pip`
or Debian installs (extra `peers`), and those of the standard library.
"""

from __future__ import annotations

import copy
import dbm
import importlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Self

from pykv._bench.engines import Abilities, Engine, Pair, Shape

CACHE_BYTES = 256 << 20  # for those that have a cache of their own
BUFFER_BYTES = 64 << 20  # of writes, of which there are two at times
MAPPED_RAM_MAX = 16 << 20  # where all that grows is in mapped files
MAP_BYTES_MIN = 1 << 30


class Lmdb(Engine):
    """py-lmdb: a B+tree in a mapped file."""

    name = "lmdb"
    needs = ("lmdb",)
    settings = (
        "writemap=True, sync=False; durable puts: the defaults; reads in one long transaction,"
        " renewed after a write"
    )
    abilities = Abilities("any number", "yes", "no", "yes", "no")
    ordered = True
    ram_max = MAPPED_RAM_MAX

    def __init__(
        self, path: Path, shape: Shape, *, durable: bool = False, read_only: bool = False
    ) -> None:
        import lmdb

        self._env = lmdb.open(
            str(path),
            map_size=max(MAP_BYTES_MIN, 16 * shape.data_bytes),
            writemap=not durable,
            sync=durable,
            readonly=read_only,
        )
        self._bind()

    def _bind(self) -> None:
        """Begin a read transaction of this engine's own."""
        self._reader = self._env.begin()
        self._reading = True
        self.put, self.get, self.delete = self._put, self._get, self._delete

    def _written(self) -> Any:
        """Return a write transaction; ours, were it left open, would keep the pages it sees."""
        if self._reading:
            self._reader.abort()
            self._reading = False
        return self._env.begin(write=True)

    def _put(self, key: bytes, value: bytes) -> None:
        with self._written() as txn:
            txn.put(key, value)

    def _delete(self, key: bytes) -> None:
        with self._written() as txn:
            txn.delete(key)

    def _get(self, key: bytes) -> Any:
        return self._reader.get(key) if self._reading else self.reader()(key)

    def reader(self) -> Any:
        if not self._reading:
            self._reader = self._env.begin()
            self._reading = True
        return self._reader.get

    def put_many(self, pairs: Sequence[Pair]) -> None:
        with self._written() as txn, txn.cursor() as cursor:
            cursor.putmulti(pairs)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.reader()
        with self._reader.cursor() as cursor:
            found = dict(cursor.getmulti(keys))
        return [found.get(key) for key in keys]

    def items(self) -> Iterator[Pair]:
        self.reader()
        return iter(self._reader.cursor())

    def scan(self, first: bytes, count: int) -> list[Pair]:
        self.reader()
        with self._reader.cursor() as cursor:
            return list(islice(cursor, count)) if cursor.set_range(first) else []

    def for_thread(self) -> Self:
        twin = copy.copy(self)
        twin._bind()
        return twin

    def close(self) -> None:
        self._env.close()


class LevelDB(Engine):
    """LevelDB by plyvel: a log-structured merge tree."""

    name = "leveldb"
    needs = ("plyvel",)
    settings = (
        "write_buffer_size=64 MiB, lru_cache_size=256 MiB, bloom_filter_bits=10; durable puts:"
        " sync=True"
    )
    abilities = Abilities("no", "yes", "no", "yes", "yes")
    ordered = True
    shared = False
    ram_max = CACHE_BYTES + 2 * BUFFER_BYTES

    def __init__(
        self, path: Path, shape: Shape, *, durable: bool = False, read_only: bool = False
    ) -> None:
        import plyvel

        db = plyvel.DB(
            str(path),
            create_if_missing=True,
            write_buffer_size=BUFFER_BYTES,
            lru_cache_size=CACHE_BYTES,
            bloom_filter_bits=10,
        )
        self._db, self._durable = db, durable
        self.put, self.get, self.delete = db.put, db.get, db.delete
        if durable:
            self.put = lambda key, value: db.put(key, value, sync=True)

    def put_many(self, pairs: Sequence[Pair]) -> None:
        with self._db.write_batch(sync=self._durable) as batch:
            for key, value in pairs:
                batch.put(key, value)

    def items(self) -> Iterator[Pair]:
        return iter(self._db.iterator())

    def scan(self, first: bytes, count: int) -> list[Pair]:
        with self._db.iterator(start=first) as iterator:
            return list(islice(iterator, count))

    def close(self) -> None:
        self._db.close()


class RocksDB(Engine):
    """RocksDB by rocksdict: a log-structured merge tree with many settings."""

    name = "rocksdb"
    needs = ("rocksdict",)
    settings = (
        "as its guide to basic tuning: a bloom filter of 10 bits, blocks of 16 KiB, a cache of"
        " 256 MiB that holds index and filters too, bytes_per_sync=1 MiB, a job for each processor;"
        " durable puts: sync"
    )
    abilities = Abilities(
        "one, and readers that see no later write", "yes", "whole store", "yes", "yes"
    )
    ordered = True
    ram_max = CACHE_BYTES + 2 * BUFFER_BYTES

    def __init__(
        self, path: Path, shape: Shape, *, durable: bool = False, read_only: bool = False
    ) -> None:
        import rocksdict

        table = rocksdict.BlockBasedOptions()
        table.set_block_cache(rocksdict.Cache(CACHE_BYTES))
        table.set_bloom_filter(10, False)
        table.set_block_size(16 << 10)
        table.set_cache_index_and_filter_blocks(True)
        table.set_pin_l0_filter_and_index_blocks_in_cache(True)
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_block_based_table_factory(table)
        options.set_level_compaction_dynamic_level_bytes(True)
        options.set_bytes_per_sync(1 << 20)
        options.set_write_buffer_size(BUFFER_BYTES)
        options.set_max_write_buffer_number(2)
        options.increase_parallelism(os.cpu_count() or 1)
        access = rocksdict.AccessType
        db = rocksdict.Rdict(
            str(path), options, access_type=access.read_only() if read_only else access.read_write()
        )
        if durable:
            written = rocksdict.WriteOptions()
            written.sync = True
            db.set_write_options(written)
        self._db, self._batch = db, rocksdict.WriteBatch
        self.put, self.get, self.delete = db.put, db.get, db.delete

    def put_many(self, pairs: Sequence[Pair]) -> None:
        batch = self._batch(raw_mode=True)
        for key, value in pairs:
            batch.put(key, value)
        self._db.write(batch)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        found: list[bytes | None] = self._db.get(list(keys))
        return found

    def items(self) -> Iterator[Pair]:
        return iter(self._db.items())

    def scan(self, first: bytes, count: int) -> list[Pair]:
        return list(islice(self._db.items(from_key=first), count))

    def close(self) -> None:
        self._db.close()


class Sqlite(Engine):
    """SQLite: a table of two columns."""

    name = "sqlite3"
    settings = (
        "journal_mode=WAL, synchronous=NORMAL (durable puts: FULL), cache_size=256 MiB,"
        " mmap_size=1 GiB; WITHOUT ROWID where rows are small"
    )
    abilities = Abilities("any number", "yes", "no", "yes", "keeps it for itself")
    ordered = True
    ram_max = CACHE_BYTES

    def __init__(
        self, path: Path, shape: Shape, *, durable: bool = False, read_only: bool = False
    ) -> None:
        self._open = path, shape, durable
        self._twins: list[Sqlite] = []
        # Each thread has a connection of its own, but one thread closes them all.
        db = sqlite3.connect(
            path / "data.sqlite", isolation_level=None, timeout=60, check_same_thread=False
        )
        for pragma in (
            *("journal_mode=WAL", f"synchronous={'FULL' if durable else 'NORMAL'}"),
            *(f"cache_size=-{CACHE_BYTES >> 10}", f"mmap_size={1 << 30}"),
        ):
            db.execute(f"PRAGMA {pragma}")
        # Its documentation advises it for rows below a twentieth of a page of 4 KiB.
        small = "WITHOUT ROWID" if shape.data_bytes < 200 * shape.keys else ""
        if not read_only:
            db.execute(
                f"CREATE TABLE IF NOT EXISTS kv (key BLOB PRIMARY KEY, value BLOB NOT NULL) {small}"
            )
        self._db = db
        run = db.execute
        self.put = lambda key, value: run("REPLACE INTO kv VALUES (?, ?)", (key, value))
        self.delete = lambda key: run("DELETE FROM kv WHERE key = ?", (key,))
        self.get = self._get

    def _get(self, key: bytes) -> Any:
        row = self._db.execute("SELECT value FROM kv WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def put_many(self, pairs: Sequence[Pair]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("REPLACE INTO kv VALUES (?, ?)", pairs)
        self._db.execute("COMMIT")

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        marks = ",".join("?" * len(keys))
        found = dict(self._db.execute(f"SELECT key, value FROM kv WHERE key IN ({marks})", keys))
        return [found.get(key) for key in keys]

    def items(self) -> Iterator[Pair]:
        return iter(self._db.execute("SELECT key, value FROM kv"))

    def scan(self, first: bytes, count: int) -> list[Pair]:
        query = "SELECT key, value FROM kv WHERE key >= ? ORDER BY key LIMIT ?"
        return self._db.execute(query, (first, count)).fetchall()

    def for_thread(self) -> Self:
        path, shape, durable = self._open
        twin = type(self)(path, shape, durable=durable)
        self._twins.append(twin)
        return twin

    def close(self) -> None:
        for each in (*self._twins, self):
            each._db.close()

    @classmethod
    def version(cls) -> str:
        return sqlite3.sqlite_version


class Dbm(Engine):
    """The dbm module that this Python has: gdbm, ndbm, SQLite or dbm.dumb."""

    name = "dbm"
    settings = "dbm.open() with nothing set; the module is told as its version"
    abilities = Abilities("several only to read", "no", "no", "no", "no")
    durable = False

    def __init__(
        self, path: Path, shape: Shape, *, durable: bool = False, read_only: bool = False
    ) -> None:
        db: Any = dbm.open(str(path / "data"), "r" if read_only else "c")
        self._db = db
        self.put, self.get, self.delete = db.__setitem__, db.get, self._delete

    def _delete(self, key: bytes) -> None:
        if key in self._db:
            del self._db[key]

    def items(self) -> Iterator[Pair]:
        return ((key, self._db[key]) for key in self._db.keys())  # noqa: SIM118 - no mapping

    def close(self) -> None:
        self._db.close()

    @classmethod
    def version(cls) -> str:
        for name in dbm.__dict__["_names"]:  # in the order in which dbm.open() tries them
            with suppress(ImportError):
                return importlib.import_module(name).__name__
        return "none"


class DiskCache(Engine):
    """diskcache: SQLite, and files for large values."""

    name = "diskcache"
    needs = ("diskcache",)
    settings = (
        "eviction_policy='none', no size_limit; 1,000s in transact(); durable puts:"
        " sqlite_synchronous=2"
    )
    abilities = Abilities("any number", "yes", "yes", "no", "yes")
    ram_max = 8192 * 4096  # its sqlite_cache_size, in pages

    def __init__(
        self, path: Path, shape: Shape, *, durable: bool = False, read_only: bool = False
    ) -> None:
        import diskcache

        self._db = diskcache.Cache(
            str(path),
            eviction_policy="none",
            size_limit=1 << 50,
            cull_limit=0,
            timeout=60,
            sqlite_synchronous=2 if durable else 1,
        )
        self.put, self.get, self.delete = self._db.set, self._db.get, self._db.delete

    def put_many(self, pairs: Sequence[Pair]) -> None:
        with self._db.transact():
            for key, value in pairs:
                self.put(key, value)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        with self._db.transact():
            return [self.get(key) for key in keys]

    def items(self) -> Iterator[Pair]:
        return ((key, self._db[key]) for key in self._db)

    def close(self) -> None:
        self._db.close()


class Tkrzw(Engine):
    """Tkrzw's hash file, as Debian's python3-tkrzw has it."""

    name = "tkrzw"
    needs = ("tkrzw",)
    settings = "HashDBM, num_buckets twice the keys; durable puts: Synchronize(True) after each"
    abilities = Abilities("several only to read", "no", "no", "no", "no")
    ram_max = MAPPED_RAM_MAX

    def __init__(
        self, path: Path, shape: Shape, *, durable: bool = False, read_only: bool = False
    ) -> None:
        import tkrzw

        db = self._db = tkrzw.DBM()
        db.Open(str(path / "data.tkh"), not read_only, num_buckets=2 * shape.keys).OrDie()
        self._iterator = db.MakeIterator
        self.put, self.get, self.delete = db.Set, db.Get, db.Remove
        if durable:
            self.put = self._put_durably

    def _put_durably(self, key: bytes, value: bytes) -> None:
        self._db.Set(key, value).OrDie()
        self._db.Synchronize(True).OrDie()

    def items(self) -> Iterator[Pair]:
        iterator = self._iterator()
        iterator.First()
        while pair := iterator.Get():
            yield pair
            iterator.Next()

    def close(self) -> None:
        self._db.Close().OrDie()

    @classmethod
    def version(cls) -> str:
        import tkrzw

        return str(tkrzw.Utility.VERSION)


PEERS: tuple[type[Engine], ...] = (Lmdb, LevelDB, RocksDB, Tkrzw, Sqlite, DiskCache, Dbm)
