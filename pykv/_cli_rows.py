"""
_cli_rows.py -- pairs as JSON lines, and the commands `load` and `dump` that speak them.

A pair is one line: {"key": "user:1", "value": "Ada"}. Where bytes are not UTF-8 the field is called
key_base64 or value_base64; expires_ms, milliseconds since 1970, is there where the key has a time
to live. A field that we do not know is refused: a slip of the pen must not lose what it means.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Iterator
from typing import BinaryIO, TypedDict

import click

import pykv
from pykv._buffers import durability
from pykv._cli_common import (
    Failure,
    argument_bytes,
    counted,
    decode_base64,
    progress,
    write_json,
)
from pykv._core import ffi, lib
from pykv.errors import failure

BATCH_SIZE_MAX = 16 << 20  # bytes of keys and values after which a batch is written anyway
LINES_A_WRITE = 500
EXPIRY_MAX = (1 << 63) - 1


class Row(TypedDict, total=False):
    """A pair as a line of JSON."""

    key: str
    key_base64: str
    value: str
    value_base64: str
    expires_ms: int
    version: int  # told by `get` alone


FIELDS = frozenset({"key", "key_base64", "value", "value_base64", "expires_ms"})


def row_of(key: bytes, value: bytes | None = None, expires_ms: int = 0) -> Row:
    """Return the document of a pair; without a value, of the key alone."""
    row = Row()
    try:
        row["key"] = key.decode()
    except UnicodeDecodeError:
        row["key_base64"] = base64.b64encode(key).decode()
    if value is not None:
        try:
            row["value"] = value.decode()
        except UnicodeDecodeError:
            row["value_base64"] = base64.b64encode(value).decode()
    if expires_ms:
        row["expires_ms"] = expires_ms
    return row


def line_of(row: Row) -> bytes:
    """Return the line, with its end."""
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def parse_line(line: bytes, number: int) -> tuple[bytes, bytes, int]:
    """Return key, value and expires_ms (0: never) of a line; a Failure names the line."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Failure(f"line {number} is not JSON: {error}") from None
    if not isinstance(row, dict):
        raise Failure(f"line {number} is not a JSON object")
    if unknown := sorted(row.keys() - FIELDS):
        raise Failure(f"line {number}: there is no field {unknown[0]!r}")
    key = _content(row, "key", number)
    value = _content(row, "value", number)
    expires_ms = row.get("expires_ms", 0)
    if type(expires_ms) is not int or not 0 <= expires_ms <= EXPIRY_MAX:
        raise Failure(f"line {number}: expires_ms must be milliseconds since 1970")
    return key, value, expires_ms


def _content(row: dict[str, object], name: str, number: int) -> bytes:
    encoded = f"{name}_base64"
    if (name in row) == (encoded in row):
        raise Failure(f"line {number}: either {name} or {encoded} must be there")
    text = row[name] if name in row else row[encoded]
    if not isinstance(text, str):
        raise Failure(f"line {number}: {name} is no string")
    if encoded in row:
        return decode_base64(text, f"line {number}: {encoded}")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Failure(f"line {number}: {name} has half of a surrogate pair") from None


def expiry_of(db: pykv.Store, key: bytes) -> int:
    """Return when *key* expires, in milliseconds since 1970; 0: never, or it is absent."""
    expiry = ffi.new("uint64_t *")
    status = lib.pykv_contains(db._handle, key, len(key), expiry)
    if status < 0:
        raise failure(status, [key])
    return int(expiry[0]) if status == lib.PYKV_OK else 0


# ---- load ----


class Loader:
    """
    Writes pairs in batches.

    Attributes:
        loaded: Pairs that are in the store.
        expired: Pairs that were left out, their time being over.
    """

    def __init__(self, db: pykv.Store, pairs_a_batch: int, durable: bool) -> None:
        self.loaded = 0
        self.expired = 0
        self._db = db
        self._pairs_a_batch = pairs_a_batch
        self._level = durability(durable or None)
        self._pairs: list[tuple[bytes, bytes, int]] = []
        self._size = 0

    def add(self, key: bytes, value: bytes, expires_ms: int) -> None:
        """Take in a pair, and write the batch if it is full."""
        if expires_ms and expires_ms <= time.time() * 1000:
            self.expired += 1
            return
        self._pairs.append((key, value, expires_ms))
        self._size += len(key) + len(value)
        if len(self._pairs) >= self._pairs_a_batch or self._size >= BATCH_SIZE_MAX:
            self.flush()

    def flush(self) -> None:
        """Write what was taken in."""
        if self._pairs:
            keys, values, expiries = zip(*self._pairs, strict=True)
            self._db._write(None, keys, values, expiries, self._level)
            self.loaded += len(keys)
            self._pairs, self._size = [], 0


@click.command()
@click.argument("store", type=click.Path())
@click.argument("file", type=click.File("rb"), default="-")
@click.option(
    "--batch", "pairs_a_batch", type=click.IntRange(1), default=1000, show_default=True,
    help="Pairs that are written at once, all or nothing.",
)  # fmt: skip
@click.option("--durable", is_flag=True, help="Let each batch survive a power cut.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def load(store: str, file: BinaryIO, pairs_a_batch: int, durable: bool, as_json: bool) -> None:
    """
    Store the JSON lines of FILE or standard input, as dump writes them.

    STORE is created if missing. Pairs whose time is over are left out. At a line that is not
    understood the command stops; the batches before it stay.
    """
    with pykv.open(store) as db:
        loader = Loader(db, pairs_a_batch, durable)
        try:
            with progress("load", _size(file)) as advance:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        loader.add(*parse_line(line, number))
                    advance(len(line))
        except Failure as error:
            before = counted(loader.loaded, "pair")
            raise Failure(f"{error.message}; loaded before it: {before}") from None
        loader.flush()
    if as_json:
        write_json({"loaded": loader.loaded, "expired": loader.expired})
    else:
        expired = f", {loader.expired:,} had expired" if loader.expired else ""
        click.echo(f"{loader.loaded:,} loaded{expired}", err=True)


def _size(file: BinaryIO) -> int | None:
    """Return the bytes of *file*, if it tells."""
    try:
        return os.fstat(file.fileno()).st_size or None  # of a pipe: 0
    except OSError:  # not a file of the system
        return None


# ---- dump ----


@click.command()
@click.argument("store", type=click.Path())
@click.argument("file", type=click.File("wb"), default="-")
@click.option("--prefix", default="", help="Only keys that begin so.")
@click.option("--base64", "is_base64", is_flag=True, help="The prefix is given in base64.")
def dump(store: str, file: BinaryIO, prefix: str, is_base64: bool) -> None:
    """
    Write all keys and values as JSON lines, to FILE or standard output, in no order.

    They are those of the instant at which the command began; expires_ms is the key's newest, where
    another process writes meanwhile.
    """
    start = argument_bytes(prefix, is_base64)
    with pykv.open(store, "r") as db, progress("dump", len(db)) as advance:
        for lines in _lines(db, start):
            file.write(b"".join(lines))
            advance(len(lines))


def _lines(db: pykv.Store, prefix: bytes) -> Iterator[list[bytes]]:
    """Yield the lines of all pairs, some at a time."""
    lines: list[bytes] = []
    for key, value in db.items(prefix=prefix):
        lines.append(line_of(row_of(key, value, expiry_of(db, key))))
        if len(lines) == LINES_A_WRITE:
            yield lines
            lines = []
    yield lines
