"""
_cli_rows.py -- records as JSON lines, and the command `dump` that writes them (_cli_load.py reads).

A record is one line: {"key": "user:1", "value": "Ada", "version": 7}. Where bytes are not UTF-8 the
field is called key_base64 or value_base64; expires_ms, milliseconds since 1970, is there where the
key has a time to live. Lines without a version are those of dumps before there were any. The first
line, {"version": 9}, is the store's, which is more where its newest records were deleted. A field
that we do not know is refused: a slip of the pen must not lose what it means.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO, TypedDict

import click

import pykv
from pykv._cli_common import Failure, argument_bytes, decode_base64, progress
from pykv._records import Record, records_of

LINES_A_WRITE = 500
EXPIRY_MAX = (1 << 63) - 1
VERSION_MAX = (1 << 48) - 1


class Row(TypedDict, total=False):
    """A record as a line of JSON."""

    key: str
    key_base64: str
    value: str
    value_base64: str
    expires_ms: int
    version: int


FIELDS = frozenset({"key", "key_base64", "value", "value_base64", "expires_ms", "version"})


def row_of(key: bytes, value: bytes | None = None, expires_ms: int = 0, version: int = 0) -> Row:
    """Return the document of a record; without a value, of the key alone."""
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
    if version:
        row["version"] = version
    return row


def line_of(row: Row) -> bytes:
    """Return the line, with its end."""
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def parse_line(line: bytes, number: int) -> Record | int:
    """Return the record of a line, or the version of the store; a Failure names the line."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Failure(f"line {number} is not JSON: {error}") from None
    if not isinstance(row, dict):
        raise Failure(f"line {number} is not a JSON object")
    if unknown := sorted(row.keys() - FIELDS):
        raise Failure(f"line {number}: there is no field {unknown[0]!r}")
    version = row.get("version", 0)
    if type(version) is not int or not 0 <= version <= VERSION_MAX:
        raise Failure(f"line {number}: version must be a number of up to 48 bits")
    if row.keys() == {"version"}:
        return version
    key = _content(row, "key", number)
    value = _content(row, "value", number)
    expires_ms = row.get("expires_ms", 0)
    if type(expires_ms) is not int or not 0 <= expires_ms <= EXPIRY_MAX:
        raise Failure(f"line {number}: expires_ms must be milliseconds since 1970")
    return Record(key, value, expires_ms, version)


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


# ---- dump ----


@click.command()
@click.argument("store", type=click.Path())
@click.argument("file", type=click.File("wb"), default="-")
@click.option("--prefix", default="", help="Only keys that begin so.")
@click.option("--base64", "is_base64", is_flag=True, help="The prefix is given in base64.")
def dump(store: str, file: BinaryIO, prefix: str, is_base64: bool) -> None:
    """
    Write all keys and values as JSON lines, to FILE or standard output, in no order.

    They are those of the instant at which the command began, with versions and times of expiry; the
    first line has the version of the store.
    """
    start = argument_bytes(prefix, is_base64)
    with (
        pykv.open(store, "r") as db,
        db.snapshot() as snapshot,
        progress("dump", len(snapshot)) as advance,
    ):
        if snapshot.version:
            file.write(line_of({"version": snapshot.version}))
        for lines in _lines(records_of(snapshot, start)):
            file.write(b"".join(lines))
            advance(len(lines))


def _lines(records: Iterator[Record]) -> Iterator[list[bytes]]:
    """Yield the lines of all records, some at a time."""
    while lines := [line_of(row_of(*record)) for record in islice(records, LINES_A_WRITE)]:
        yield lines
