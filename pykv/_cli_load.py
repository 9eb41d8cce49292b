"""
_cli_load.py -- the command `load`: JSON lines, as _cli_rows.py describes them, into a store.

A store gives versions in order, and never one that it has given. So they can be kept only where
nothing was ever written: there the records are sorted by version, and each batch of the store that
they were dumped from is a batch again; the last of all is the version of that store. Everything
else is written as it comes, with new versions.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, groupby
from operator import attrgetter
from typing import BinaryIO

import click

import pykv
from pykv._cli_common import Failure, counted, progress, write_json
from pykv._cli_rows import parse_line
from pykv._records import Record, batches_of, load_batch, load_version, sort


class Loader:
    """
    Writes records in batches.

    Attributes:
        loaded: Records that are in the store.
        kept: Of these, those that have the version they had.
        expired: Records that were left out, their time being over.
    """

    def __init__(self, db: pykv.Store, records_a_batch: int) -> None:
        self.loaded = self.kept = self.expired = 0
        self._db = db
        self._records_a_batch = records_a_batch

    def write(self, records: Iterable[Record]) -> None:
        """Write records with new versions."""
        for batch in batches_of(records, self._records_a_batch):
            self._write(0, batch)

    def write_sorted(self, records: Iterable[Record]) -> None:
        """Write records with the versions that they had; those that have none come last."""
        for version, batch in groupby(records, attrgetter("version")):
            if version:
                self._write(version, list(batch))
            else:
                self.write(batch)

    def _write(self, version: int, batch: list[Record]) -> None:
        now_ms = time.time() * 1000
        lasting = [each for each in batch if not each.expires_ms or each.expires_ms > now_ms]
        self.expired += len(batch) - len(lasting)
        if not lasting:
            return
        if not load_batch(self._db, version, lasting):
            load_batch(self._db, 0, lasting)  # somebody wrote
        elif version:
            self.kept += len(lasting)
        self.loaded += len(lasting)


@click.command()
@click.argument("store", type=click.Path())
@click.argument("file", type=click.File("rb"), default="-")
@click.option(
    "--batch", "records_a_batch", type=click.IntRange(1), default=1000, show_default=True,
    help="Records that are written at once, all or nothing, where they get new versions.",
)  # fmt: skip
@click.option("--durable", is_flag=True, help="Return when it survives a power cut.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def load(store: str, file: BinaryIO, records_a_batch: int, durable: bool, as_json: bool) -> None:
    """
    Store the JSON lines of FILE or standard input, as dump writes them.

    STORE is created if missing. Where nothing was ever written the records keep their versions, and
    those that were written at once are written at once again: the lines are read first, and sorted
    by way of $TMPDIR if they are many. In any other store they get new ones. Records whose time is
    over are left out. At a line that is not understood the command stops; the batches before it
    stay.
    """
    with pykv.open(store) as db:
        loader = Loader(db, records_a_batch)
        lines = _Lines(file, loader)
        first = next(lines.records, None)
        versions = first is not None and first.version != 0
        fresh = db.stats().version == 0
        records = chain([first] if first else [], lines.records)
        if versions and fresh:
            with progress("sort", lines.size) as lines.advance:
                ordered = _sorted(records)
                lowest = next(ordered)  # all lines have been read by then
            with progress("load", lines.count) as advance:
                loader.write_sorted(_told(chain([lowest], ordered), advance))
        else:
            with progress("load", lines.size) as lines.advance:
                loader.write(records)
        if fresh and lines.version:
            load_version(db, lines.version)
        if durable:
            db.sync()
    if as_json:
        counts = {"loaded": loader.loaded, "versions_kept": loader.kept, "expired": loader.expired}
        write_json(counts)
    else:
        click.echo(_summary(loader, versions, fresh), err=True)


def _summary(loader: Loader, versions: bool, fresh: bool) -> str:
    """Return what became of the records; of their versions, if they had any."""
    told = f"{loader.loaded:,} loaded"
    if versions and fresh:
        told += f", {loader.kept:,} with their versions"
    elif versions:
        told += " with new versions, as the store was not new"
    if loader.expired:
        told += f", {loader.expired:,} had expired"
    return told


class _Lines:
    """
    The records of a file.

    Attributes:
        records: The iterator over them; a Failure names a line that is not understood.
        advance: Called with the bytes of each line.
        size: Bytes of the file, if it tells.
        count: Records so far.
        version: Of the store, as the file tells; 0: it does not.
    """

    def __init__(self, file: BinaryIO, loader: Loader) -> None:
        self.records = self._read(file, loader)
        self.advance: Callable[[int], None] = lambda _size: None
        self.size = _size(file)
        self.count = self.version = 0

    def _read(self, file: BinaryIO, loader: Loader) -> Iterator[Record]:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    record = parse_line(line, number)
                except Failure as error:
                    before = counted(loader.loaded, "record")
                    raise Failure(f"{error.message}; loaded before it: {before}") from None
                if isinstance(record, int):
                    self.version = max(self.version, record)
                else:
                    self.count += 1
                    yield record
            self.advance(len(line))


def _sorted(records: Iterable[Record]) -> Iterator[Record]:
    try:
        yield from sort(records)
    except pykv.Error:  # some are an OSError, too
        raise
    except OSError as error:
        raise Failure(f"cannot sort in {tempfile.gettempdir()}: {error.strerror}") from None


def _told(records: Iterable[Record], advance: Callable[[int], None]) -> Iterator[Record]:
    for record in records:
        yield record
        advance(1)


def _size(file: BinaryIO) -> int | None:
    """Return the bytes of *file*, if it tells."""
    try:
        return os.fstat(file.fileno()).st_size or None  # of a pipe: 0
    except OSError:  # not a file of the system
        return None
