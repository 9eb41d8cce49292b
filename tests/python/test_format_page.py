"""
The examples in csrc/format.md, decoded by a program that has read the page and not the C code.

A change to the format that is not in the page, or to the page that is not in the format, fails here
or in tests/c/test_format.c, which encodes the same records and compares them with the page.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

import pytest

import pykv

PAGE = (Path(__file__).resolve().parents[2] / "csrc" / "format.md").read_text()
STORE_ID = bytes(range(16))
SEGMENT_ID = 1

TOMBSTONE, EXPIRY, FRAME, MEMBER, MARK, SEAL = 1, 2, 4, 8, 16, 32
BARE = FRAME | MARK | SEAL
CHUNK_SIZE = 65_536


def crc32c(crc: int, data: bytes) -> int:
    """Continue the checksum *crc* over *data*, bit by bit."""
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def examples() -> dict[str, tuple[int, bytes]]:
    """Return each fenced block of hex by its name: the offset of its first line, and its bytes."""
    found = {}
    for name, body in re.findall(r"^```hex (.+?)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        lines = [line.split() for line in body.splitlines()]
        start = int(lines[0][0], 16)
        data = b""
        for offset, *columns in lines:
            assert int(offset, 16) == start + len(data), f"{name}: a line out of its place"
            data += bytes.fromhex("".join(columns))
        found[name] = start, data
    return found


EXAMPLES = examples()


@dataclass(frozen=True)
class Record:
    """A record as section 2 of the page describes it."""

    flags: int
    sequence: int
    previous: int
    value_size: int
    key: bytes = b""
    value: bytes = b""
    expiry: int = 0


def segment_seed() -> int:
    return crc32c(0, STORE_ID + SEGMENT_ID.to_bytes(8, "little"))


def record_seed(offset: int) -> int:
    return segment_seed() ^ (offset // 16 * 0x9E3779B1) % 2**32


def decode(data: bytes, seed: int) -> tuple[Record, int]:
    """Return the record at the start of *data*, and its size."""
    crc, key_size, flags, value_size = struct.unpack_from("<IHHI", data)
    sequence = int.from_bytes(data[12:18], "little")
    previous = int.from_bytes(data[18:24], "little")
    at, expiry = 24, 0
    if flags & EXPIRY:
        (expiry,) = struct.unpack_from("<Q", data, at)
        at += 8
    key = value = b""
    chunks: tuple[int, ...] = ()
    if not flags & BARE:
        key = data[at : at + key_size]
        at += key_size
        if value_size > CHUNK_SIZE:
            count = -(-value_size // CHUNK_SIZE)
            chunks = struct.unpack_from(f"<{count}I", data, at)
            at += 4 * count
        value = data[at : at + value_size]
        at += value_size
    size = (at + 15) // 16 * 16
    assert not any(data[at:size]), "padding is zeros"
    first = at - value_size if chunks else size
    assert crc == crc32c(seed, data[4:first])
    for i, chunk in enumerate(chunks):
        end = size if i == len(chunks) - 1 else first + (i + 1) * CHUNK_SIZE
        assert chunk == crc32c(0, data[first + i * CHUNK_SIZE : end])
    return Record(flags, sequence, previous, value_size, key, value, expiry), size


def decode_all(name: str) -> list[Record]:
    start, data = EXAMPLES[name]
    records, at = [], 0
    while at < len(data):
        record, size = decode(data[at:], record_seed(start + at))
        records.append(record)
        at += size
    return records


def test_the_examples_are_one_whole_segment() -> None:
    """The blocks of the page follow each other without a gap, from offset 0 to the SEAL."""
    end = 0
    for start, data in EXAMPLES.values():
        assert start == end
        end += len(data)
    assert list(EXAMPLES)[0] == "segment header"
    assert list(EXAMPLES)[-1] == "seal"


def test_segment_header() -> None:
    """The header holds the fields of section 3, and its checksum covers them."""
    _, data = EXAMPLES["segment header"]
    magic, version, kind, number, store_id, hash_key, capacity, zeros, crc = struct.unpack(
        "<8sIIQ16s16sQ60sI", data
    )
    assert (magic, version, kind, number) == (b"pykvseg\n", 1, 0, SEGMENT_ID)
    assert store_id == STORE_ID
    assert hash_key == bytes(range(0xF0, 0x100))
    assert capacity == 128 << 20
    assert not any(zeros)
    assert crc == crc32c(0, data[:124])


def test_the_seeds_that_the_text_names() -> None:
    """The two seeds that section 4 states are those of the formula in section 2."""
    assert f"segment seed is {segment_seed():#010x}" in PAGE
    assert f"record at 128 is {record_seed(128):#010x}" in PAGE


@pytest.mark.parametrize(
    ("name", "records"),
    [
        ("put", [Record(0, 1, 0, 2, b"k", b"hi")]),
        ("delete", [Record(TOMBSTONE, 2, 1 << 28 | 128 // 16, 0, b"k")]),
        ("put with expiry", [Record(EXPIRY, 3, 0, 1, b"session", b"x", 1767225600000)]),
        (
            "batch",
            [
                Record(FRAME, 4, 2, 4),
                Record(MEMBER, 4, 0, 1, b"a", b"1"),
                Record(MEMBER | TOMBSTONE, 4, 1 << 28 | 192 // 16, 0, b"session"),
            ],
        ),
        ("mark", [Record(MARK, 4, 0, 336 // 16)]),
        ("seal", [Record(SEAL, 4, 2, 0)]),
    ],
)
def test_record(name: str, records: list[Record]) -> None:
    """The hex decodes to what the text above it says, at the offset where it stands."""
    assert decode_all(name) == records


def test_a_record_verifies_only_in_its_place() -> None:
    """The same bytes 16 bytes further on do not verify."""
    start, data = EXAMPLES["put"]
    with pytest.raises(AssertionError):
        decode(data, record_seed(start + 16))


def test_chunks(tmp_path: Path) -> None:
    """A value of the size that the text names is on disk as section 2 says."""
    value = bytes(range(250)) * 600
    with pykv.open(tmp_path / "db") as db:
        db.put(b"k", value)
    data = (tmp_path / "db" / "segment-0000000001").read_bytes()
    at = data.index(value) - 37
    seed = crc32c(0, data[24:40] + data[16:24]) ^ (at // 16 * 0x9E3779B1) % 2**32
    record, size = decode(data[at:], seed)
    assert (record.key, record.value) == (b"k", value)
    assert size == 37 + 150_000 + 11
