"""
_snapshot.py -- one instant of a store, as a mapping that does not change.

A snapshot reads as the store does (_reader.py), through calls of the engine that take an instant
in place of the present. Its handle is closed by close() and freed when it is collected, so that
threads may share it: one that reads while another closes gets an exception.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pykv._core import ffi, lib
from pykv._reader import Calls, Reader
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

    __slots__ = ("_cffi", "_store")

    def __init__(self, store: Store) -> None:
        if status := self._take(store._address):
            raise failure(status)
        self._calls = AT_SNAPSHOT
        self._rows = store._rows
        self._store: Any = store  # which so stays open as long as we are
        self._cffi: Any = None

    @property
    def _handle(self) -> Any:
        """What the calls of the engine take for us: made at its first use, and ours to free."""
        if self._cffi is None:
            self._cffi = ffi.cast("struct pykv_snapshot *", self._address)
        return self._cffi

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
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._release()

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} can be neither copied nor pickled")

    def __repr__(self) -> str:
        state = ", closed" if self.closed else f", keys: {len(self):,}"
        return f"<pykv.Snapshot of {self._store.path!r}, version: {self.version}{state}>"
