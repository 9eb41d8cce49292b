"""
engines.py -- pykv and what people use in its place, behind the same few calls. The peers are in
peers.py and redis.py, each set as its own documentation advises; `settings` says how, and is
printed beside the figures.

The calls that are timed one by one (put, get, delete) are attributes, bound to the store's own
method wherever it has the right shape, so that no layer of ours is measured with it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import pykv
from pykv._bench.machine import Memory, memory_of_process

Pair = tuple[bytes, bytes]


class Shape(NamedTuple):
    """What a store is to hold, as far as it must know beforehand: keys, and bytes of all pairs."""

    keys: int
    data_bytes: int


class Abilities(NamedTuple):
    """What an engine can do beside putting and getting, each in a few words."""

    processes: str  # several at once on one store
    batches: str  # of several keys, all or nothing
    ttl: str
    ordered: str
    shrinks: str  # gives disk (or memory) back after deletes, unasked


class Engine:
    """
    A store that is open.

    Attributes:
        name: What the report calls it.
        needs: The modules that must be there, as `pip` or Debian installs them.
        settings: How it is set, in the words of its own options.
        abilities: What it can do.
        persistent: Its data outlives its process.
        ordered: Has a scan of its own.
        shared: A second process can read the store while the first does.
        durable: It can make each put survive a power cut.
        served: By a process of its own, which the first to open it runs.
        ram_max: Bytes of RAM that its settings, or its design, keep it to; None: it takes more for
            each key.
        put, get, delete: One key. get: None if absent; deleting an absent key is no error.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    settings: ClassVar[str]
    abilities: ClassVar[Abilities]
    persistent: ClassVar[bool] = True
    ordered: ClassVar[bool] = False
    shared: ClassVar[bool] = True
    durable: ClassVar[bool] = True
    served: ClassVar[bool] = False
    ram_max: ClassVar[int | None] = None

    put: Callable[[bytes, bytes], object]
    get: Callable[[bytes], bytes | None]
    delete: Callable[[bytes], object]

    def __init__(
        self, path: Path, shape: Shape, *, durable: bool = False, read_only: bool = False
    ) -> None:
        """
        Open the store, made if missing.

        Args:
            path: A directory, which exists and is the store's own.
            shape: What it is to hold.
            durable: Each write survives a power cut.
            read_only: For one of several processes that read.
        """
        raise NotImplementedError

    def reader(self) -> Callable[[bytes], bytes | None]:
        """Return the fastest `get` there is while nothing is written."""
        return self.get

    def put_many(self, pairs: Sequence[Pair]) -> object:
        """Put them, in one batch where the engine has batches."""
        for key, value in pairs:
            self.put(key, value)
        return None

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the value of each key, None where absent."""
        return [self.get(key) for key in keys]

    def items(self) -> Iterator[Pair]:
        """Iterate over everything."""
        raise NotImplementedError

    def scan(self, first: bytes, count: int) -> list[Pair]:
        """Return the *count* pairs from *first* on, in the order of the keys; if `ordered`."""
        raise NotImplementedError

    def for_thread(self) -> Self:
        """Return an engine on the same store for the calling thread to use."""
        return self

    def memory(self) -> Memory | None:
        """Return what the store's processes occupy now, None where the system does not tell."""
        return memory_of_process()

    def pinned_bytes(self) -> int:
        """Return bytes of mapped files that it needs in RAM at all times."""
        return 0

    def close(self) -> None:
        """Close it in the regular way."""

    @classmethod
    def missing(cls) -> str | None:
        """Return why it cannot be run here; None: it can."""
        absent = [name for name in cls.needs if importlib.util.find_spec(name) is None]
        return f"{', '.join(absent)} is not installed" if absent else None

    @classmethod
    def version(cls) -> str:
        """Return the version of the package."""
        return importlib.metadata.version(cls.needs[0])

    @classmethod
    def kill(cls, path: Path) -> None:
        """Kill what runs outside the process that opened the store, once that is dead."""


class Pykv(Engine):
    """pykv with nothing set."""

    name = "pykv"
    settings = "as it comes: durability='process', io='mmap'; durable puts: durability='commit'"
    abilities = Abilities("any number", "yes", "yes", "no", "yes")

    def __init__(
        self, path: Path, shape: Shape, *, durable: bool = False, read_only: bool = False
    ) -> None:
        db = pykv.open(
            path / "store",
            "r" if read_only else "c",
            durability="commit" if durable else "process",
        )
        self._db = db
        self.put, self.get, self.delete = db.__setitem__, db.get, db.delete

    def put_many(self, pairs: Sequence[Pair]) -> None:
        self._db.put_many(pairs)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._db.get_many(keys)

    def items(self) -> Iterator[Pair]:
        return iter(self._db.items())

    def pinned_bytes(self) -> int:
        return self._db.stats().keydir_bytes

    def close(self) -> None:
        self._db.close()

    @classmethod
    def version(cls) -> str:
        return pykv.__version__


class Dict(Engine):
    """A plain dict: what memory alone can do."""

    name = "dict"
    settings = "a plain dict, in memory alone"
    abilities = Abilities("no", "under a lock", "no", "no", "in part")
    persistent = shared = durable = False

    def __init__(
        self, path: Path, shape: Shape, *, durable: bool = False, read_only: bool = False
    ) -> None:
        table: dict[bytes, bytes] = {}
        self._table = table
        self.put, self.get = table.__setitem__, table.get
        self.delete = lambda key: table.pop(key, None)

    def put_many(self, pairs: Sequence[Pair]) -> None:
        self._table.update(pairs)

    def items(self) -> Iterator[Pair]:
        return iter(self._table.items())

    @classmethod
    def version(cls) -> str:
        return "built in"


def engines() -> dict[str, type[Engine]]:
    """Return every engine by its name: pykv first, then those on disk, then those in memory."""
    from pykv._bench import peers, redis

    found: tuple[type[Engine], ...] = (Pykv, *peers.PEERS, redis.Redis, Dict)
    return {engine.name: engine for engine in found}


def grouped(things: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yield the things in lists of *size*, the last perhaps shorter."""
    iterator = iter(things)
    while group := list(islice(iterator, size)):
        yield group
