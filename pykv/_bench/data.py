"""
data.py -- what is stored: pairs of a given size, or those of the user's own file or directory.

The program that leads the benchmark writes the pairs to a plain file, once, and each process that
measures reads them from there: sizes of key and value, 4 bytes each, then both.
"""

from __future__ import annotations

import csv
import json
import random
import struct
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from pykv._bench.engines import Pair

SIZES = struct.Struct("<II")
POOL_BYTES = 1 << 20  # random bytes that values are cut from: none of it can be compressed
KEY_FIELDS = "key", "id", "_id"  # of a JSON object: the first that is there


def made_up(keys: int, key_bytes: int, value_bytes: int, seed: int) -> Iterator[Pair]:
    """Yield pairs of random bytes, all keys different."""
    source = random.Random(seed)
    pool = source.randbytes(POOL_BYTES + value_bytes)
    seen: set[bytes] = set()
    while len(seen) < keys:
        key = source.randbytes(key_bytes)
        if key not in seen:
            seen.add(key)
            start = source.randrange(POOL_BYTES)
            yield key, pool[start : start + value_bytes]


def read_data(path: Path, bytes_max: int) -> tuple[dict[bytes, bytes], bool]:
    """
    Read a file of JSON lines, CSV or TSV, or a directory.

    Args:
        path: A file, by its ending .csv, .tsv, or anything else for JSON lines; or a directory, of
            which each file is a pair, its path and its bytes.
        bytes_max: When to stop.
    Returns:
        The pairs, of the same key the last; and whether it is all there was.
    """
    if path.is_dir():
        pairs = _of_directory(path)
    elif path.suffix.lower() in (".csv", ".tsv"):
        pairs = _of_table(path, "\t" if path.suffix.lower() == ".tsv" else ",")
    else:
        pairs = _of_json_lines(path)
    found: dict[bytes, bytes] = {}
    for key, value in pairs:
        bytes_max -= len(key) + len(value)
        if bytes_max < 0:
            return found, False
        found[key] = value
    return found, True


def _of_directory(path: Path) -> Iterator[Pair]:
    for each in sorted(path.rglob("*")):
        if each.is_file() and not each.is_symlink():
            yield (
                each.relative_to(path).as_posix().encode("utf-8", "surrogateescape"),
                each.read_bytes(),
            )


def _of_table(path: Path, delimiter: str) -> Iterator[Pair]:
    """The first column is the key, the others together the value."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
        for row in csv.reader(lines, delimiter=delimiter):
            if row:
                key, value = row[0], delimiter.join(row[1:])
                yield (
                    key.encode("utf-8", "surrogateescape"),
                    value.encode("utf-8", "surrogateescape"),
                )


def _of_json_lines(path: Path) -> Iterator[Pair]:
    """The key is a field that is called so, else the line's number; the value is the line."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: no JSON ({error})") from None
            name = next(
                (field for field in KEY_FIELDS if isinstance(row, dict) and field in row), None
            )
            yield str(number if name is None else row[name]).encode(), line.rstrip(b"\r\n")


def write_pairs(pairs: Iterable[Pair], path: Path) -> None:
    """Write pairs to a file for `read_pairs`."""
    with path.open("wb") as file:
        for key, value in pairs:
            file.write(SIZES.pack(len(key), len(value)) + key + value)


def read_pairs(path: Path, count: int | None = None) -> dict[bytes, bytes]:
    """Read them, or the first *count*."""
    return dict(islice(pairs_of(path), count))


def pairs_of(path: Path) -> Iterator[Pair]:
    """Yield the pairs of such a file."""
    with path.open("rb") as file:
        while sizes := file.read(SIZES.size):
            key_size, value_size = SIZES.unpack(sizes)
            yield file.read(key_size), file.read(value_size)
