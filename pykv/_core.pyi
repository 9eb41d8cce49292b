"""_core.pyi -- the compiled module, as far as pykv uses it. Comments on the calls: csrc/pykv.h."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from typing_extensions import Buffer

_Pointer: TypeAlias = Any  # a cffi pointer or array
_Bytes: TypeAlias = Any  # bytes, or such a pointer

class Reads:
    """What is read a million times a second: see _module.c."""

    @property
    def _handle(self) -> Any: ...
    @property
    def _address(self) -> int: ...
    def _attach(self, handle: Any, address: int, /) -> None: ...
    def _take(self, address: int, /) -> int: ...
    def _release(self) -> None: ...
    def _get(self, key: Buffer, default: Any, /) -> Any: ...
    def __getitem__(self, key: Buffer, /) -> bytes: ...
    def __contains__(self, key: object, /) -> bool: ...

class Writes(Reads):
    """`Reads`, and what is written as often."""

    def _put(self, key: Buffer, value: Buffer, /) -> None: ...
    def __setitem__(self, key: Buffer, value: Buffer, /) -> None: ...
    def __delitem__(self, key: Buffer, /) -> None: ...

def column(items: Sequence[Buffer], /) -> tuple[bytes, bytes] | None: ...

class _FFI:
    NULL: _Pointer
    def new(self, declaration: str, init: object = ..., /) -> Any: ...
    def cast(self, declaration: str, value: object, /) -> Any: ...
    def new_allocator(self, *, should_clear_after_alloc: bool) -> Callable[[str, int], Any]: ...
    def gc(self, pointer: _Pointer, destructor: Callable[[Any], None], /) -> Any: ...
    def buffer(self, pointer: _Pointer, size: int = ..., /) -> Any: ...
    def from_buffer(
        self, declaration: str, buffer: Buffer, /, *, require_writable: bool = ...
    ) -> Any: ...
    def string(self, pointer: _Pointer, /) -> bytes: ...
    def unpack(self, pointer: _Pointer, count: int, /) -> Any: ...

class _Lib:
    PYKV_OK: int
    PYKV_NOT_FOUND: int
    PYKV_CONFLICT: int
    PYKV_IO: int
    PYKV_CORRUPT: int
    PYKV_NO_MEMORY: int
    PYKV_FULL: int
    PYKV_INVALID: int
    PYKV_CLOSED: int
    PYKV_READ_ONLY: int
    PYKV_NOT_A_STORE: int
    PYKV_NEWER_FORMAT: int
    PYKV_MISSING: int
    PYKV_SYNC_FAILED: int
    PYKV_BUSY: int
    PYKV_NOT_A_NUMBER: int
    PYKV_DENIED: int
    PYKV_REPAIR_NOT: int
    PYKV_REPAIR_IN_PLACE: int
    PYKV_REPAIR_ASIDE: int
    PYKV_BACKUP_COPY: int
    PYKV_BACKUP_RESTORE: int
    PYKV_SNAPSHOT_LOST: int

    PYKV_DURABILITY_PROCESS: int
    PYKV_DURABILITY_INTERVAL: int
    PYKV_DURABILITY_COMMIT: int
    PYKV_DURABILITY_DEFAULT: int

    PYKV_FLAG_READ: int
    PYKV_FLAG_WRITE: int
    PYKV_FLAG_CREATE: int
    PYKV_FLAG_NEW: int

    PYKV_IO_MMAP: int
    PYKV_IO_PREAD: int

    PYKV_PUT: int
    PYKV_DELETE: int
    PYKV_EXPECT_PRESENT: int
    PYKV_EXPECT_ABSENT: int
    PYKV_EXPECT_VALUE: int
    PYKV_EXPECT_VERSION: int
    PYKV_EXPECT_UNCHANGED: int
    PYKV_EXPECT_PREFIX_UNCHANGED: int

    def pykv_last_error(self) -> Any: ...
    def pykv_version_string(self) -> _Pointer: ...
    def pykv_open(self, path: bytes, options: _Pointer, out: _Pointer, /) -> int: ...
    def pykv_close(self, store: _Pointer, /) -> int: ...
    def pykv_free(self, store: _Pointer, /) -> None: ...
    def pykv_get(
        self,
        store: _Pointer,
        key: bytes,
        key_size: int,
        buffer: _Pointer,
        capacity: int,
        version: _Pointer,
        /,
    ) -> int: ...
    def pykv_get_range(
        self,
        store: _Pointer,
        key: bytes,
        key_size: int,
        offset: int,
        length: int,
        buffer: _Pointer,
        capacity: int,
        value_size: _Pointer,
        /,
    ) -> int: ...
    def pykv_contains(
        self, store: _Pointer, key: bytes, key_size: int, expiry_ms: _Pointer, /
    ) -> int: ...
    def pykv_view(
        self,
        store: _Pointer,
        key: bytes,
        key_size: int,
        value: _Pointer,
        value_size: _Pointer,
        pin: _Pointer,
        /,
    ) -> int: ...
    def pykv_view_release(self, pin: _Pointer, /) -> None: ...
    def pykv_rows_new(self) -> _Pointer: ...
    def pykv_rows_free(self, rows: _Pointer, /) -> None: ...
    def pykv_rows_data(self, rows: _Pointer, size: _Pointer, /) -> _Pointer: ...
    def pykv_rows_format(self, rows: _Pointer, size: _Pointer, /) -> _Pointer: ...
    def pykv_rows_missing(self, rows: _Pointer, count: _Pointer, /) -> _Pointer: ...
    def pykv_rows_count(self, rows: _Pointer, /) -> int: ...
    def pykv_get_many(
        self,
        store: _Pointer,
        count: int,
        keys: bytes,
        key_sizes: _Pointer | Sequence[int],
        rows: _Pointer,
        /,
    ) -> int: ...
    def pykv_contains_many(
        self,
        store: _Pointer,
        count: int,
        keys: bytes,
        key_sizes: _Pointer | Sequence[int],
        present: _Pointer,
        /,
    ) -> int: ...
    def pykv_scan_open(
        self,
        store: _Pointer,
        snapshot: _Pointer,
        prefix: bytes,
        prefix_size: int,
        mode: int,
        out: _Pointer,
        /,
    ) -> int: ...
    def pykv_scan_next(self, scan: _Pointer, rows: _Pointer, /) -> int: ...
    def pykv_scan_close(self, scan: _Pointer, /) -> None: ...
    def pykv_snapshot_open(self, store: _Pointer, out: _Pointer, /) -> int: ...
    def pykv_snapshot_renew(self, snapshot: _Pointer, /) -> int: ...
    def pykv_snapshot_close(self, snapshot: _Pointer, /) -> None: ...
    def pykv_snapshot_closed(self, snapshot: _Pointer, /) -> int: ...
    def pykv_snapshot_young(self, snapshot: _Pointer, /) -> int: ...
    def pykv_snapshot_free(self, snapshot: _Pointer, /) -> None: ...
    def pykv_snapshot_instant(self, snapshot: _Pointer, out: _Pointer, /) -> None: ...
    def pykv_snapshot_get(
        self,
        snapshot: _Pointer,
        key: bytes,
        key_size: int,
        buffer: _Pointer,
        capacity: int,
        version: _Pointer,
        /,
    ) -> int: ...
    def pykv_snapshot_get_range(
        self,
        snapshot: _Pointer,
        key: bytes,
        key_size: int,
        offset: int,
        length: int,
        buffer: _Pointer,
        capacity: int,
        value_size: _Pointer,
        /,
    ) -> int: ...
    def pykv_snapshot_contains(
        self, snapshot: _Pointer, key: bytes, key_size: int, expiry_ms: _Pointer, /
    ) -> int: ...
    def pykv_snapshot_view(
        self,
        snapshot: _Pointer,
        key: bytes,
        key_size: int,
        value: _Pointer,
        value_size: _Pointer,
        pin: _Pointer,
        /,
    ) -> int: ...
    def pykv_snapshot_get_many(
        self,
        snapshot: _Pointer,
        count: int,
        keys: bytes,
        key_sizes: _Pointer | Sequence[int],
        rows: _Pointer,
        /,
    ) -> int: ...
    def pykv_snapshot_contains_many(
        self,
        snapshot: _Pointer,
        count: int,
        keys: bytes,
        key_sizes: _Pointer | Sequence[int],
        present: _Pointer,
        /,
    ) -> int: ...
    def pykv_put(
        self,
        store: _Pointer,
        key: bytes,
        key_size: int,
        value: _Bytes,
        value_size: int,
        expiry_ms: int,
        durability: int,
        version: _Pointer,
        /,
    ) -> int: ...
    def pykv_put_at_once(
        self, store: _Pointer, key: bytes, key_size: int, value: _Bytes, value_size: int, /
    ) -> int: ...
    def pykv_scratch(self, store: _Pointer, fd: _Pointer, /) -> int: ...
    def pykv_delete(
        self, store: _Pointer, key: bytes, key_size: int, durability: int, /
    ) -> int: ...
    def pykv_write(
        self,
        store: _Pointer,
        count: int,
        ops: _Bytes,
        keys: bytes,
        key_sizes: _Pointer | Sequence[int],
        values: _Bytes,
        value_sizes: _Pointer | Sequence[int],
        numbers: _Pointer | Sequence[int],
        durability: int,
        failed: _Pointer,
        deleted: _Pointer,
        version: _Pointer,
        /,
    ) -> int: ...
    def pykv_load(
        self,
        store: _Pointer,
        version: int,
        count: int,
        keys: bytes,
        key_sizes: _Pointer | Sequence[int],
        values: bytes,
        value_sizes: _Pointer | Sequence[int],
        expiries: _Pointer | Sequence[int],
        durability: int,
        /,
    ) -> int: ...
    def pykv_snapshot_commit(
        self,
        snapshot: _Pointer,
        expect_count: int,
        write_count: int,
        ops: bytes,
        fields: bytes,
        sizes: bytes,
        expiries: _Pointer | Sequence[int],
        durability: int,
        /,
    ) -> int: ...
    def pykv_incr(
        self,
        store: _Pointer,
        key: bytes,
        key_size: int,
        by: int,
        set_expiry: int,
        expiry_ms: int,
        durability: int,
        sum: _Pointer,
        /,
    ) -> int: ...
    def pykv_expire(
        self,
        store: _Pointer,
        key: bytes,
        key_size: int,
        expiry_ms: int,
        later: int,
        durability: int,
        /,
    ) -> int: ...
    def pykv_sync(self, store: _Pointer, /) -> int: ...
    def pykv_clear(self, store: _Pointer, durability: int, /) -> int: ...
    def pykv_compact(self, store: _Pointer, progress: _Pointer, /) -> int: ...
    def pykv_compaction_pause(self, store: _Pointer, on: int, /) -> int: ...
    def pykv_stats(self, store: _Pointer, out: _Pointer, /) -> int: ...
    def pykv_count(self, store: _Pointer, out: _Pointer, /) -> int: ...
    def pykv_verify(self, store: _Pointer, out: _Pointer, /) -> int: ...
    def pykv_verify_open(self, store: _Pointer, out: _Pointer, /) -> int: ...
    def pykv_verify_step(self, verification: _Pointer, out: _Pointer, /) -> int: ...
    def pykv_verify_report(self, verification: _Pointer, out: _Pointer, /) -> _Pointer: ...
    def pykv_verify_close(self, verification: _Pointer, /) -> None: ...
    def pykv_damage_met(self, store: _Pointer, out: _Pointer, count: _Pointer, /) -> int: ...
    def pykv_backup_open(
        self, store: _Pointer, path: bytes, flags: int, out: _Pointer, /
    ) -> int: ...
    def pykv_backup_step(self, backup: _Pointer, out: _Pointer, /) -> int: ...
    def pykv_backup_close(self, backup: _Pointer, /) -> None: ...

ffi: _FFI
lib: _Lib
