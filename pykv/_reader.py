"""
_reader.py -- everything that reads: the newest of a store, or one instant of it (_snapshot.py); and
a store's life: open handle, close, figures.

`store[key]`, `key in store` and the usual `get` are in C (_module.c), for a call through cffi costs
more than a lookup does; what is unusual about one of them is handled here. The engine lets any
number of threads in, and its close waits for them; the handle itself is freed when the store is
collected. Pools are lists, whose pop() and append() are atomic, so threads share them freely.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar, overload

from pykv._buffers import (
    Buffer,
    as_bytes,
    column,
    part_bounds,
    seconds_left,
    writable_pointer,
)
from pykv._core import Reads, ffi, lib
from pykv._rows import ROWS_KEPT_SIZE, Rows
from pykv._stats import Report, Stats
from pykv._views import StoreItems, StoreKeys, StoreValues
from pykv.errors import BufferSizeError, ClosedError, failure

T = TypeVar("T")

NULL = ffi.NULL
OK = lib.PYKV_OK
NOT_FOUND = lib.PYKV_NOT_FOUND
ABSENT = -1000 + NOT_FOUND  # what pykv_get() returns in place of a size
PART_SIZE = 65_536  # bytes of room for a part of a value at first; a larger one takes a call more

_close = lib.pykv_close
_free = lib.pykv_free
_new_array = ffi.new_allocator(should_clear_after_alloc=False)


class Calls(NamedTuple):
    """The calls of the engine that read. For a snapshot they are others than for a store."""

    get: Callable[..., int]
    get_range: Callable[..., int]
    contains: Callable[..., int]
    view: Callable[..., int]
    get_many: Callable[..., int]
    contains_many: Callable[..., int]


NEWEST = Calls(
    lib.pykv_get,
    lib.pykv_get_range,
    lib.pykv_contains,
    lib.pykv_view,
    lib.pykv_get_many,
    lib.pykv_contains_many,
)


class Reader(Reads):
    """What reads a `Store`, or one instant of it: a `Snapshot`."""

    __slots__ = ("__weakref__", "_calls", "_rows")

    _calls: Calls
    _rows: list[Rows]

    # ---- One key ----

    # Not for keywords alone: those cost a call 20 ns, also where they are not given.

    @overload
    def get(
        self,
        key: Buffer,
        default: None = None,
        offset: int | None = None,
        length: int | None = None,
    ) -> bytes | None: ...
    @overload
    def get(
        self, key: Buffer, default: T, offset: int | None = None, length: int | None = None
    ) -> bytes | T: ...
    def get(
        self,
        key: Buffer,
        default: Any = None,
        offset: int | None = None,
        length: int | None = None,
    ) -> Any:
        """
        Return the newest value stored under *key*, or a part of it.

        Args:
            key: 0 to 65,535 bytes, compared byte by byte.
            default: Returned when *key* is absent; absence is an answer, not an error.
            offset: Of the first byte wanted; None: 0. Beyond the end there is b"".
            length: Bytes wanted, fewer where the value ends; None: all the rest.
        Returns:
            The value's bytes: a private copy, valid after the store is closed.
        Raises:
            CorruptError: The record fails its checksum. Carries *path* and *offset*.
            InvalidError: *offset* or *length* is negative.

        >>> db[b"k"] = b"value"
        >>> db.get(b"k"), db.get(b"absent"), db.get(b"absent", 0)
        (b'value', None, 0)
        >>> db.get(b"k", offset=1, length=3)
        b'alu'

        Cost: one slot and one record read; for a part of a value longer than 64 KiB only the chunks
        of 64 KiB that it lies in. Source: `pykv_get`, `pykv_get_range` in csrc/pykv.h;
        csrc/format.md, 2.
        """
        if offset is None and length is None:
            return self._get(key, default)
        return self._get_part(key, default, offset, length)

    def get_into(self, key: Buffer, buffer: Buffer) -> int | None:
        """
        Copy the newest value of *key* to the start of *buffer*.

        Args:
            key: 0 to 65,535 bytes.
            buffer: Writable and C-contiguous, such as a bytearray, a memoryview, an array.
        Returns:
            Bytes copied, or None when *key* is absent, as `get` does.
        Raises:
            BufferSizeError: *buffer* is too small. Nothing was copied; *size* tells how much is
                needed.
            CorruptError: The record fails its checksum.

        >>> db[b"k"] = b"value"
        >>> room = bytearray(8)
        >>> size = db.get_into(b"k", room)
        >>> bytes(room[:size])
        b'value'

        Source: `pykv_get` in csrc/pykv.h.
        """
        key = as_bytes(key, "key")
        with writable_pointer(buffer) as pointer:
            room = len(pointer)
            size = self._calls.get(self._handle, key, len(key), pointer, room, NULL)
        if size == ABSENT:
            return None
        if size < 0:
            raise failure(size + 1000, [key])
        if size > room:
            error = BufferSizeError(f"the value has {size:,} bytes, the buffer {room:,}")
            error.size = size
            raise error
        return int(size)

    def view(self, key: Buffer) -> memoryview:
        """
        Lend the value's own bytes, without a copy.

        Args:
            key: 0 to 65,535 bytes.
        Returns:
            A read-only memoryview of bytes. They stay as they are until it is released (by
            `release()`, `with`, or its collection), also after the key is overwritten and after
            the store is closed. The disk space of the value is held until then. With io="pread"
            it is a private copy.
        Raises:
            KeyError: *key* is absent, as with `db[key]`.
            CorruptError: The record fails its checksum.

        >>> db[b"k"] = b"a large value"
        >>> with db.view(b"k") as view:
        ...     bytes(view[:7])
        b'a large'

        Source: `pykv_view` in csrc/pykv.h.
        """
        key = as_bytes(key, "key")
        view = self._lend(key)
        if view is None:
            raise KeyError(key)
        return view

    def ttl(self, key: Buffer) -> float | None:
        """
        Return how long *key* will be there, unless something else happens to it.

        Args:
            key: 0 to 65,535 bytes.
        Returns:
            Seconds from now, to the millisecond; None: it never expires. A snapshot tells them from
            now, too, and 0.0 for a key that has expired since it was taken.
        Raises:
            KeyError: *key* is absent, as with `db[key]`.

        >>> db.put(b"session", b"token", ttl=3600)
        >>> db[b"user"] = b"Ada"
        >>> 3599 < db.ttl(b"session") <= 3600
        True
        >>> db.ttl(b"user") is None
        True

        Source: `pykv_contains` in csrc/pykv.h.
        """
        key = as_bytes(key, "key")
        expiry = ffi.new("uint64_t *")
        status = self._calls.contains(self._handle, key, len(key), expiry)
        if status < 0:
            raise failure(status, [key])
        if status == NOT_FOUND:
            raise KeyError(key)
        return seconds_left(expiry[0])

    def _counts(self, key: bytes) -> bool:
        """Tell whether len() counts *key*: it is there, or has expired and is not yet removed."""
        expiry = ffi.new("uint64_t *")
        status = self._calls.contains(self._handle, key, len(key), expiry)
        if status < 0:
            raise failure(status, [key])
        return bool(status == OK or expiry[0])

    def get_with_version(self, key: Buffer) -> tuple[bytes, int] | None:
        """
        Return the newest value of *key* with its version.

        Args:
            key: 0 to 65,535 bytes.
        Returns:
            The value, and the version of the batch that wrote it: positive, and greater than
            that of every batch before. None if *key* is absent. `Batch.expect_version` takes
            the version.
        Raises:
            CorruptError: The record fails its checksum.

        >>> db[b"k"] = b"v"
        >>> value, version = db.get_with_version(b"k")
        >>> with db.batch() as batch:
        ...     batch.expect_version(b"k", version)
        ...     batch[b"k"] = value.upper()
        >>> db[b"k"]
        b'V'

        Source: `pykv_get` in csrc/pykv.h.
        """
        version = ffi.new("uint64_t *")
        value = self._copied(self._calls.get, as_bytes(key, "key"), 4096, version)
        return None if value is None else (value, version[0])

    # ---- Many keys ----

    @overload
    def get_many(self, keys: Iterable[Buffer]) -> list[bytes | None]: ...
    @overload
    def get_many(self, keys: Iterable[Buffer], default: T) -> list[bytes | T]: ...
    def get_many(self, keys: Iterable[Buffer], default: Any = None) -> list[Any]:
        """
        Return the newest values of many keys: several times faster than one by one.

        Args:
            keys: Each 0 to 65,535 bytes, in any order, repeated or not.
            default: Stands where a key is absent.
        Returns:
            As many as *keys*, in their order: private copies of the values.
        Raises:
            CorruptError: A record fails its checksum.

        >>> db.put_many({b"a": b"1", b"b": b"2"})
        >>> db.get_many([b"b", b"absent", b"a"])
        [b'2', None, b'1']

        Cost: all slots and records are prefetched. Source: `pykv_get_many` in csrc/pykv.h.
        """
        keys = list(keys)  # ours alone: the sizes must be those of the very keys joined
        joined, sizes = column(keys, "key")
        try:
            rows = self._rows.pop()
        except IndexError:
            rows = Rows()
        status = self._calls.get_many(self._handle, len(keys), joined, sizes, rows.pointer)
        if status < 0:
            raise failure(status, (as_bytes(key, "key") for key in keys))
        values: list[Any] = list(rows.fields())
        for position in rows.missing():
            values[position] = default
        if rows.data_size <= ROWS_KEPT_SIZE:
            self._rows.append(rows)
        return values

    def contains_many(self, keys: Iterable[Buffer]) -> list[bool]:
        """
        Tell of many keys whether they are present.

        Args:
            keys: Each 0 to 65,535 bytes.
        Returns:
            As many as *keys*, in their order.

        >>> db[b"a"] = b""
        >>> db.contains_many([b"a", b"absent"])
        [True, False]

        Source: `pykv_contains_many` in csrc/pykv.h.
        """
        keys = list(keys)
        joined, sizes = column(keys, "key")
        present = _new_array("uint8_t[]", len(keys))
        status = self._calls.contains_many(self._handle, len(keys), joined, sizes, present)
        if status < 0:
            raise failure(status, (as_bytes(key, "key") for key in keys))
        return [*map(bool, ffi.buffer(present)[:])]

    # ---- All keys ----

    def __len__(self) -> int:
        """Return the number of keys; expired ones count until they are removed, soon after."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[bytes]:
        """Iterate over the keys as they are now, in no order, each once."""
        return iter(StoreKeys(self, b""))

    def _scan_place(self) -> tuple[Any, Any]:
        """Return what is scanned: the store's handle, and the snapshot's or NULL."""
        raise NotImplementedError

    def keys(self, *, prefix: Buffer = b"") -> StoreKeys:
        """
        Return the keys that begin with *prefix*, as a view like that of a dict.

        Args:
            prefix: Bytes; all keys begin with b"".
        Returns:
            A view: iterable, with len() (which reads all keys if there is a prefix), `in`, and
            the operators of a set. Each iteration shows the store as of its own beginning,
            in no order, each key once, whatever is written meanwhile.

        >>> db.put_many({b"user:1": b"Ada", b"user:2": b"Bob", b"n": b"2"})
        >>> sorted(db.keys(prefix=b"user:"))
        [b'user:1', b'user:2']

        Source: `pykv_scan_open` in csrc/pykv.h.
        """
        return StoreKeys(self, as_bytes(prefix, "prefix"))

    def values(self, *, prefix: Buffer = b"") -> StoreValues:
        """
        Return the values whose keys begin with *prefix*, as a view. See `keys`.

        >>> db.put_many({b"user:1": b"Ada", b"user:2": b"Bob", b"n": b"2"})
        >>> sorted(db.values(prefix=b"user:"))
        [b'Ada', b'Bob']

        Source: `pykv_scan_open` in csrc/pykv.h.
        """
        return StoreValues(self, as_bytes(prefix, "prefix"))

    def items(self, *, prefix: Buffer = b"") -> StoreItems:
        """
        Return the pairs whose keys begin with *prefix*, as a view. See `keys`.

        >>> db.put_many({b"user:1": b"Ada", b"user:2": b"Bob", b"n": b"2"})
        >>> sorted(db.items(prefix=b"user:"))
        [(b'user:1', b'Ada'), (b'user:2', b'Bob')]

        Source: `pykv_scan_open` in csrc/pykv.h.
        """
        return StoreItems(self, as_bytes(prefix, "prefix"))

    def _scan(self, prefix: bytes, mode: int) -> Iterator[tuple[bytes, ...]]:
        """Open a scan at this instant; return the iterator over its blocks of fields."""
        blocks = self._blocks(prefix, mode)
        next(blocks)  # the scan is open from here on, and closed when `blocks` is collected
        return blocks

    def _blocks(self, prefix: bytes, mode: int) -> Iterator[tuple[bytes, ...]]:
        opened = ffi.new("struct pykv_scan **")
        status = lib.pykv_scan_open(*self._scan_place(), prefix, len(prefix), mode, opened)
        if status < 0:
            raise failure(status, [prefix])
        scan = opened[0]
        try:
            yield ()
            rows = Rows()
            while (status := lib.pykv_scan_next(scan, rows.pointer)) == OK:
                yield rows.fields()
            if status < 0:
                raise failure(status)
        finally:
            lib.pykv_scan_close(scan)

    # ---- Rarely ----

    def _get_part(self, key: Buffer, default: Any, offset: int | None, length: int | None) -> Any:
        first, count = part_bounds(offset, length)
        capacity = min(count, PART_SIZE)
        get_range = self._calls.get_range
        value = self._copied(get_range, as_bytes(key, "key"), capacity, NULL, first, count)
        return default if value is None else value

    def _copied(self, call: Any, key: bytes, capacity: int, out: Any, *place: int) -> bytes | None:
        """Return what *call* copies into a room of *capacity* bytes, or of as many as it needs."""
        while True:
            room = _new_array("uint8_t[]", capacity)
            size = call(self._handle, key, len(key), *place, room, capacity, out)
            if size == ABSENT:
                return None
            if size < 0:
                raise failure(size + 1000, [key])
            if size <= capacity:
                value: bytes = ffi.buffer(room)[:size]
                return value
            capacity = size

    def _get_rarely(self, key: Buffer, default: Any) -> Any:
        """Do what `get` has to do where *key* is no bytes object, or something is wrong."""
        value = self._copied(self._calls.get, as_bytes(key, "key"), 4096, NULL)
        return default if value is None else value

    def _getitem_rarely(self, key: Buffer) -> bytes:
        value: bytes | None = self._get_rarely(key, None)
        if value is None:
            raise KeyError(as_bytes(key, "key"))
        return value

    def _contains_rarely(self, key: Buffer) -> bool:
        key = as_bytes(key, "key")
        status = self._calls.contains(self._handle, key, len(key), NULL)
        if status < 0:
            raise failure(status, [key])
        return bool(status == OK)

    def _lend(self, key: bytes) -> memoryview | None:
        """Return a view of the value, which holds its pin and our handle; None if absent."""
        value, size = ffi.new("uint8_t const * *"), ffi.new("size_t *")
        pin = ffi.new("struct pykv_pin **")
        status = self._calls.view(self._handle, key, len(key), value, size, pin)
        if status == NOT_FOUND:
            return None
        if status < 0:
            raise failure(status, [key])
        if size[0] == 0:
            lib.pykv_view_release(pin[0])
            return memoryview(b"")
        release = partial(_release, pin[0])
        return memoryview(ffi.buffer(ffi.gc(value[0], release), size[0])).toreadonly()


class StoreReader(Reader):
    """The reading half of a `Store`: the newest of everything, and the store's life and figures."""

    __slots__ = ("_closed", "_origin", "_path")

    def __init__(self, handle: Any, path: str, origin: tuple[Any, ...]) -> None:
        self._attach(handle, int(ffi.cast("uintptr_t", handle)))  # __del__ frees it
        self._calls = NEWEST
        self._rows = []
        self._path = path
        self._origin = origin  # what opens the store again, as __reduce__() has it
        self._closed = False

    def __len__(self) -> int:
        """Return the number of keys; expired ones count until they are removed, soon after."""
        count = ffi.new("uint64_t *")
        status = lib.pykv_count(self._handle, count)
        if status < 0:
            raise failure(status)
        return int(count[0])

    def _scan_place(self) -> tuple[Any, Any]:
        return self._handle, NULL

    def stats(self) -> Stats:
        """
        Return figures of the store at this moment.

        >>> db[b"k"] = b"v"
        >>> db.stats().keys
        1

        Source: `pykv_stats` in csrc/pykv.h.
        """
        stats = ffi.new("struct pykv_stats *")
        status = lib.pykv_stats(self._handle, stats)
        if status < 0:
            raise failure(status)
        return Stats._from_c(stats)

    def verify(self, progress: Callable[[int, int], None] | None = None) -> Report:
        """
        Read and verify every record on disk, and the keydir against them, while others write.

        Args:
            progress: Called each second with the bytes that are done, and those in all.
        Returns:
            What was read, and each damaged place by file and offset: damage is in the report,
            never an exception. After a repair what it left out is told as skipped.
        Raises:
            StorageError: A file could not be read.

        >>> db[b"k"] = b"v"
        >>> db.verify().ok
        True

        Cost: reads the whole log, with up to 8 threads. Source: `pykv_verify_step` in csrc/pykv.h.
        """
        opened, state = ffi.new("struct pykv_verification **"), ffi.new("struct pykv_progress *")
        status = lib.pykv_verify_open(self._handle, opened)
        if status < 0:
            raise failure(status)
        try:
            while status == OK:
                status = lib.pykv_verify_step(opened[0], state)
                if status < 0:
                    raise failure(status)
                if progress is not None:
                    progress(state.total - state.left, state.total)
            report = ffi.new("struct pykv_report *")
            return Report._from_c(report, lib.pykv_verify_report(opened[0], report))
        finally:
            lib.pykv_verify_close(opened[0])

    @property
    def path(self) -> str:
        """The directory of the store, as it was given to `pykv.open`."""
        return self._path

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def close(self) -> None:
        """
        Make what was written durable and close the store; repeating it does nothing.

        Calls of other threads that are under way are waited for; later ones raise `ClosedError`.
        Views stay valid.

        Raises:
            SyncFailedError: The last sync failed. The store is closed all the same.

        A store that is collected unclosed is closed then, with a `ResourceWarning`; what this would
        have raised goes to `sys.unraisablehook`.

        Source: `pykv_close` in csrc/pykv.h.
        """
        self._closed = True
        status = lib.pykv_close(self._handle)
        if status < 0:
            raise failure(status)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(  # globals may be gone by then
        self, close: Any = _close, free: Any = _free, null: Any = NULL, failure: Any = failure
    ) -> None:
        try:
            if not getattr(self, "_closed", True):
                warnings.warn(f"unclosed store {self!r}", ResourceWarning, 2, source=self)
        finally:
            # In a circle of garbage others may be finalized after us, and use us. To them we are
            # closed: a NULL handle says so in each call, and scans and views outlive the handle.
            handle = getattr(self, "_handle", null)
            self._attach(null, 0)
            self._closed = True
            status = close(handle)
            error = failure(status) if status < 0 else None
            free(handle)
            if error is not None:
                raise error  # Python hands it to sys.unraisablehook

    def __reduce__(self) -> Any:
        """Pickle as path and options: the copy is a handle of its own, opened where it arrives."""
        if self._closed:
            raise ClosedError(f"{self!r} can be neither copied nor pickled")
        return self._origin

    def __repr__(self) -> str:
        if self._closed:
            return f"<pykv.Store {self._path!r}, closed>"
        count = ffi.new("uint64_t *")
        if lib.pykv_count(self._handle, count) < 0:
            return f"<pykv.Store {self._path!r}>"
        return f"<pykv.Store {self._path!r}, keys: {count[0]:,}>"


def _release(pin: Any, _value: Any) -> None:
    lib.pykv_view_release(pin)
