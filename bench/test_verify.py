"""verify() beside plain reading of the same files, as `cat` does: from memory, and from the disk."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pykv

PART_SIZE = 1 << 20
ROUNDS = 5


def read_files(path: Path) -> int:
    """Read what verify() reads: the segments, to their ends."""
    done = 0
    buffer = bytearray(PART_SIZE)
    for file in path.glob("segment-*"):
        with file.open("rb", buffering=0) as opened:
            while count := opened.readinto(buffer):
                done += count
    return done


def verify(path: Path) -> int:
    with pykv.open(path, "r") as db:
        report = db.verify()
    assert report.ok
    return report.bytes


def forget(path: Path) -> None:
    """Drop the files from the page cache, as far as nobody has them mapped."""
    for file in path.iterdir():
        fd = os.open(file, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


@pytest.fixture(scope="module", params=[100, 10_000])
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, keys: list[bytes]
) -> Path:
    """A store with values of one size; with --keys 100000, of 14 MB and 1 GB."""
    path: Path = tmp_path_factory.mktemp("verify") / f"values-of-{request.param}"
    value = random.Random(1).randbytes(request.param)
    with pykv.open(path) as db:
        for start in range(0, len(keys), 100):
            db.put_many(dict.fromkeys(keys[start : start + 100], value))
    return path


@pytest.mark.benchmark(group="verify")
@pytest.mark.parametrize("cold", [False, True], ids=["from memory", "from disk"])
@pytest.mark.parametrize("act", [read_files, verify], ids=["read", "verify"])
def test_verify(store: Path, benchmark: Any, act: Callable[[Path], int], cold: bool) -> None:
    def prepare() -> None:
        if cold:
            forget(store)

    read = benchmark.pedantic(act, args=(store,), setup=prepare, rounds=ROUNDS, warmup_rounds=1)
    if benchmark.stats is not None:  # as --benchmark-disable leaves it
        benchmark.extra_info["MB/s"] = read / benchmark.stats.stats.median / 1e6
