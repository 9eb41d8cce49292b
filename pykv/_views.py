"""
_views.py -- what `Store.keys`, `values` and `items` return: the views of a dict, with a prefix.

Each iteration shows the store as it was when the iteration began, whatever is written meanwhile.
Keys come in no order. The engine hands them out in blocks, and `yield from` passes each on without
a line of Python for a single key. (itertools.chain would save 15 ns a key, but CPython may crash
when threads share one; a generator refuses the second thread.)
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import Any, Protocol

from pykv._buffers import Buffer, as_bytes

SCAN_KEYS, SCAN_VALUES, SCAN_ITEMS = 1, 2, 3  # modes of pykv_scan_open()


class Scanned(Protocol):
    """What the views are views of: a store, a snapshot, a transaction."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[bytes]: ...
    def __contains__(self, key: object, /) -> bool: ...
    def __getitem__(self, key: Buffer, /) -> bytes: ...
    def get(self, key: Buffer, /) -> bytes | None: ...
    def _scan(self, prefix: bytes, mode: int) -> Iterator[tuple[bytes, ...]]: ...


class StoreKeys(KeysView[bytes]):
    """The keys of a store that begin with a prefix: iterable, a set, with len() and `in`."""

    __slots__ = ("_prefix",)
    _mapping: Scanned

    def __init__(self, store: Scanned, prefix: bytes) -> None:
        super().__init__(store)
        self._prefix = prefix

    def __iter__(self) -> Iterator[bytes]:
        return _each(self._mapping._scan(self._prefix, SCAN_KEYS))

    def __len__(self) -> int:
        return _count(self._mapping, self._prefix)

    def __contains__(self, key: object) -> bool:
        key = as_bytes(key, "key")  # type: ignore[arg-type]
        return key.startswith(self._prefix) and key in self._mapping

    def __repr__(self) -> str:
        return f"{self._mapping!r}.keys({_shown(self._prefix)})"


class StoreValues(ValuesView[bytes]):
    """The values of a store whose keys begin with a prefix: iterable, with len() and `in`."""

    __slots__ = ("_prefix",)
    _mapping: Scanned

    def __init__(self, store: Scanned, prefix: bytes) -> None:
        super().__init__(store)
        self._prefix = prefix

    def __iter__(self) -> Iterator[bytes]:
        return _each(self._mapping._scan(self._prefix, SCAN_VALUES))

    def __len__(self) -> int:
        return _count(self._mapping, self._prefix)

    def __contains__(self, value: object) -> bool:
        return any(value == other for other in self)

    def __repr__(self) -> str:
        return f"{self._mapping!r}.values({_shown(self._prefix)})"


class StoreItems(ItemsView[bytes, bytes]):
    """The pairs of a store whose keys begin with a prefix: iterable, a set, len() and `in`."""

    __slots__ = ("_prefix",)
    _mapping: Scanned

    def __init__(self, store: Scanned, prefix: bytes) -> None:
        super().__init__(store)
        self._prefix = prefix

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return _each_pair(self._mapping._scan(self._prefix, SCAN_ITEMS))

    def __len__(self) -> int:
        return _count(self._mapping, self._prefix)

    def __contains__(self, item: object) -> bool:
        pair: tuple[Any, Any] = item  # type: ignore[assignment]
        key, value = as_bytes(pair[0], "key"), pair[1]
        return key.startswith(self._prefix) and self._mapping.get(key) == value

    def __repr__(self) -> str:
        return f"{self._mapping!r}.items({_shown(self._prefix)})"


def _each(blocks: Iterator[tuple[bytes, ...]]) -> Iterator[bytes]:
    for fields in blocks:
        yield from fields


def _each_pair(blocks: Iterator[tuple[bytes, ...]]) -> Iterator[tuple[bytes, bytes]]:
    for fields in blocks:
        each = iter(fields)
        yield from zip(each, each, strict=True)


def _count(store: Scanned, prefix: bytes) -> int:
    if not prefix:
        return len(store)
    return sum(map(len, store._scan(prefix, SCAN_KEYS)))


def _shown(prefix: bytes) -> str:
    return f"prefix={prefix!r}" if prefix else ""
