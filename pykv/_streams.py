"""
_streams.py -- values as files, for those that are too large to be held in memory.

One that is read stays in the store, and each read takes the part that it needs, as of one snapshot.
One that is written gathers in a file without a name beside the store, and is put at the end, as any
value: mapped, so that it need not be in memory either.
"""

from __future__ import annotations

import errno
import io
import os
import warnings
from collections.abc import Callable
from functools import partial
from mmap import ACCESS_READ, mmap
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pykv._buffers import VALUE_SIZE_MAX, Buffer, durability, expiry_ms, key_bytes, writable_pointer
from pykv._core import ffi, lib
from pykv._reader import ABSENT, NULL
from pykv._snapshot import Snapshot
from pykv.errors import StoreFullError, ValueSizeError, failure

if TYPE_CHECKING:
    from pykv._store import Store

# Bytes: some chunks of 65,536. A read verifies whole ones, and the table of all their checksums.
BUFFER_SIZE = 262_144


def open_reader(store: Store, key: Buffer) -> io.BufferedReader:
    """Return the value of *key* at this instant as a file; KeyError if there is none."""
    key = key_bytes(key)
    return io.BufferedReader(_RawReader(store.snapshot(), key), BUFFER_SIZE)


class _RawReader(io.RawIOBase):
    """Reads parts of one value of a snapshot, which is its own."""

    def __init__(self, snapshot: Snapshot, key: bytes) -> None:
        self._snapshot = snapshot
        self._key = key
        self._position = 0
        size = ffi.new("uint64_t *")
        if self._get(NULL, 0, size) is None:
            self.close()
            raise KeyError(key)
        self._size = int(size[0])

    def _get(self, room: Any, capacity: int, value_size: Any) -> int | None:
        """Fill *room* from the position on; return how many bytes, None if there is no key."""
        key, handle = self._key, self._snapshot._handle
        size = lib.pykv_snapshot_get_range(
            handle, key, len(key), self._position, capacity, room, capacity, value_size
        )
        if size == ABSENT:
            return None
        if size < 0:
            raise failure(size + 1000, [key])
        return int(size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        with writable_pointer(buffer) as room:
            size = self._get(room, len(room), NULL) or 0
        self._position += size
        return size

    def readall(self) -> bytes:
        rest = self._snapshot.get(self._key, b"", offset=self._position)
        self._position += len(rest)
        return rest

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}
        if whence not in base:
            raise ValueError(f"whence is 0, 1 or 2, not {whence!r}")
        if base[whence] + offset < 0:
            raise ValueError(f"a position cannot be negative: {base[whence] + offset}")
        self._position = base[whence] + offset
        return self._position

    def close(self) -> None:
        self._snapshot.close()
        super().close()


def open_writer(store: Store, key: Buffer, ttl: float | None, durable: bool | None) -> ValueWriter:
    """Return a file that becomes the value of *key* when it is closed."""
    expiry_ms(ttl), durability(durable)  # what put() would refuse at the end is refused now
    put = partial(store.put, key_bytes(key), ttl=ttl, durable=durable)
    scratch = ffi.new("int *")
    status = lib.pykv_scratch(store._handle, scratch)
    if status < 0:
        raise failure(status)
    return ValueWriter(_Scratch(scratch[0], "w+b"), put)


class _Scratch(io.FileIO):
    """The file without a name. It refuses what would be refused at the end."""

    def write(self, data: Buffer) -> int:
        size = self.tell() + memoryview(data).nbytes
        if size > VALUE_SIZE_MAX:
            raise ValueSizeError(size)
        try:
            return super().write(data)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoreFullError(str(error), errno=error.errno) from None
            raise


class ValueWriter(io.BufferedWriter):
    """
    A file that becomes a value when it is closed. Made by `Store.open_value`.

    Until then nobody sees anything of it. If a `with` block raises, if it is dropped unclosed (with
    a `ResourceWarning`), or if the process dies, the key stays as it was.
    """

    def __init__(self, raw: _Scratch, put: Callable[[Buffer], None]) -> None:
        super().__init__(raw, BUFFER_SIZE)
        self._put = put

    def close(self) -> None:
        """
        Store what was written as the value, in one step; repeating it does nothing.

        Raises:
            As `Store.put`; what was written is dropped then.
        """
        if self.closed:
            return
        try:
            self.flush()
            size = self.seek(0, os.SEEK_END)
            self._put(mmap(self.fileno(), size, access=ACCESS_READ) if size else b"")
        finally:
            self.discard()

    def discard(self) -> None:
        """Drop what was written, and leave the key as it was; later calls raise ValueError."""
        self.raw.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.discard()
        self.close()

    def __del__(self, warn: Any = warnings.warn) -> None:
        if not self.closed:
            self.discard()
            warn(f"dropped an unclosed value writer {self!r}", ResourceWarning, 2, source=self)
