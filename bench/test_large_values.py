"""
A value of 64 MiB beside a plain file, in turn, in one run: 4 KiB out of the middle of it, all of it at
once, and read and written as a file in pieces of 1 MiB.

    pytest bench/test_large_values.py -s --value-mib 64

Neither side syncs: what both have done survives a death of the process. It never fails for being
slow: speed is shown, not asserted.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pykv

PART_SIZE = 4096
PARTS = 1_000  # a round
PIECE_SIZE = 1 << 20
ROUNDS = 7


def read_all(file: Any) -> None:
    with file:
        while file.read(PIECE_SIZE):
            pass


def write_all(file: Any, piece: bytes, count: int) -> None:
    with file:
        for _ in range(count):
            file.write(piece)


@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_large_values(tmp_path: Path, pytestconfig: pytest.Config, io: Any) -> None:
    pieces = pytestconfig.getoption("--value-mib")
    size, numbers = pieces * PIECE_SIZE, random.Random(1)
    piece, plain = numbers.randbytes(PIECE_SIZE), tmp_path / "plain"
    times: dict[str, list[float]] = {}

    def note(name: str, run: Callable[[], object], count: int = 1) -> None:
        start = time.perf_counter()
        run()
        times.setdefault(name, []).append((time.perf_counter() - start) / count)

    with pykv.open(tmp_path / "db", io=io) as db:
        for _ in range(ROUNDS):
            note("write, file", lambda: write_all(plain.open("wb"), piece, pieces))
            note("write, pykv", lambda: write_all(db.open_value(b"k", "wb"), piece, pieces))
            places = [numbers.randrange(size - PART_SIZE) for _ in range(PARTS)]
            fd = os.open(plain, os.O_RDONLY)
            parts = [os.pread(fd, PART_SIZE, place) for place in places]
            assert parts == [db.get(b"k", None, place, PART_SIZE) for place in places]
            note(
                "4 KiB, file",
                lambda fd=fd, p=places: [os.pread(fd, PART_SIZE, n) for n in p],
                PARTS,
            )
            note(
                "4 KiB, pykv", lambda p=places: [db.get(b"k", None, n, PART_SIZE) for n in p], PARTS
            )
            os.close(fd)
            note("read at once, file", plain.read_bytes)
            note("read at once, pykv", lambda: db[b"k"])
            note("read in pieces, file", lambda: read_all(plain.open("rb")))
            note("read in pieces, pykv", lambda: read_all(db.open_value(b"k")))
    medians = {name: statistics.median(found) for name, found in times.items()}
    print(f"\n{pieces} MiB, io={io!r}, medians of {ROUNDS} rounds\n")
    print(f"{'':24}{'us':>11}{'MiB/s':>9}{'of file':>9}")
    for name, median in medians.items():
        done = PART_SIZE if name.startswith("4 KiB") else size
        of_file = median / medians[name.replace("pykv", "file")]
        print(f"{name:24}{median * 1e6:11.1f}{done / median / (1 << 20):9,.0f}{of_file:9.2f}")
