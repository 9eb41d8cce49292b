"""
_buffers.py -- from what callers hand in to the bytes that the engine reads.

A key or value may be any C-contiguous buffer. `bytes` goes to C as it is; everything else passes
here, and a str is refused with the remedy.
"""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from pykv._core import column as _column
from pykv._core import ffi, lib
from pykv.errors import InvalidError, KeySizeError, NotBytesError, ValueSizeError

if TYPE_CHECKING:
    from typing_extensions import Buffer as Buffer
else:  # collections.abc.Buffer is there from Python 3.12
    Buffer = bytes | bytearray | memoryview

KEY_SIZE_MAX = 65_535  # bytes; PYKV_KEY_SIZE_MAX
VALUE_SIZE_MAX = 4_294_967_295  # bytes; PYKV_VALUE_SIZE_MAX
TTL_MAX = 100 * 366 * 86_400  # seconds: a century

_DURABILITY = {
    None: lib.PYKV_DURABILITY_DEFAULT,
    False: lib.PYKV_DURABILITY_PROCESS,
    True: lib.PYKV_DURABILITY_COMMIT,
}


class SupportsKeysAndGetItem(Protocol):
    """What counts as a mapping for `Store.put_many` and `update`, as for `dict.update`."""

    def keys(self) -> Iterable[Buffer]: ...
    def __getitem__(self, key: Any, /) -> Buffer: ...


Pairs = SupportsKeysAndGetItem | Iterable[tuple[Buffer, Buffer]]


def as_bytes(buffer: Buffer, what: str) -> bytes:
    """Return *buffer* as bytes: itself if it is bytes, else a copy of this moment's content."""
    if type(buffer) is bytes:
        return buffer
    return _contiguous(buffer, what).tobytes()


def key_bytes(key: Buffer) -> bytes:
    """Return *key* as bytes, its size checked."""
    key = as_bytes(key, "key")
    if len(key) > KEY_SIZE_MAX:
        raise KeySizeError(len(key))
    return key


def value_pointer(value: Buffer) -> Any:
    """Return a C array that lends the bytes of *value* without a copy; len() of it is in bytes."""
    return ffi.from_buffer("uint8_t[]", _contiguous(value, "value"))


def writable_pointer(buffer: Buffer) -> Any:
    """Return a C array through which C may write into *buffer*."""
    view = None if isinstance(buffer, str) else _contiguous(buffer, "buffer")
    if view is None or view.readonly:
        raise NotBytesError("the buffer must be writable, such as a bytearray")
    return ffi.from_buffer("uint8_t[]", view, require_writable=True)


def column(items: Sequence[Buffer], what: str) -> tuple[bytes, Any]:
    """
    Lay *items* end to end, as the calls for many keys want them.

    Returns:
        The joined bytes, and a C array of uint32_t sizes, one an item.
    """
    columns = _column(items)
    if columns is None:  # not a list of bytes alone
        copies = [as_bytes(item, what) for item in items]
        columns = _column(copies)
        if columns is None:
            raise ValueSizeError(max(map(len, copies)))
    joined, sizes = columns
    return joined, ffi.from_buffer("uint32_t[]", sizes)


def pairs_of(pairs: Any) -> list[tuple[Buffer, Buffer]]:
    """Return *pairs* as a list of our own, which nobody else can change meanwhile."""
    if hasattr(pairs, "items"):  # a mapping that can tell its pairs as of one moment
        return list(pairs.items())
    if hasattr(pairs, "keys"):
        return [(key, pairs[key]) for key in pairs.keys()]  # noqa: SIM118
    return list(pairs)


def part_bounds(offset: int | None, length: int | None) -> tuple[int, int]:
    """Return where a part of a value begins, and its size: that of all the rest for None."""
    first = 0 if offset is None else operator.index(offset)
    count = VALUE_SIZE_MAX if length is None else operator.index(length)
    if first < 0 or count < 0:
        raise InvalidError(f"offset and length cannot be negative: {offset}, {length}")
    return min(first, VALUE_SIZE_MAX), min(count, VALUE_SIZE_MAX)


def addend(by: int) -> int:
    """Return *by* as what a counter of 64 bits can be told to add."""
    try:
        number = operator.index(by)
    except TypeError:
        raise TypeError(f"by is an int, not {type(by).__name__}") from None
    if not -(1 << 63) <= number < 1 << 63:
        raise InvalidError(f"by is an integer of 64 bits, not {number}")
    return number


def expiry_ms(ttl: float | None) -> int:
    """Return when a record of *ttl* seconds from now expires: milliseconds since 1970, 0: never."""
    if ttl is None:
        return 0
    if not isinstance(ttl, (int, float)):
        raise TypeError(f"ttl is a number of seconds or None, not {type(ttl).__name__}")
    if not 0 < ttl <= TTL_MAX:  # refuses NaN and infinity too
        raise InvalidError(f"ttl must be more than 0 and at most {TTL_MAX:,} seconds, not {ttl}")
    # Up to whole milliseconds, each by itself: so seconds_left() tells no more than *ttl*.
    return _now_ms() + max(1, math.ceil(round(ttl * 1000, 3)))


def life_ms(ttl: float) -> int:
    """Return `expiry_ms` of a *ttl* that must be given."""
    if ttl is None:
        raise TypeError("ttl is a number of seconds; persist() is for keys that never expire")
    return expiry_ms(ttl)


def seconds_left(expiry: int) -> float | None:
    """Return the seconds from now to *expiry*, 0.0 at least; None for 0, which is never."""
    return max(0, expiry - _now_ms()) / 1000 if expiry else None


def durability(durable: bool | None) -> int:
    """Return the enum pykv_durability of a write's *durable* argument."""
    try:
        return _DURABILITY[durable]
    except (KeyError, TypeError):
        raise TypeError(f"durable is True, False or None, not {durable!r}") from None


def _now_ms() -> int:
    return -(-time.time_ns() // 1_000_000)


def _contiguous(buffer: Buffer, what: str) -> memoryview:
    if isinstance(buffer, str):
        shown = buffer if len(buffer) <= 40 else buffer[:40] + "..."
        raise NotBytesError(f"a {what} must be bytes, not str: write {shown!r}.encode()")
    try:
        view = memoryview(buffer)
    except TypeError:
        name = type(buffer).__name__
        raise NotBytesError(f"a {what} must be bytes or another buffer, not {name}") from None
    if not view.c_contiguous:
        raise NotBytesError(f"a {what} must be C-contiguous: write bytes({what})")
    return view
