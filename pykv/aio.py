"""
aio.py -- the store for asyncio: the calls of `Store`, as awaitables.

Nothing here blocks the loop: each call is done by a thread. A hop to a thread and back costs more
than most calls, so all that is asked for in one turn of the loop goes over together, and what is
asked for while every thread is busy waits, and goes with the next. Keys and pairs are taken out of
what holds them before the hop, so that the caller may go on to change it. Where writes wait for the
disk (durability="commit") they are dealt out to the threads, so that they share syncs.

A call that is cancelled is done wholly or not at all, as any call: it is left out if it has not
begun, and else its result is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack, overload

import pykv
from pykv._backup import Backup
from pykv._batch import Batch
from pykv._buffers import Buffer, Pairs, pairs_of
from pykv._open import Flag, Options
from pykv._snapshot import Snapshot
from pykv._stats import Report, Stats
from pykv._store import MISSING, Store
from pykv._transaction import Transaction
from pykv.errors import ClosedError

T = TypeVar("T")
Shown = TypeVar("Shown")

THREADS = 4
THREADS_COMMIT = 16  # they mostly wait for the disk
ROWS_PER_HOP = 1024


async def open(
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
    flag: Flag = "c",
    **options: Unpack[Options],
) -> AsyncStore:
    """
    Open the store in directory *path*, for the running loop.

    Args:
        path: As for `pykv.open`.
        flag: As for `pykv.open`.
        options: As for `pykv.open`.
    Returns:
        The open store: an asynchronous context manager.
    Raises:
        As `pykv.open`.

    >>> async def main():
    ...     async with await pykv.aio.open("users.kv") as users:
    ...         await users.put(b"1", b"Ada")
    ...         return await users[b"1"]
    """
    commit = options.get("durability") == "commit"
    hops = _Hops(os.fsdecode(path), THREADS_COMMIT if commit else THREADS, deal=commit)
    try:
        store = await hops.call(pykv.open, path, flag, **options)
    except BaseException:
        hops.abandon()
        raise
    return AsyncStore(store, hops)


class _Call:
    """One call on its way to a thread and back."""

    __slots__ = ("error", "function", "future", "result")

    def __init__(self, function: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        self.function = function
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        if self.future.cancelled():
            return
        try:
            self.result = self.function()
        except BaseException as error:
            self.error = error

    def tell(self) -> None:
        if self.future.cancelled():
            return
        if isinstance(self.error, StopIteration):  # which no future can hold
            self.error = RuntimeError("a call raised StopIteration")
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class _Hops:
    """Threads, and the calls that wait for one. All but `_run` happens in the loop's own thread."""

    def __init__(self, path: str, threads: int, *, deal: bool) -> None:
        self._path = path  # for messages
        self._loop = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor(threads, "pykv")
        self._threads = self._free = threads
        self._deal = deal  # to as many threads as are free
        self._waiting: list[_Call] = []
        self._idle: asyncio.Future[None] | None = None  # what the end waits for
        self._end: asyncio.Task[None] | None = None

    def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            raise RuntimeError("the store was opened in another event loop: open it in this one")
        if self._end is not None:
            raise ClosedError(f"the store {self._path} is closed", path=self._path)
        future: asyncio.Future[T] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._send)
        self._waiting.append(_Call(functools.partial(function, *args, **kwargs), future))
        return future

    async def end(self, last: Callable[[], None]) -> None:
        """Refuse what comes, finish what was asked for, and then call *last*, once for all."""
        if self._end is None:
            self._end = self._loop.create_task(self._finish(last))
        await asyncio.shield(self._end)  # who stops waiting does not stop it

    def abandon(self) -> None:
        """There is no store to close."""
        self._pool.shutdown(wait=False)

    async def _finish(self, last: Callable[[], None]) -> None:
        if self._waiting or self._free < self._threads:
            self._idle = self._loop.create_future()
            await self._idle
        try:
            await self._loop.run_in_executor(self._pool, last)
        finally:
            self._pool.shutdown(wait=False)

    def _send(self) -> None:
        share = -(-len(self._waiting) // self._free) if self._deal and self._free else None
        while self._waiting and self._free:
            calls = self._waiting[:share]
            del self._waiting[:share]
            self._free -= 1
            self._pool.submit(self._run, calls)

    def _run(self, calls: list[_Call]) -> None:
        for call in calls:
            call.run()
        with contextlib.suppress(RuntimeError):  # a loop that is closed waits for no results
            self._loop.call_soon_threadsafe(self._back, calls)

    def _back(self, calls: list[_Call]) -> None:
        self._free += 1
        for call in calls:
            call.tell()
        self._send()
        if self._idle is not None and not self._waiting and self._free == self._threads:
            self._idle.set_result(None)


class _AsyncReader:
    """What `AsyncStore`, `AsyncSnapshot` and `AsyncTransaction` have in common: reading."""

    __slots__ = ("_call", "_target")

    def __init__(self, target: Any, hops: _Hops) -> None:
        self._target = target
        self._call = hops.call

    @overload
    async def get(
        self,
        key: Buffer,
        default: None = None,
        offset: int | None = None,
        length: int | None = None,
    ) -> bytes | None: ...
    @overload
    async def get(
        self, key: Buffer, default: T, offset: int | None = None, length: int | None = None
    ) -> bytes | T: ...
    async def get(
        self,
        key: Buffer,
        default: Any = None,
        offset: int | None = None,
        length: int | None = None,
    ) -> Any:
        """As `Store.get`."""
        return await self._call(self._target.get, key, default, offset, length)

    def __getitem__(self, key: Buffer) -> asyncio.Future[bytes]:
        """`await db[key]`: the value; KeyError if *key* is absent."""
        return self._call(self._target.__getitem__, key)

    async def contains(self, key: Buffer) -> bool:
        """As `key in store`."""
        return await self._call(self._target.__contains__, key)

    async def ttl(self, key: Buffer) -> float | None:
        """As `Store.ttl`."""
        return await self._call(self._target.ttl, key)

    @overload
    async def get_many(self, keys: Iterable[Buffer]) -> list[bytes | None]: ...
    @overload
    async def get_many(self, keys: Iterable[Buffer], default: T) -> list[bytes | T]: ...
    async def get_many(self, keys: Iterable[Buffer], default: Any = None) -> list[Any]:
        """As `Store.get_many`."""
        return await self._call(self._target.get_many, [*keys], default)

    async def count(self) -> int:
        """As `len(store)`."""
        return await self._call(self._target.__len__)

    def keys(self, *, prefix: Buffer = b"") -> AsyncIterator[bytes]:
        """As `Store.keys`, for `async for`; of the instant at which the loop begins."""
        return self._iterate(lambda: iter(self._target.keys(prefix=prefix)))

    def values(self, *, prefix: Buffer = b"") -> AsyncIterator[bytes]:
        """As `Store.values`, for `async for`."""
        return self._iterate(lambda: iter(self._target.values(prefix=prefix)))

    def items(self, *, prefix: Buffer = b"") -> AsyncIterator[tuple[bytes, bytes]]:
        """As `Store.items`, for `async for`."""
        return self._iterate(lambda: iter(self._target.items(prefix=prefix)))

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.keys()

    # Refused: Python would ask for [0], [1], [2] and so on, each a future, without end.
    __iter__ = None
    __contains__ = None

    async def _iterate(self, begin: Callable[[], Iterator[Any]]) -> AsyncIterator[Any]:
        rows = await self._call(begin)
        while some := await self._call(lambda: [*islice(rows, ROWS_PER_HOP)]):
            for row in some:
                yield row


class AsyncStore(_AsyncReader):
    """An open store, for one event loop. Made by `pykv.aio.open`; see `Store` for each call."""

    __slots__ = ("_hops",)

    _target: Store

    def __init__(self, store: Store, hops: _Hops) -> None:
        super().__init__(store, hops)
        self._hops = hops

    # ---- One key ----

    async def put(
        self, key: Buffer, value: Buffer, *, ttl: float | None = None, durable: bool | None = None
    ) -> None:
        """As `Store.put`."""
        await self._call(self._target.put, key, value, ttl=ttl, durable=durable)

    async def delete(self, key: Buffer) -> bool:
        """As `Store.delete`."""
        return await self._call(self._target.delete, key)

    @overload
    async def pop(self, key: Buffer) -> bytes: ...
    @overload
    async def pop(self, key: Buffer, default: T) -> bytes | T: ...
    async def pop(self, key: Buffer, default: Any = MISSING) -> Any:
        """As `Store.pop`."""
        return await self._call(self._target.pop, key, default)

    async def setdefault(self, key: Buffer, default: Buffer) -> bytes:
        """As `Store.setdefault`."""
        return await self._call(self._target.setdefault, key, default)

    async def put_if_absent(self, key: Buffer, value: Buffer) -> bool:
        """As `Store.put_if_absent`."""
        return await self._call(self._target.put_if_absent, key, value)

    async def compare_and_set(
        self, key: Buffer, expected: Buffer | None, new: Buffer | None
    ) -> bool:
        """As `Store.compare_and_set`."""
        return await self._call(self._target.compare_and_set, key, expected, new)

    async def incr(self, key: Buffer, by: int = 1, *, ttl: float | None = None) -> int:
        """As `Store.incr`."""
        return await self._call(self._target.incr, key, by, ttl=ttl)

    async def expire(self, key: Buffer, ttl: float) -> bool:
        """As `Store.expire`."""
        return await self._call(self._target.expire, key, ttl)

    async def touch(self, key: Buffer, ttl: float) -> bool:
        """As `Store.touch`."""
        return await self._call(self._target.touch, key, ttl)

    async def persist(self, key: Buffer) -> bool:
        """As `Store.persist`."""
        return await self._call(self._target.persist, key)

    async def get_with_version(self, key: Buffer) -> tuple[bytes, int] | None:
        """As `Store.get_with_version`."""
        return await self._call(self._target.get_with_version, key)

    # ---- Many keys ----

    async def put_many(
        self, pairs: Pairs, *, ttl: float | None = None, durable: bool | None = None
    ) -> None:
        """As `Store.put_many`."""
        await self._call(self._target.put_many, pairs_of(pairs), ttl=ttl, durable=durable)

    async def delete_many(self, keys: Iterable[Buffer]) -> int:
        """As `Store.delete_many`."""
        return await self._call(self._target.delete_many, [*keys])

    async def contains_many(self, keys: Iterable[Buffer]) -> list[bool]:
        """As `Store.contains_many`."""
        return await self._call(self._target.contains_many, [*keys])

    async def clear(self) -> None:
        """As `Store.clear`."""
        await self._call(self._target.clear)

    # ---- Batches, snapshots, transactions ----

    def batch(self, durable: bool | None = None) -> _Held[Batch]:
        """`async with db.batch() as batch`: a `Batch`, applied where the block ends."""
        return _Held(self._call, functools.partial(self._target.batch, durable), lambda b: b)

    def snapshot(self) -> _Held[AsyncSnapshot]:
        """`async with db.snapshot() as snapshot`: an `AsyncSnapshot`."""
        return _Held(
            self._call, self._target.snapshot, lambda held: AsyncSnapshot(held, self._hops)
        )

    def transaction(self, durable: bool | None = None) -> _Held[AsyncTransaction]:
        """`async with db.transaction() as t`: an `AsyncTransaction`, committed at the end."""
        return _Held(
            self._call,
            functools.partial(self._target.transaction, durable),
            lambda held: AsyncTransaction(held, self._hops),
        )

    async def transact(
        self,
        function: Callable[[Transaction], T],
        *,
        retries: int = 10,
        durable: bool | None = None,
    ) -> T:
        """As `Store.transact`; *function* is an ordinary one, and runs in a thread."""
        if inspect.iscoroutinefunction(function):
            raise TypeError("transact() runs an ordinary function, no `async def`, in a thread")
        return await self._call(self._target.transact, function, retries=retries, durable=durable)

    # ---- The store itself ----

    async def sync(self) -> None:
        """As `Store.sync`."""
        await self._call(self._target.sync)

    async def compact(self) -> None:
        """As `Store.compact`."""
        await self._call(self._target.compact)

    async def backup(self, dest: str | os.PathLike[str], *, link: bool = True) -> Backup:
        """As `Store.backup`."""
        return await self._call(self._target.backup, dest, link=link)

    async def pause_compaction(self) -> None:
        """As `Store.pause_compaction`."""
        await self._call(self._target.pause_compaction)

    async def resume_compaction(self) -> None:
        """As `Store.resume_compaction`."""
        await self._call(self._target.resume_compaction)

    async def stats(self) -> Stats:
        """As `Store.stats`."""
        return await self._call(self._target.stats)

    async def verify(self) -> Report:
        """As `Store.verify`."""
        return await self._call(self._target.verify)

    @property
    def path(self) -> str:
        """The directory of the store, as it was given to `open`."""
        return self._target.path

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._target.closed

    async def close(self) -> None:
        """As `Store.close`: what was asked for before is finished first. Repeating it is fine."""
        await self._hops.end(self._target.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<pykv.aio.AsyncStore {self.path!r}{', closed' if self.closed else ''}>"


class AsyncSnapshot(_AsyncReader):
    """One instant of a store, as `Snapshot`. Made by `AsyncStore.snapshot`."""

    __slots__ = ()

    _target: Snapshot

    async def get_with_version(self, key: Buffer) -> tuple[bytes, int] | None:
        """As `Snapshot.get_with_version`."""
        return await self._call(self._target.get_with_version, key)

    async def contains_many(self, keys: Iterable[Buffer]) -> list[bool]:
        """As `Snapshot.contains_many`."""
        return await self._call(self._target.contains_many, [*keys])

    @property
    def version(self) -> int:
        """The version of the newest batch that the snapshot sees."""
        return self._target.version


class AsyncTransaction(_AsyncReader):
    """One instant and its own writes, as `Transaction`: await one call at a time."""

    __slots__ = ()

    _target: Transaction

    async def put(self, key: Buffer, value: Buffer, *, ttl: float | None = None) -> None:
        """As `Transaction.put`."""
        await self._call(self._target.put, key, value, ttl=ttl)

    async def delete(self, key: Buffer) -> bool:
        """As `Transaction.delete`."""
        return await self._call(self._target.delete, key)

    async def put_many(self, pairs: Pairs, *, ttl: float | None = None) -> None:
        """As `Transaction.put_many`."""
        await self._call(self._target.put_many, pairs_of(pairs), ttl=ttl)

    async def incr(self, key: Buffer, by: int = 1, *, ttl: float | None = None) -> int:
        """As `Transaction.incr`."""
        return await self._call(self._target.incr, key, by, ttl=ttl)

    async def expire(self, key: Buffer, ttl: float) -> bool:
        """As `Transaction.expire`."""
        return await self._call(self._target.expire, key, ttl)

    async def touch(self, key: Buffer, ttl: float) -> bool:
        """As `Transaction.touch`."""
        return await self._call(self._target.touch, key, ttl)

    async def persist(self, key: Buffer) -> bool:
        """As `Transaction.persist`."""
        return await self._call(self._target.persist, key)


class _Held(Generic[Shown]):
    """`async with` around a context manager whose ends are calls of the engine."""

    __slots__ = ("_call", "_held", "_make", "_show")

    def __init__(
        self, call: Callable[..., Any], make: Callable[[], Any], show: Callable[[Any], Shown]
    ) -> None:
        self._call = call
        self._make = make
        self._show = show
        self._held: Any = None

    async def __aenter__(self) -> Shown:
        self._held = await self._call(lambda: self._make().__enter__())
        return self._show(self._held)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Who is cancelled here no longer waits; what was begun is finished all the same.
        await asyncio.shield(self._call(self._held.__exit__, kind, error, traceback))
