"""
_transaction.py -- reads of one instant and writes on top of it, committed if nobody came between.

A transaction takes notes: of each key that it read, whether it was there; of the prefixes that it
iterated; of its writes. To commit is one batch, with a precondition for each note: so what it
read is what there was at the moment when it wrote, and all transactions might have run one after
the other. Nothing is locked before that moment.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, MutableMapping
from itertools import repeat
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from pykv._batch import DELETE, EXPECT_ABSENT, EXPECT_PREFIX_UNCHANGED, EXPECT_UNCHANGED, PUT
from pykv._buffers import (
    KEY_SIZE_MAX,
    Buffer,
    Pairs,
    addend,
    as_bytes,
    expiry_ms,
    life_ms,
    pairs_of,
    part_bounds,
    seconds_left,
)
from pykv._core import ffi, lib
from pykv._reader import NULL, OK
from pykv._snapshot import Snapshot
from pykv._views import (
    SCAN_ITEMS,
    SCAN_KEYS,
    SCAN_VALUES,
    StoreItems,
    StoreKeys,
    StoreValues,
)
from pykv.errors import (
    ClosedError,
    ConflictError,
    KeySizeError,
    NotANumberError,
    ValueSizeError,
    failure,
)

if TYPE_CHECKING:
    from pykv._store import Store

T = TypeVar("T")

_PACKERS = {n: struct.Struct(f"{n}I").pack for n in range(1, 65)}  # sizes, by their number
_INTEGER = re.compile(rb"0|-?[1-9][0-9]*")  # as a person would write it, and pykv_incr() does

_renew = lib.pykv_snapshot_renew
_commit = lib.pykv_snapshot_commit


class Transaction(MutableMapping[bytes, bytes]):
    """
    Reads and writes that happen as one. Made by `Store.transaction`, for `with`, by one thread.

    It reads the store as of the instant when it began, and its own writes on top. At the end of
    the block the writes are applied as one batch, if all that was read is still so: keys that were
    found have not been written since, those that were missing are missing, and no key was written
    or deleted that begins with a prefix that was iterated (len() and a bare iteration are of prefix
    b""). Otherwise it raises `ConflictError`, and nothing is written. An exception in the block
    drops the writes. One that only reads commits always: what it read was one instant.

    Transactions are serializable: what becomes of any number of them is what would become of them
    one after the other. Expiry is judged as of the instant when each began; a key that was read
    and has expired by the end is a conflict, one that was met in an iteration is one once it has
    been removed.

    Attributes:
        version: The version that its batch was given, once it is applied; before, and where there
            was nothing to write, None.

    >>> db.update({b"from": b"100", b"to": b"0"})
    >>> with db.transaction() as t:
    ...     t[b"from"] = b"%d" % (int(t[b"from"]) - 10)
    ...     t[b"to"] = b"%d" % (int(t[b"to"]) + 10)
    >>> db[b"from"], db[b"to"]
    (b'90', b'10')

    Source: `pykv_snapshot_commit` in csrc/pykv.h; docs/design.md.
    """

    __slots__ = (
        "__weakref__",
        "_expiries",
        "_lent",
        "_level",
        "_open",
        "_prefixes",
        "_reads",
        "_snapshot",
        "_store",
        "_writes",
        "version",
    )

    def __init__(self, store: Store, level: int) -> None:
        try:  # one that another transaction is through with
            snapshot: Snapshot = store._idle.pop()
            snapshot._store = store
            if status := _renew(snapshot._handle):
                raise failure(status)
        except IndexError:
            snapshot = Snapshot(store)
        self._snapshot = snapshot
        self._store = store
        self._level = level
        self._open = True
        self._reads: dict[bytes, int] = {}  # what is expected of the key
        self._writes: dict[bytes, bytes | None] = {}  # None: deleted
        self._prefixes: set[bytes] | None = None
        self._expiries: dict[bytes, int] | None = None  # of writes, where there is one
        self._lent = False  # the snapshot, to somebody who may still read when we have ended
        self.version: int | None = None

    # ---- Reads ----

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
        Return the value of *key*, or a part of it, or *default* if it is absent. See `Store.get`.

        Raises:
            CorruptError: The record fails its checksum.
            ClosedError: The transaction has ended.
        """
        if offset is not None or length is not None:
            return self._get_part(key, default, offset, length)
        if type(key) is not bytes:
            key = as_bytes(key, "key")
        if key in self._writes:
            value: Any = self._writes[key]
            return default if value is None else value
        if not self._open:
            self._check_open()
        value = self._snapshot._get(key, None)
        self._reads[key] = EXPECT_ABSENT if value is None else EXPECT_UNCHANGED
        return default if value is None else value

    def _get_part(self, key: Buffer, default: Any, offset: int | None, length: int | None) -> Any:
        key = as_bytes(key, "key")
        if key in self._writes:
            first, count = part_bounds(offset, length)
            value = self._writes[key]
            return default if value is None else value[first : first + count]
        value = self._reader().get(key, None, offset, length)
        self._reads[key] = EXPECT_ABSENT if value is None else EXPECT_UNCHANGED
        return default if value is None else value

    def __getitem__(self, key: Buffer) -> bytes:
        """Return the value of *key*; KeyError if it is absent."""
        value = self.get(key)
        if value is None:
            raise KeyError(as_bytes(key, "key"))
        return value

    def __contains__(self, key: object) -> bool:
        """Tell whether *key* is present."""
        return self.get(key) is not None  # type: ignore[call-overload]

    def ttl(self, key: Buffer) -> float | None:
        """Return the seconds from now until *key* expires; None: never. See `Store.ttl`."""
        key = as_bytes(key, "key")
        if key not in self:
            raise KeyError(key)
        return seconds_left(self._expiry(key))

    @overload
    def get_many(self, keys: Iterable[Buffer]) -> list[bytes | None]: ...
    @overload
    def get_many(self, keys: Iterable[Buffer], default: T) -> list[bytes | T]: ...
    def get_many(self, keys: Iterable[Buffer], default: Any = None) -> list[Any]:
        """
        Return the values of many keys: several times faster than one by one. See `Store.get_many`.

        >>> db.put_many({b"a": b"1", b"b": b"2"})
        >>> with db.transaction() as t:
        ...     t[b"c"] = b"3"
        ...     t.get_many([b"a", b"absent", b"c"])
        [b'1', None, b'3']
        """
        self._check_open()
        wanted = [as_bytes(key, "key") for key in keys]
        values = dict(self._writes)
        others = [key for key in dict.fromkeys(wanted) if key not in values]
        for key, value in zip(others, self._reader().get_many(others), strict=True):
            values[key] = value
            self._reads[key] = EXPECT_ABSENT if value is None else EXPECT_UNCHANGED
        return [default if (value := values[key]) is None else value for key in wanted]

    def __len__(self) -> int:
        """Return the number of keys; of those that had expired, some may count."""
        self._watch(b"")
        before = sum(map(self._reader()._counts, self._writes))
        now = sum(value is not None for value in self._writes.values())
        return len(self._reader()) - before + now

    def __iter__(self) -> Iterator[bytes]:
        """Iterate over the keys, in no order, each once."""
        return iter(self.keys())

    def keys(self, *, prefix: Buffer = b"") -> StoreKeys:
        """
        Return the keys that begin with *prefix*, as a view. See `Store.keys`.

        Each iteration shows the transaction as of its own beginning, whatever it writes meanwhile.

        >>> db.put_many({b"user:1": b"Ada", b"user:2": b"Bob"})
        >>> with db.transaction() as t:
        ...     t[b"user:3"] = b"Cid"
        ...     del t[b"user:1"]
        ...     sorted(t.keys(prefix=b"user:"))
        [b'user:2', b'user:3']
        """
        return StoreKeys(self, as_bytes(prefix, "prefix"))

    def values(self, *, prefix: Buffer = b"") -> StoreValues:
        """Return the values whose keys begin with *prefix*, as a view. See `keys`."""
        return StoreValues(self, as_bytes(prefix, "prefix"))

    def items(self, *, prefix: Buffer = b"") -> StoreItems:
        """Return the pairs whose keys begin with *prefix*, as a view. See `keys`."""
        return StoreItems(self, as_bytes(prefix, "prefix"))

    # ---- Writes ----

    def __setitem__(self, key: Buffer, value: Buffer) -> None:
        """Store *value* under *key*, for ever. See `put`."""
        if type(key) is not bytes:
            key = as_bytes(key, "key")
        if type(value) is not bytes:
            value = as_bytes(value, "value")
        if len(key) > KEY_SIZE_MAX:
            raise KeySizeError(len(key))
        if not self._open:
            self._check_open()
        self._writes[key] = value
        if self._expiries is not None:
            self._expiries.pop(key, None)

    def put(self, key: Buffer, value: Buffer, *, ttl: float | None = None) -> None:
        """
        Store *value* under *key*.

        Args:
            key: 0 to 65,535 bytes.
            value: 0 to 4,294,967,295 bytes.
            ttl: Seconds from now after which the key is gone; None: never.
        Raises:
            KeySizeError: *key* is too long.
            ClosedError: The transaction has ended.
        """
        expiry = expiry_ms(ttl)
        self[key] = value
        self._expire(as_bytes(key, "key"), expiry)

    def delete(self, key: Buffer) -> bool:
        """Remove *key*, if it is there; return whether it was. It counts as read."""
        key = as_bytes(key, "key")
        present = key in self
        if present:
            self._writes[key] = None
            if self._expiries is not None:
                self._expiries.pop(key, None)
        return present

    def __delitem__(self, key: Buffer) -> None:
        """Remove *key*; KeyError if it is absent."""
        if not self.delete(key):
            raise KeyError(as_bytes(key, "key"))

    def put_many(self, pairs: Pairs, *, ttl: float | None = None) -> None:
        """Store many pairs, as `Store.put_many` does."""
        for key, value in pairs_of(pairs):
            self.put(key, value, ttl=ttl)

    def update(self, pairs: Pairs = (), /) -> None:
        """Store many pairs. Keyword arguments are str, so there are none."""
        self.put_many(pairs)

    def clear(self) -> None:
        """Remove every key."""
        for key in list(self):
            self._writes[key] = None

    def incr(self, key: Buffer, by: int = 1, *, ttl: float | None = None) -> int:
        """
        Add *by* to the counter under *key*; an absent one counts as 0. See `Store.incr`.

        >>> with db.transaction() as t:
        ...     t.incr(b"visits"), t.incr(b"visits", 9)
        (1, 10)
        """
        key, by = as_bytes(key, "key"), addend(by)
        text = self.get(key, b"0")
        if not _INTEGER.fullmatch(text) or not _fits(before := int(text)):
            raise NotANumberError("the value is not a decimal integer of 64 bits")
        total = before + by
        if not _fits(total):
            raise NotANumberError("the sum does not fit into 64 bits")
        expiry = self._expiry(key) if ttl is None else expiry_ms(ttl)
        self[key] = b"%d" % total
        self._expire(key, expiry)
        return total

    def expire(self, key: Buffer, ttl: float) -> bool:
        """
        Let *key* expire *ttl* seconds from now; return whether it is there. See `Store.expire`.

        >>> db[b"k"] = b"v"
        >>> with db.transaction() as t:
        ...     t.expire(b"k", 60), t.ttl(b"k") <= 60, t.persist(b"k"), t.ttl(b"k")
        (True, True, True, None)
        """
        return self._renew(key, life_ms(ttl))

    def touch(self, key: Buffer, ttl: float) -> bool:
        """Keep *key* for *ttl* seconds from now at least. See `Store.touch`."""
        return self._renew(key, life_ms(ttl), later=True)

    def persist(self, key: Buffer) -> bool:
        """Let *key* never expire. See `Store.persist`."""
        return self._renew(key, 0)

    # ---- The end ----

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Apply the writes, if nothing that was read has changed; after an exception, drop them."""
        if not self._open:
            return
        self._open = False
        try:
            if kind is None and self._writes:
                self._commit()
        finally:
            self._snapshot._release()  # if a commit has not: what failed may not have got so far
            self._writes = {}
            if not self._lent:
                self._snapshot._store = None  # no circle with the store
                self._store._idle.append(self._snapshot)

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} can be neither copied nor pickled")

    def __repr__(self) -> str:
        state = "open" if self._open else "ended"
        return f"<pykv.Transaction, {state}, writes: {len(self._writes):,}>"

    # ---- Beneath ----

    def _reader(self) -> Snapshot:
        """Return our snapshot for what may outlast us: others get a new one then."""
        self._check_open()
        self._lent = True
        return self._snapshot

    def _commit(self) -> None:
        reads, writes = self._reads, self._writes
        if self._prefixes is not None:
            prefixes = [b""] if b"" in self._prefixes else self._prefixes
            reads |= dict.fromkeys(prefixes, EXPECT_PREFIX_UNCHANGED)
        values: Any = writes.values()
        ops = bytes(reads.values())
        if None in values:
            ops += bytes([DELETE if value is None else PUT for value in values])
            values = [value or b"" for value in values]
        else:
            ops += bytes(len(writes))  # PUT is 0
        fields = [*reads, *writes, *values]
        count = len(fields)
        try:
            sizes = (_PACKERS.get(count) or struct.Struct(f"{count}I").pack)(*map(len, fields))
        except struct.error:
            raise ValueSizeError(max(map(len, fields))) from None
        expiries = NULL
        if self._expiries:
            expiries = [*map(self._expiries.get, writes, repeat(0))]
        result = _commit(
            self._snapshot._handle,
            len(reads),
            len(writes),
            ops,
            b"".join(fields),
            sizes,
            expiries,
            self._level,
        )
        if result < 0:
            raise self._failure(result, fields, ops)
        self.version = result

    def _failure(self, result: int, keys: list[bytes], ops: bytes) -> Exception:
        """Return the exception for what pykv_snapshot_commit() returned."""
        if result > -2000:
            return failure(result + 1000, keys)
        key, op = keys[-2000 - result], ops[-2000 - result]
        what = "a key that begins with" if op == EXPECT_PREFIX_UNCHANGED else "key"
        conflict = ConflictError(f"{what} {key!r} was written since the transaction began")
        conflict.key = key
        return conflict

    def _scan(self, prefix: bytes, mode: int) -> Iterator[tuple[bytes, ...]]:
        """Return an iterator over blocks of fields: the snapshot's, and our own writes on top."""
        self._watch(prefix)
        own = {key: value for key, value in self._writes.items() if key.startswith(prefix)}
        if not own:
            return self._reader()._scan(prefix, mode)
        wider = SCAN_KEYS if mode == SCAN_KEYS else SCAN_ITEMS
        return _merged(self._reader()._scan(prefix, wider), own, mode)

    def _watch(self, prefix: bytes) -> None:
        """Note that all keys that begin with *prefix* are being read."""
        self._check_open()
        if self._prefixes is None:
            self._prefixes = set()
        self._prefixes.add(prefix)

    def _expire(self, key: bytes, expiry: int) -> None:
        """Note when the key just written expires; 0: never."""
        if expiry:
            if self._expiries is None:
                self._expiries = {}
            self._expiries[key] = expiry

    def _expiry(self, key: bytes) -> int:
        """Return when *key* expires, in milliseconds since 1970; 0: never, or absent."""
        if key in self._writes:
            return (self._expiries or {}).get(key, 0)
        expiry = ffi.new("uint64_t *")
        status = lib.pykv_snapshot_contains(self._snapshot._handle, key, len(key), expiry)
        if status < 0:
            raise failure(status, [key])
        return int(expiry[0]) if status == OK else 0

    def _renew(self, key: Buffer, expiry: int, later: bool = False) -> bool:
        """Write *key* anew with its value and another expiry; return whether it is there."""
        key = as_bytes(key, "key")
        value = self.get(key)
        if value is None:
            return False
        before = self._expiry(key)
        earlier = not before or 0 < expiry < before
        if expiry != before and not (later and earlier):
            self[key] = value
            self._expire(key, expiry)
        return True

    def _check_open(self) -> None:
        if not self._open:
            raise ClosedError("the transaction has ended: begin another with db.transaction()")


def _merged(
    blocks: Iterator[tuple[bytes, ...]], own: dict[bytes, bytes | None], mode: int
) -> Iterator[tuple[bytes, ...]]:
    """Pass on blocks of fields without what *own* replaces, and then that."""
    for fields in blocks:
        if mode == SCAN_KEYS:
            yield tuple(key for key in fields if key not in own)
            continue
        each = iter(fields)
        yield _fields([pair for pair in zip(each, each, strict=True) if pair[0] not in own], mode)
    yield _fields([(key, value) for key, value in own.items() if value is not None], mode)


def _fields(pairs: list[tuple[bytes, bytes]], mode: int) -> tuple[bytes, ...]:
    if mode == SCAN_KEYS:
        return tuple(key for key, _ in pairs)
    if mode == SCAN_VALUES:
        return tuple(value for _, value in pairs)
    return tuple(field for pair in pairs for field in pair)


def _fits(number: int) -> bool:
    return -(1 << 63) <= number < 1 << 63
