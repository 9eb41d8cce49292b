"""
_snapshot.py -- one instant of a store, as a mapping that does not change.

A snapshot reads as the store does (_reader.py), through calls of the engine that take an instant
in place of the present. Its handle is closed by close() and freed when it is collected, so that
threads may share it: one that reads while another closes gets an exception.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from pykv._buffers import Buffer, as_bytes
from pykv._core import ffi, lib
from pykv._reader import ABSENT, Calls, Reader, _new_room
from pykv.errors import ClosedError, failure

if TYPE_CHECKING:
    from pykv._store import Store

T = TypeVar("T")

AT_SNAPSHOT = Calls(
    lib.pykv_snapshot_get,
    lib.pykv_snapshot_get_range,
    lib.pykv_snapshot_contains,
    lib.pykv_snapshot_view,
    lib.pykv_snapshot_get_many,
    lib.pykv_snapshot_contains_many,
)

_open = lib.pykv_snapshot_open
_close = lib.pykv_snapshot_close
_get_value = lib.pykv_snapshot_get_value


def open_snapshot(store: Store) -> Any:
    """Return the handle of a snapshot of this instant, which is freed when it is collected."""
    opened = ffi.new("struct pykv_snapshot **")
    status = _open(store._handle, opened)
    if status < 0:
        raise failure(status)
    return ffi.gc(opened[0], lib.pykv_snapshot_free)


class Snapshot(Reader, Mapping[bytes, bytes]):
    """
    One instant of a store: a read-only `Mapping[bytes, bytes]`. Made by `Store.snapshot`.

    All its methods read what the store held when it was taken, whatever is written meanwhile, by
    any process; keys that had expired by then are absent, and others stay. Any number of threads
    may share it. It is released by `close`, by the end of a `with` block, when it is collected, and
    when its process ends. Until then the store keeps what it needs: see `Stats.snapshots`. After a
    `fork` both processes have it, and each releases its own.

    >>> db[b"k"] = b"then"
    >>> with db.snapshot() as snapshot:
    ...     db[b"k"] = b"now"
    ...     snapshot[b"k"], db[b"k"]
    (b'then', b'now')

    Source: `pykv_snapshot_open` in csrc/pykv.h; docs/design.md.
    """

    __slots__ = ("_store",)

    def __init__(self, store: Store, handle: Any) -> None:
        self._handle = handle
        self._store = store  # which so stays open as long as we are
        self._calls = AT_SNAPSHOT
        self._rooms = store._rooms
        self._rows = store._rows

    # The gets are written out, as a name of the module is found faster than an attribute.

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
        """Return the value that *key* had, or a part of it, or *default*. See `Store.get`."""
        if offset is not None or length is not None:
            return self._get_part(key, default, offset, length)
        if type(key) is not bytes:
            key = as_bytes(key, "key")
        rooms = self._rooms
        try:
            room = rooms.pop()
        except IndexError:
            room = _new_room(self._store._handle)
        pointer, content = room
        size = _get_value(self._handle, pointer, key, len(key))
        if size >= 0:
            value = content[:size]
            rooms.append(room)
            return value
        rooms.append(room)
        if size == ABSENT:
            return default
        return self._get_rarely(key, size, default)

    def __getitem__(self, key: Buffer) -> bytes:
        """Return the value that *key* had; KeyError if it was absent."""
        if type(key) is not bytes:
            key = as_bytes(key, "key")
        rooms = self._rooms
        try:
            room = rooms.pop()
        except IndexError:
            room = _new_room(self._store._handle)
        pointer, content = room
        size = _get_value(self._handle, pointer, key, len(key))
        if size >= 0:
            value: bytes = content[:size]
            rooms.append(room)
            return value
        rooms.append(room)
        found: bytes | None = self._get_rarely(key, size, None)
        if found is None:
            raise KeyError(key)
        return found

    def __len__(self) -> int:
        """Return the number of keys; of those that had expired, some may count."""
        if self.closed:
            raise ClosedError("the snapshot is closed")
        return int(self._instant().keys)

    def _scan_place(self) -> tuple[Any, Any]:
        return self._store._handle, self._handle

    def _instant(self) -> Any:
        """Return a struct pykv_instant."""
        instant = ffi.new("struct pykv_instant *")
        lib.pykv_snapshot_instant(self._handle, instant)
        return instant

    @property
    def version(self) -> int:
        """The version of the newest batch that the snapshot sees; 0 in a store never written to."""
        return int(self._instant().version)

    @property
    def closed(self) -> bool:
        """Whether the snapshot, or its store, was closed."""
        return lib.pykv_snapshot_closed(self._handle) != 0

    def close(self) -> None:
        """
        Let go of the instant; repeating it does nothing. Later calls raise `ClosedError`.

        Iterations that have begun go on, and views stay valid.

        Source: `pykv_snapshot_close` in csrc/pykv.h.
        """
        _close(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _close(self._handle)

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} can be neither copied nor pickled")

    def __repr__(self) -> str:
        state = ", closed" if self.closed else f", keys: {len(self):,}"
        return f"<pykv.Snapshot of {self._store.path!r}, version: {self.version}{state}>"
