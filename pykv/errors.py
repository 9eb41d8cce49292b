"""
errors.py -- what can go wrong, as exceptions.

Every failing status of csrc/pykv.h has one class here, under `Error`, and each is also the builtin
exception that a Python program would expect: a full disk is an `OSError` with `ENOSPC`, a closed
store a `ValueError`, as with files. Absence is no failure: `db[missing]` raises a plain `KeyError`.
"""

from __future__ import annotations

import errno as _errno
import io
import os
from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar

from pykv._core import ffi, lib


class Error(Exception):
    """
    Base of all failures of pykv.

    Attributes:
        status: The number in `enum pykv_status` of csrc/pykv.h; the same for all of a class.
        errno: Of the system call that failed, or that fits best; None if there is none.
        path: The file within the store, or the store's directory; None if none is concerned.
        offset: Bytes from the start of *path*, where that matters; else None.
    """

    status: ClassVar[int] = 0
    _errno_default: ClassVar[int | None] = None

    errno: int | None
    path: str | None
    offset: int | None

    def __init__(
        self,
        message: str = "",
        *,
        errno: int | None = None,
        path: str | None = None,
        offset: int | None = None,
    ) -> None:
        super().__init__(message)
        self.errno = self._errno_default if errno is None else errno
        self.path = path
        self.offset = offset

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the attributes when the exception travels to another process."""
        again = partial(type(self), str(self), errno=self.errno, path=self.path, offset=self.offset)
        return again, (), self.__dict__


class _SystemError(Error, OSError):
    """What the failures that are an OSError share: the attributes that one has besides."""

    def __init__(self, message: str = "", **details: Any) -> None:
        super().__init__(message, **details)
        self.strerror = message
        self.filename = self.path


class StorageError(_SystemError):
    """The system refused a call. *errno*, *path* and *offset* tell which."""

    status = lib.PYKV_IO
    _errno_default = _errno.EIO


class CorruptError(_SystemError):
    """Bytes on disk do not verify, at *offset* of *path*. Other records stay readable."""

    status = lib.PYKV_CORRUPT
    _errno_default = _errno.EBADMSG


class OutOfMemoryError(Error, MemoryError):
    """An allocation failed; nothing has changed."""

    status = lib.PYKV_NO_MEMORY
    _errno_default = _errno.ENOMEM


class StoreFullError(_SystemError):
    """The disk is full, or a quota or the store's own limit is reached; nothing has changed."""

    status = lib.PYKV_FULL
    _errno_default = _errno.ENOSPC


class InvalidError(Error, ValueError):
    """An argument is out of its range."""

    status = lib.PYKV_INVALID


class KeySizeError(InvalidError):
    """
    A key is longer than the format allows.

    Attributes:
        size: Bytes of the key.
    """

    def __init__(self, size: int | str = 0, **details: Any) -> None:
        if isinstance(size, int):
            self.size = size
            size = f"a key may have at most 65,535 bytes; this one has {size:,}"
        super().__init__(size, **details)


class ValueSizeError(InvalidError):
    """
    A value is longer than the format allows.

    Attributes:
        size: Bytes of the value.
    """

    def __init__(self, size: int | str = 0, **details: Any) -> None:
        if isinstance(size, int):
            self.size = size
            size = f"a value may have at most 4,294,967,295 bytes; this one has {size:,}"
        super().__init__(size, **details)


class BufferSizeError(InvalidError):
    """
    The buffer given to `Store.get_into` is smaller than the value; nothing was copied.

    Attributes:
        size: Bytes of the value: as many are needed.
    """

    size: int


class NotBytesError(Error, TypeError):
    """A key or value is no C-contiguous buffer. For a str, the message shows the remedy."""

    status = lib.PYKV_INVALID


class ClosedError(Error, ValueError):
    """The store, snapshot, batch or transaction was closed."""

    status = lib.PYKV_CLOSED


class ReadOnlyError(_SystemError, io.UnsupportedOperation):
    """The store was opened with flag "r"."""

    status = lib.PYKV_READ_ONLY
    _errno_default = _errno.EROFS


class NotAStoreError(_SystemError, NotADirectoryError):
    """The path is no directory, or holds files that are not pykv's; nothing was touched."""

    status = lib.PYKV_NOT_A_STORE
    _errno_default = _errno.ENOTDIR


class NewerFormatError(Error, NotImplementedError):
    """The store was written by a later release of pykv; nothing was touched."""

    status = lib.PYKV_NEWER_FORMAT


class MissingError(_SystemError, FileNotFoundError):
    """There is no store at the path, and the flag does not ask for a new one."""

    status = lib.PYKV_MISSING
    _errno_default = _errno.ENOENT


class SyncFailedError(_SystemError):
    """
    A sync failed, now or earlier, so what the disk holds is unknown.

    Writes are refused until the store is reopened; reads go on.
    """

    status = lib.PYKV_SYNC_FAILED
    _errno_default = _errno.EIO


class BusyError(_SystemError):
    """
    Somebody is in the way.

    Another machine uses the store; as many handles or snapshots are open as there can be; or what
    `Store.backup` would write to, or `repair` would read, is open.
    """

    status = lib.PYKV_BUSY
    _errno_default = _errno.EBUSY


class NotANumberError(Error, ValueError):
    """`Store.incr` met a value that is no decimal integer of 64 bits, or the sum is none."""

    status = lib.PYKV_NOT_A_NUMBER


class AccessError(_SystemError, PermissionError):
    """No permission for the directory or a file in it."""

    status = lib.PYKV_DENIED
    _errno_default = _errno.EACCES


class SnapshotLostError(Error, RuntimeError):
    """
    Keys were deleted or moved since the snapshot or iteration began, and it could not hold them.

    Only a process without permission to write to the store meets it, beside one that writes, or a
    forked one whose parent closed the snapshot in the moment of the fork. Begin anew, or open the
    store with permission to write.
    """

    status = lib.PYKV_SNAPSHOT_LOST


class ConflictError(Error, RuntimeError):
    """
    A precondition of a batch did not hold, or what a transaction read has changed.

    Nothing was written.

    Attributes:
        key: The key, or the prefix, of the first precondition that did not hold.
    """

    status = lib.PYKV_CONFLICT
    key: bytes


_BY_STATUS: dict[int, type[Error]] = {
    cls.status: cls
    for cls in (
        StorageError, CorruptError, OutOfMemoryError, StoreFullError, InvalidError, ClosedError,
        ReadOnlyError, NotAStoreError, NewerFormatError, MissingError, SyncFailedError, BusyError,
        NotANumberError, AccessError, SnapshotLostError,
    )
}  # fmt: skip


def failure(status: int, keys: Iterable[bytes] = ()) -> Error:
    """Return the exception for a call over *keys* that has just failed in this thread."""
    if status == lib.PYKV_INVALID:
        for key in keys:
            if len(key) > 65_535:
                return KeySizeError(len(key))
    cls = _BY_STATUS.get(status, Error)
    last = lib.pykv_last_error()
    if last.status != status:  # a destructor called the engine in between
        return cls(f"pykv failed with status {status}")
    return cls(
        ffi.string(last.message).decode("utf-8", "replace"),
        errno=last.os_errno or None,
        path=os.fsdecode(ffi.string(last.path)) or None,
        offset=last.offset if last.offset or cls is CorruptError else None,
    )
