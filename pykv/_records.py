"""
_records.py -- what a store holds, with versions and expiries: out of one store, and into another.

Versions of a store only grow, and a store tells its records in no order. So `sort` sorts any number
of them by version in bounded memory: runs of what fits are sorted, put into a temporary file, and
merged.
"""

from __future__ import annotations

import heapq
import os
import struct
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from pykv._buffers import column
from pykv._core import ffi, lib
from pykv.errors import failure

if TYPE_CHECKING:
    from pykv._reader import Reader
    from pykv._store import Store

KEYS, VALUES, NUMBERS = 1, 2, 4  # the modes of pykv_scan_open()
BATCH_SIZE_MAX = 16 << 20  # bytes of keys and values
RUN_SIZE = 64 << 20  # bytes of memory, about, after which a run of records is put aside
RECORD_OVERHEAD = 300  # of them, those of a record besides key and value
LAST = 1 << 48  # above all versions

_numbers = struct.Struct("=QQ")
_header = struct.Struct("=QQII")  # in the temporary file: version, expiry, sizes


class Record(NamedTuple):
    """
    A key and all that belongs to it.

    Attributes:
        key: 0 to 65,535 bytes.
        value: Up to 4 GiB.
        expires_ms: Milliseconds since 1970; 0: never.
        version: Of the batch that wrote it; 0: not known.
    """

    key: bytes
    value: bytes
    expires_ms: int
    version: int


def records_of(source: Reader, prefix: bytes = b"") -> Iterator[Record]:
    """Yield the records whose keys begin with *prefix*, as of this instant, in no order."""
    for block in source._scan(prefix, KEYS | VALUES | NUMBERS):
        for key, value, numbers in zip(block[0::3], block[1::3], block[2::3], strict=True):
            version, expires_ms = _numbers.unpack(numbers)
            yield Record(key, value, expires_ms, version)


def expiry_of(db: Store, key: bytes) -> int:
    """Return when *key* expires, in milliseconds since 1970; 0: never, or it is absent."""
    expiry = ffi.new("uint64_t *")
    status = lib.pykv_contains(db._handle, key, len(key), expiry)
    if status < 0:
        raise failure(status, [key])
    return int(expiry[0]) if status == lib.PYKV_OK else 0


def batches_of(records: Iterable[Record], count_max: int) -> Iterator[list[Record]]:
    """Yield records some at a time: at most *count_max*, and no more after 16 MiB."""
    batch: list[Record] = []
    size = 0
    for record in records:
        batch.append(record)
        size += len(record.key) + len(record.value)
        if len(batch) == count_max or size >= BATCH_SIZE_MAX:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def load_batch(db: Store, version: int, records: Sequence[Record]) -> bool:
    """
    Put records as one batch with *version*, or, if that is 0, with the next.

    Returns:
        False, with nothing written, if the store has that version already, or a later one.

    Source: `pykv_load` in csrc/pykv.h.
    """
    keys, values, expiries, _ = zip(*records, strict=True)
    if not version:
        db._write(None, keys, values, expiries)
        return True
    joined_keys, key_sizes = column(keys, "key")
    joined_values, value_sizes = column(values, "value")
    status = lib.pykv_load(
        db._handle,
        version,
        len(records),
        joined_keys,
        key_sizes,
        joined_values,
        value_sizes,
        expiries,
        lib.PYKV_DURABILITY_DEFAULT,
    )
    if status < 0:
        raise failure(status, keys)
    return bool(status != lib.PYKV_CONFLICT)


def load_version(db: Store, version: int) -> bool:
    """
    Have *db* give its next batch the version after *version*, as if that had been given.

    Returns:
        False, with nothing changed, if it has been, or a later one.

    Source: `pykv_load` in csrc/pykv.h.
    """
    null, default = ffi.NULL, lib.PYKV_DURABILITY_DEFAULT
    status = lib.pykv_load(db._handle, version, 0, null, null, null, null, null, default)
    if status < 0:
        raise failure(status)
    return bool(status != lib.PYKV_CONFLICT)


def sort(records: Iterable[Record]) -> Iterator[Record]:
    """
    Take in all of *records*, and yield them by version, those of one version as they came.

    Records without a version come last. What does not fit into 64 MiB of memory is in a temporary
    file meanwhile, which has no name and lies where `tempfile` puts it: in $TMPDIR.
    """
    with tempfile.TemporaryFile() as file:
        runs = _Runs(file)
        run: list[Record] = []
        size = 0
        for record in records:
            run.append(record)
            size += len(record.key) + len(record.value) + RECORD_OVERHEAD
            if size >= RUN_SIZE:
                runs.add(run)
                run, size = [], 0
        if runs.places:
            runs.add(run)
            yield from runs.merge()
        else:
            run.sort(key=_rank)
            yield from run


def _rank(record: Record) -> int:
    return record.version or LAST


class _Runs:
    """Sorted runs of records in a file."""

    def __init__(self, file: BinaryIO) -> None:
        self.places: list[tuple[int, int]] = []  # where each begins and ends
        self._file = file

    def add(self, run: list[Record]) -> None:
        """Sort a run, and append it."""
        file = self._file
        start = file.seek(0, os.SEEK_END)
        for key, value, expires_ms, version in sorted(run, key=_rank):
            file.write(_header.pack(version, expires_ms, len(key), len(value)))
            file.write(key)
            file.write(value)
        self.places.append((start, file.tell()))

    def merge(self) -> Iterator[Record]:
        """Yield all records in order."""
        file = self._file
        heads = (self._heads(*place) for place in self.places)
        for _rank, at, version, expires_ms, key_size, value_size in heapq.merge(*heads):
            file.seek(at)  # only now: so that of each run just the sizes are in memory
            key, value = file.read(key_size), file.read(value_size)
            yield Record(key, value, expires_ms, version)

    def _heads(self, at: int, end: int) -> Iterator[tuple[int, int, int, int, int, int]]:
        while at < end:
            self._file.seek(at)
            head = _header.unpack(self._file.read(_header.size))
            version, _expires_ms, key_size, value_size = head
            at += _header.size
            yield (version or LAST, at, *head)
            at += key_size + value_size
