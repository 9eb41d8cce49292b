"""
_store.py -- the store as a dict that stays: everything that writes.

Every write is a batch, and each method here is one of them: applied wholly or not at all, to other
threads, other processes, and after a crash. See _reader.py for the reading half.
"""

from __future__ import annotations

import io
import os
import random
import time
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, overload

from pykv._batch import (
    DELETE,
    EXPECT_ABSENT,
    EXPECT_VALUE,
    EXPECT_VERSION,
    PUT,
    Batch,
    Written,
)
from pykv._buffers import (
    Buffer,
    Pairs,
    addend,
    as_bytes,
    column,
    durability,
    expiry_ms,
    life_ms,
    pairs_of,
    value_pointer,
)
from pykv._core import Writes, ffi, lib
from pykv._reader import NULL, OK, StoreReader
from pykv._snapshot import Snapshot
from pykv._streams import ValueWriter, open_reader, open_writer
from pykv._transaction import Transaction
from pykv._views import SCAN_KEYS
from pykv.errors import ConflictError, InvalidError, failure

if TYPE_CHECKING:
    from pykv._backup import Backup

T = TypeVar("T")

DURABILITY_DEFAULT = lib.PYKV_DURABILITY_DEFAULT
CONFLICT = lib.PYKV_CONFLICT
PAUSE_FIRST, PAUSE_MAX = 0.001, 0.1  # seconds, at most, before a transaction is tried again
MISSING: Any = object()

_put = lib.pykv_put
_delete = lib.pykv_delete


class Store(StoreReader, Writes, MutableMapping[bytes, bytes]):
    """
    An open store: a `MutableMapping[bytes, bytes]` on disk. Made by `pykv.open`.

    Keys and values are any C-contiguous buffers (bytes, bytearray, memoryview, array...) on the way
    in, and bytes on the way out; a str is refused. Any number of threads share one store, and any
    number of processes one directory. Use it as a context manager, or call `close`. Pickled, to be
    sent to another process, it is opened there by its path and options.

    In the examples, *db* is an open and empty store.
    """

    __slots__ = ("_idle", "_popped")

    def __init__(self, handle: Any, path: str, origin: tuple[Any, ...]) -> None:
        super().__init__(handle, path, origin)
        self._popped: list[bytes] = []  # keys that popitem() will try next
        self._idle: list[Any] = []  # snapshots that transactions are through with

    # ---- One key ----

    def put(
        self, key: Buffer, value: Buffer, *, ttl: float | None = None, durable: bool | None = None
    ) -> None:
        """
        Store *value* under *key*, in place of what was there.

        Args:
            key: 0 to 65,535 bytes.
            value: 0 to 4,294,967,295 bytes.
            ttl: Seconds from now after which the key is gone; None: never.
            durable: True: return when the write survives a power cut; False: when it survives
                the death of every process; None: as the store was opened.
        Raises:
            KeySizeError: *key* is too long.
            StoreFullError: The disk or the limit of the store is reached.
            ReadOnlyError: The store was opened with flag "r".
            SyncFailedError: A sync failed; writes are refused until the store is reopened.

        >>> db.put(b"session", b"token", ttl=3600)
        >>> db[b"session"]
        b'token'

        Cost: one append to the log, one slot. Source: `pykv_put` in csrc/pykv.h.
        """
        if ttl is None and durable is None:
            self._put(key, value)  # in C: _module.c
        else:
            self._put_rarely(key, value, ttl, durable)

    def delete(self, key: Buffer) -> bool:
        """
        Remove *key*, if it is there.

        Args:
            key: 0 to 65,535 bytes.
        Returns:
            Whether it was present.
        Raises:
            ReadOnlyError, SyncFailedError, StoreFullError: As with `put`.

        >>> db[b"k"] = b"v"
        >>> db.delete(b"k"), db.delete(b"k")
        (True, False)

        Source: `pykv_delete` in csrc/pykv.h.
        """
        key = as_bytes(key, "key")
        status = _delete(self._handle, key, len(key), DURABILITY_DEFAULT)
        if status < 0:
            raise failure(status, [key])
        return bool(status == OK)

    def put_if_absent(self, key: Buffer, value: Buffer) -> bool:
        """
        Store *value* under *key* unless the key is present, in one step.

        Args:
            key: 0 to 65,535 bytes.
            value: 0 to 4,294,967,295 bytes.
        Returns:
            Whether it was stored. Of any number of threads and processes that try, one succeeds.
        Raises:
            As `put`.

        >>> db.put_if_absent(b"lock", b"me"), db.put_if_absent(b"lock", b"you")
        (True, False)

        Source: `pykv_write` in csrc/pykv.h.
        """
        key, value = as_bytes(key, "key"), as_bytes(value, "value")
        return self._write([EXPECT_ABSENT, PUT], [key, key], [b"", value]).applied

    def compare_and_set(self, key: Buffer, expected: Buffer | None, new: Buffer | None) -> bool:
        """
        Store *new* under *key* if its value is *expected*, in one step.

        Args:
            key: 0 to 65,535 bytes.
            expected: The value that must be there; None: the key must be absent.
            new: The value to store; None: remove the key.
        Returns:
            Whether the value was as expected, and so is now *new*.
        Raises:
            As `put`.

        >>> db.compare_and_set(b"state", None, b"begun")
        True
        >>> db.compare_and_set(b"state", b"begun", b"done")
        True
        >>> db.compare_and_set(b"state", b"begun", None)
        False

        Source: `pykv_write` in csrc/pykv.h.
        """
        key = as_bytes(key, "key")
        ops = [
            EXPECT_ABSENT if expected is None else EXPECT_VALUE,
            DELETE if new is None else PUT,
        ]
        values = [
            b"" if expected is None else as_bytes(expected, "value"),
            b"" if new is None else as_bytes(new, "value"),
        ]
        return self._write(ops, [key, key], values).applied

    def incr(self, key: Buffer, by: int = 1, *, ttl: float | None = None) -> int:
        """
        Add *by* to the counter under *key*, in one step; an absent one counts as 0.

        Args:
            key: 0 to 65,535 bytes.
            by: Between -2**63 and 2**63 - 1.
            ttl: Seconds from now after which the key is gone; None: as it was.
        Returns:
            The sum, which is stored as decimal text: b"-12".
        Raises:
            NotANumberError: The value is no decimal text of a 64-bit integer, or the sum does
                not fit. The value is left as it was.
            As `put`.

        >>> db.incr(b"visits"), db.incr(b"visits", 9)
        (1, 10)
        >>> db[b"visits"]
        b'10'

        Source: `pykv_incr` in csrc/pykv.h.
        """
        key = as_bytes(key, "key")
        by = addend(by)
        total = ffi.new("int64_t *")
        status = lib.pykv_incr(
            self._handle,
            key,
            len(key),
            by,
            ttl is not None,
            expiry_ms(ttl),
            DURABILITY_DEFAULT,
            total,
        )
        if status < 0:
            raise failure(status, [key])
        return int(total[0])

    def expire(self, key: Buffer, ttl: float) -> bool:
        """
        Let *key* expire *ttl* seconds from now, whether it would have sooner, later or never.

        Args:
            key: 0 to 65,535 bytes.
            ttl: Seconds, more than 0.
        Returns:
            Whether *key* is present; if not, nothing is written.
        Raises:
            As `put`.

        >>> db[b"session"] = b"token"
        >>> db.expire(b"session", 60), db.expire(b"absent", 60)
        (True, False)
        >>> db.ttl(b"session") <= 60
        True

        One step: of others who write the key at the same time, none is lost. Cost: the record is
        written anew, value and all. Source: `pykv_expire` in csrc/pykv.h.
        """
        return self._expire(key, life_ms(ttl), 0)

    def touch(self, key: Buffer, ttl: float) -> bool:
        """
        Keep *key* for *ttl* seconds from now at least: like `expire`, but never to an earlier time.

        What never expires stays so. Of several who touch a key at once the longest time counts.

        Args:
            key: 0 to 65,535 bytes.
            ttl: Seconds, more than 0.
        Returns:
            Whether *key* is present.
        Raises:
            As `put`.

        >>> db.put(b"session", b"token", ttl=60)
        >>> db.touch(b"session", 3600), db.touch(b"session", 5)
        (True, True)
        >>> db.ttl(b"session") > 3000
        True

        Cost: as `expire`; nothing is written where the key is kept as long anyway. Source:
        `pykv_expire` in csrc/pykv.h.
        """
        return self._expire(key, life_ms(ttl), 1)

    def persist(self, key: Buffer) -> bool:
        """
        Let *key* never expire.

        Args:
            key: 0 to 65,535 bytes.
        Returns:
            Whether *key* is present.
        Raises:
            As `put`.

        >>> db.put(b"draft", b"text", ttl=60)
        >>> db.persist(b"draft"), db.persist(b"absent")
        (True, False)
        >>> db.ttl(b"draft") is None
        True

        Cost: as `expire`; nothing is written where the key does not expire. Source: `pykv_expire`
        in csrc/pykv.h.
        """
        return self._expire(key, 0, 0)

    def _expire(self, key: Buffer, expiry: int, later: int) -> bool:
        key = as_bytes(key, "key")
        status = lib.pykv_expire(self._handle, key, len(key), expiry, later, DURABILITY_DEFAULT)
        if status < 0:
            raise failure(status, [key])
        return bool(status == OK)

    # ---- Large values ----

    @overload
    def open_value(self, key: Buffer, mode: Literal["rb"] = "rb") -> io.BufferedReader: ...
    @overload
    def open_value(
        self,
        key: Buffer,
        mode: Literal["wb"],
        *,
        ttl: float | None = None,
        durable: bool | None = None,
    ) -> ValueWriter: ...
    def open_value(
        self,
        key: Buffer,
        mode: str = "rb",
        *,
        ttl: float | None = None,
        durable: bool | None = None,
    ) -> io.BufferedReader | ValueWriter:
        """
        Open the value of *key* as a binary file, so that it need not fit into memory.

        Args:
            key: 0 to 65,535 bytes.
            mode: "rb": read the value that is there now, whatever is written meanwhile; the file
                holds a snapshot, and its end lets go of it. "wb": write a value, which takes the
                place of what was there when the file is closed, in one step; if its `with` block
                raises, or it is never closed, nothing happens.
            ttl: As with `put`, counted from the end; with "wb" alone.
            durable: As with `put`; with "wb" alone.
        Returns:
            A file that can seek.
        Raises:
            KeyError: *key* is absent, with "rb".
            ValueSizeError: More than 4,294,967,295 bytes were written, when they are.
            As `put`, at the end.

        >>> with db.open_value(b"k", "wb") as file:
        ...     for word in ("one", "two"):
        ...         size = file.write(word.encode())
        >>> with db.open_value(b"k") as file:
        ...     file.seek(3), file.read()
        (3, b'two')

        Cost: what is written goes to a file without a name in the store's directory first, and is
        copied from there at the end: other writers wait for that. Source: `pykv_get_range`,
        `pykv_scratch` in csrc/pykv.h.
        """
        if mode == "wb":
            return open_writer(self, key, ttl, durable)
        if mode != "rb" or ttl is not None or durable is not None:
            raise InvalidError(f"mode is 'rb', or 'wb' with ttl and durable, not {mode!r}")
        return open_reader(self, key)

    # ---- Many keys ----

    def put_many(
        self, pairs: Pairs, *, ttl: float | None = None, durable: bool | None = None
    ) -> None:
        """
        Store many pairs as one batch: all or nothing, and several times faster than one by one.

        Args:
            pairs: A mapping, or an iterable of pairs (key, value). Of equal keys the last wins.
            ttl: Seconds from now after which the keys are gone; None: never.
            durable: As with `put`.
        Raises:
            As `put`.

        >>> db.put_many({b"a": b"1", b"b": b"2"})
        >>> db.put_many((b"%d" % n, b"x" * n) for n in range(3))
        >>> sorted(db)
        [b'0', b'1', b'2', b'a', b'b']

        Cost: the pairs are joined in memory first. Source: `pykv_write` in csrc/pykv.h.
        """
        items = pairs_of(pairs)
        keys, values = [key for key, _ in items], [value for _, value in items]
        numbers = None if ttl is None else [expiry_ms(ttl)] * len(keys)
        self._write(None, keys, values, numbers, durability(durable))

    def delete_many(self, keys: Iterable[Buffer]) -> int:
        """
        Remove many keys as one batch.

        Args:
            keys: Each 0 to 65,535 bytes; absent ones are no error.
        Returns:
            The number of keys that were present.
        Raises:
            As `delete`.

        >>> db.put_many({b"a": b"1", b"b": b"2"})
        >>> db.delete_many([b"a", b"b", b"absent"])
        2

        Source: `pykv_write` in csrc/pykv.h.
        """
        keys = list(keys)
        return self._write([DELETE] * len(keys), keys).deleted

    def batch(self, durable: bool | None = None) -> Batch:
        """
        Begin a batch: any number of writes and preconditions, applied wholly or not at all.

        Args:
            durable: As with `put`.
        Returns:
            A `Batch`, to be used with `with`: it is applied at the end of the block, and dropped
            if the block raises.
        Raises:
            ConflictError: At the end of the block: a precondition did not hold, and nothing was
                written. Carries *key*.
            As `put`, at the end of the block.

        >>> with db.batch() as batch:
        ...     batch[b"from"] = b"90"
        ...     batch[b"to"] = b"10"

        Source: `pykv_write` in csrc/pykv.h.
        """
        return Batch(self._write, durability(durable))

    # ---- One instant; reads and writes as one ----

    def snapshot(self) -> Snapshot:
        """
        Take a snapshot: this instant, as a read-only mapping that does not change.

        Returns:
            A `Snapshot`, with all that reads here. Close it, use it with `with`, or drop it.
        Raises:
            BusyError: 1,024 snapshots and iterations are open, in all processes together.

        >>> db[b"k"] = b"then"
        >>> with db.snapshot() as snapshot:
        ...     db.clear()
        ...     dict(snapshot), dict(db)
        ({b'k': b'then'}, {})

        Cost: O(1), whatever the size of the store; writers do not wait. Of a key that was written
        n times since, a read takes n steps back. Source: `pykv_snapshot_open` in csrc/pykv.h.
        """
        return Snapshot(self)

    def transaction(self, durable: bool | None = None) -> Transaction:
        """
        Begin a transaction: reads of this instant, and writes that are applied if they still hold.

        Args:
            durable: As with `put`.
        Returns:
            A `Transaction`, to be used with `with`: it is committed at the end of the block, and
            dropped if the block raises. See `transact` for one that is tried again.
        Raises:
            ConflictError: At the end of the block: something that it read has changed since, and
                nothing was written. Carries *key*.
            As `put`, at the end of the block, if there is something to write.

        >>> db[b"n"] = b"1"
        >>> with db.transaction() as t:
        ...     t[b"n"] = b"%d" % (int(t[b"n"]) + 1)
        >>> db[b"n"]
        b'2'

        Cost: that of a snapshot, and of a batch with a precondition for each key that was read. For
        prefixes that were iterated, the log written since is looked through. Source:
        `pykv_snapshot_commit` in csrc/pykv.h.
        """
        return Transaction(self, durability(durable))

    def transact(
        self,
        function: Callable[[Transaction], T],
        *,
        retries: int = 10,
        durable: bool | None = None,
    ) -> T:
        """
        Call *function* with a transaction, commit it, and try again while others come between.

        Args:
            function: Called with a `Transaction`, once or more often: it should do nothing that
                cannot be done again.
            retries: How often it is called again after a conflict, with a pause of random length
                that doubles from 1 ms up to 100 ms.
            durable: As with `put`.
        Returns:
            What *function* returned in the transaction that was committed.
        Raises:
            ConflictError: There was a conflict each time; the last one.
            As *function*, whose writes are then dropped, and as `put`.

        >>> def move(t):
        ...     t[b"new"] = t.pop(b"old")
        ...     return len(t[b"new"])
        >>> db[b"old"] = b"value"
        >>> db.transact(move)
        5

        Source: `pykv_snapshot_commit` in csrc/pykv.h.
        """
        pause = PAUSE_FIRST
        for attempt in range(retries + 1):
            try:
                with self.transaction(durable) as transaction:
                    return function(transaction)  # once the block has committed
            except ConflictError:
                if attempt == retries:
                    raise
            time.sleep(random.uniform(0, pause))
            pause = min(PAUSE_MAX, 2 * pause)
        raise InvalidError(f"retries is a number from 0 on, not {retries}")

    # ---- The rest of a dict ----

    @overload
    def pop(self, key: Buffer) -> bytes: ...
    @overload
    def pop(self, key: Buffer, default: T) -> bytes | T: ...
    def pop(self, key: Buffer, default: Any = MISSING) -> Any:
        """
        Remove *key* and return its value, in one step: no two callers get the same one.

        Args:
            key: 0 to 65,535 bytes.
            default: Returned when *key* is absent.
        Raises:
            KeyError: *key* is absent, and there is no *default*.
            As `delete`.

        >>> db[b"k"] = b"v"
        >>> db.pop(b"k"), db.pop(b"k", None)
        (b'v', None)

        Source: `pykv_get`, `pykv_write` in csrc/pykv.h.
        """
        key = as_bytes(key, "key")
        while (found := self.get_with_version(key)) is not None:
            value, version = found
            if self._write([EXPECT_VERSION, DELETE], [key, key], None, [version, 0]).applied:
                return value
        if default is MISSING:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[bytes, bytes]:
        """
        Remove some key and return it with its value, in one step.

        Raises:
            KeyError: The store is empty.
            As `delete`.

        >>> db[b"k"] = b"v"
        >>> db.popitem()
        (b'k', b'v')
        """
        while True:
            try:
                key = self._popped.pop()
            except IndexError:
                block = next(filter(None, self._scan(b"", SCAN_KEYS)), ())
                if not block:
                    raise KeyError("popitem(): the store is empty") from None
                self._popped.extend(block)
                continue
            value = self.pop(key, None)
            if value is not None:
                return key, value

    def setdefault(self, key: Buffer, default: Buffer) -> bytes:
        """
        Return the value of *key*, after storing *default* under it if it was absent.

        Args:
            key: 0 to 65,535 bytes.
            default: 0 to 4,294,967,295 bytes. Unlike that of a dict it has no default: None is
                no value.
        Raises:
            As `put`.

        >>> db.setdefault(b"k", b"first"), db.setdefault(b"k", b"second")
        (b'first', b'first')
        """
        key, default = as_bytes(key, "key"), as_bytes(default, "value")
        while (value := self.get(key)) is None:
            if self.put_if_absent(key, default):
                return default
        return value

    def update(self, pairs: Pairs = (), /) -> None:
        """Store many pairs as one batch. Keyword arguments are str, so there are none."""
        self.put_many(pairs)

    def clear(self) -> None:
        """
        Remove every key, as one batch.

        Raises:
            As `delete`.

        Source: `pykv_clear` in csrc/pykv.h.
        """
        status = lib.pykv_clear(self._handle, DURABILITY_DEFAULT)
        if status < 0:
            raise failure(status)

    # ---- Durability ----

    def sync(self) -> None:
        """
        Make everything acknowledged so far, by any process, survive a power cut.

        Raises:
            SyncFailedError: What the disk holds is unknown; writes are refused until reopened.

        Source: `pykv_sync` in csrc/pykv.h.
        """
        status = lib.pykv_sync(self._handle)
        if status < 0:
            raise failure(status)

    def compact(self, progress: Callable[[int, int], None] | None = None) -> None:
        """
        Give back all dead space now; compaction goes on by itself, but takes its time.

        Every segment of which a hundredth or more is dead is compacted, one after the other, while
        others read and write. What snapshots hold is given back when they are closed.

        Args:
            progress: Called after each segment with the bytes that are done, and those in all.
        Raises:
            StoreFullError: There is no room for the copies of what is live in one segment.
            SyncFailedError: A sync failed; writes are refused until the store is reopened.

        >>> db.update((b"%d" % i, b"x" * 1000) for i in range(1000))
        >>> db.clear()
        >>> db.compact()
        >>> db.stats().log_bytes < 1000
        True

        Cost: reads those segments, copies what is live in them. Source: `pykv_compact` in
        csrc/pykv.h.
        """
        state = ffi.new("struct pykv_progress *")
        while True:
            status = lib.pykv_compact(self._handle, state)
            if status < 0:
                raise failure(status)
            if progress is not None:
                progress(max(state.total - state.left, 0), state.total)
            if not state.left:
                return

    def backup(
        self,
        dest: str | os.PathLike[str],
        *,
        progress: Callable[[int, int], None] | None = None,
        link: bool = True,
    ) -> Backup:
        """
        Copy this instant to directory *dest*, while others write.

        The copy is a store: `pykv.open` reads it, with flag "r" without a change to it. The next
        backup to the same *dest* moves only what is new. Once it was opened for writing it is a
        store of its own, and no backup any more.

        Args:
            dest: A directory that is new or empty, or holds an older backup of this store. On the
                disk of the store files that no longer change are not copied but get a second name.
            progress: Called now and then with the bytes that are done, and those in all.
            link: False: copy everything, so that a bad sector hits one of the two only.
        Returns:
            What was linked, copied and kept.
        Raises:
            InvalidError: *dest* holds another store, or lies within this one; nothing was touched.
            NotAStoreError: *dest* holds files that are not pykv's; nothing was touched.
            BusyError: *dest* is open somewhere.
            StoreFullError: The disk of *dest* is full. An older backup there is as it was, as after
                any failure.

        >>> db[b"k"] = b"v"
        >>> db.backup("copy.kv").keys
        1
        >>> with pykv.open("copy.kv", "r") as copy:
        ...     copy[b"k"]
        b'v'

        Cost: one sync, and what it copies; it holds the instant as a snapshot does. Source:
        `pykv_backup_open` in csrc/pykv.h.
        """
        from pykv._backup import back_up

        return back_up(self, dest, 0 if link else lib.PYKV_BACKUP_COPY, progress)

    def pause_compaction(self) -> None:
        """
        Keep all processes from compacting, but for `compact`, until `resume_compaction`.

        Meanwhile dead space grows without bound. A reboot ends the pause.
        """
        self._pause_compaction(1)

    def resume_compaction(self) -> None:
        """Let compaction go on by itself again, in all processes."""
        self._pause_compaction(0)

    def _pause_compaction(self, on: int) -> None:
        status = lib.pykv_compaction_pause(self._handle, on)
        if status < 0:
            raise failure(status)

    # ---- Beneath; the first three are called by _module.c ----

    def _put_rarely(
        self, key: Buffer, value: Buffer, ttl: float | None = None, durable: bool | None = None
    ) -> None:
        key = as_bytes(key, "key")
        expiry = 0 if ttl is None else expiry_ms(ttl)
        level = DURABILITY_DEFAULT if durable is None else durability(durable)
        if type(value) is bytes:
            status = _put(self._handle, key, len(key), value, len(value), expiry, level, NULL)
        else:
            with value_pointer(value) as pointer:
                size = len(pointer)
                status = _put(self._handle, key, len(key), pointer, size, expiry, level, NULL)
        if status:
            self._refused(key, status)

    def _remove(self, key: Buffer) -> None:
        """Do what `del store[key]` does."""
        if not self.delete(key):
            raise KeyError(as_bytes(key, "key"))

    def _refused(self, key: bytes, status: int) -> NoReturn:
        raise failure(status, [key])

    def _write(
        self,
        ops: Sequence[int] | None,
        keys: Sequence[Buffer],
        values: Sequence[Buffer] | None = None,
        numbers: Sequence[int] | None = None,
        level: int = DURABILITY_DEFAULT,
    ) -> Written:
        """Apply a batch. Arguments as those of `pykv_write`, one entry an operation."""
        joined_keys, key_sizes = column(keys, "key")
        joined_values, value_sizes = (NULL, NULL) if values is None else column(values, "value")
        failed = ffi.new("size_t *")
        results = ffi.new("uint64_t[2]")
        status = lib.pykv_write(
            self._handle,
            len(keys),
            NULL if ops is None else bytes(ops),
            joined_keys,
            key_sizes,
            joined_values,
            value_sizes,
            NULL if numbers is None else numbers,
            level,
            failed,
            results,
            results + 1,
        )
        if status < 0:
            raise failure(status, (as_bytes(key, "key") for key in keys))
        return Written(status != CONFLICT, failed[0], results[0], results[1])
