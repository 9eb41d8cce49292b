"""
pagecache.py -- the same data with less and less memory for it, by the kernel's own accounting of a
control group where we may make one; elsewhere by emptying the cache, reading that share of the
files into it, and then measuring so few reads that it stays so.

What is in the cache is asked of the kernel (mincore), for the data alone; as keys are read at
random, each as likely as the other, the share that is there is the share of reads that need no
disk.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import pykv
from pykv._bench.data import read_pairs
from pykv._bench.engines import grouped
from pykv._bench.latency import summary
from pykv._bench.operations import CHUNK

PERCENTS = (100, 75, 50, 35, 25, 15, 10, 5)
GROUPS = (  # versions 2 and 1: where groups are, files of a limit and of use, a line of /proc
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "0::"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", ":memory:"),
)
CAN_EVICT = hasattr(os, "posix_fadvise")  # else nothing here can be measured, on macOS
PIECE = 64 << 10  # bytes that are read, or left out, together
ROOM = 8 << 20  # for what the process itself comes to need under the limit
READS_SHARE = 50  # without a limit, reads stop at a 50th of the data


def log_files(store: Path) -> list[Path]:
    """Return the files that hold the values."""
    return sorted(store.glob("segment-*"))


def resident_bytes(store: Path) -> int:
    """Return how many bytes of the log are in the page cache."""
    libc = ctypes.CDLL(None, use_errno=True)
    page = mmap.PAGESIZE
    total = 0
    for path in log_files(store):
        size = path.stat().st_size
        if size == 0:
            continue
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) as map_,
        ):
            pages = (size + page - 1) // page
            told = (ctypes.c_ubyte * pages)()
            start = ctypes.c_ubyte.from_buffer(map_)
            try:
                if libc.mincore(
                    ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(size), told
                ):
                    raise OSError(ctypes.get_errno(), "mincore")
            finally:
                del start
            total += page * sum(each & 1 for each in bytes(told))
    return total


def evict(store: Path) -> None:
    """Take the log out of the page cache."""
    for path in log_files(store):
        with path.open("rb") as file:
            os.fsync(file.fileno())  # pages that are not written yet stay
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_through(store: Path, share: float = 1.0) -> None:
    """Bring the log into the page cache, as much as may be there, or a random share of it."""
    source = random.Random(3)
    for path in log_files(store):
        with path.open("rb", buffering=0) as file:
            if share < 1:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # and nothing beyond
            for offset in range(0, path.stat().st_size, PIECE):
                if source.random() < share:
                    os.pread(file.fileno(), PIECE, offset)


@contextmanager
def control_group() -> Iterator[tuple[Path, Path] | None]:
    """Move this process to a group of its own; yield its files of limit and use, or None."""
    for root, limit, use, line in GROUPS:
        group = root / f"pykv-bench-{os.getpid()}"
        try:
            home = root / _group_of_this_process(line)
            group.mkdir()
            (group / limit).stat()  # or memory is not accounted for here
            (group / "cgroup.procs").write_text(str(os.getpid()))
        except OSError:
            with suppress(OSError):
                group.rmdir()
            continue
        try:
            yield group / limit, group / use
        finally:
            (home / "cgroup.procs").write_text(str(os.getpid()))
            group.rmdir()
        return
    yield None


def _group_of_this_process(line: str) -> str:
    """Return its path below the root, by the line of /proc/self/cgroup that has *line* in it."""
    for each in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
        if line in each:
            return each.split(":", 2)[2].lstrip("/")
    raise FileNotFoundError(line)


def prepare(directory: Path, data: str) -> dict[str, Any]:
    """Put the pairs of the file *data* into the store that `measure` reads."""
    with pykv.open(directory / "store") as db:
        for chunk in grouped(read_pairs(Path(data)).items(), CHUNK):
            db.put_many(chunk)
    return {"problems": []}


def measure(
    directory: Path, data: str, percent: int, io: Literal["mmap", "pread"], seconds: float
) -> dict[str, Any]:
    """
    Read keys at random while so many percent of the data can be in memory.

    Args:
        directory: Holds `store`, with the pairs in it, and open nowhere.
        data: File of these pairs.
        percent: Of the log.
        io: As of `pykv.open`.
        seconds: How long to read.
    """
    store = directory / "store"
    pairs = read_pairs(Path(data))
    size = sum(path.stat().st_size for path in log_files(store))
    evict(store)
    with control_group() as group:
        if group is None:
            read_through(store, percent / 100)
        with pykv.open(store, "r", io=io) as db:
            if group is not None:
                limit, use = group
                limit.write_text(str(int(use.read_text()) + ROOM + size * percent // 100))
                read_through(store)
            calls_max = len(pairs) // READS_SHARE if group is None else None
            before = resident_bytes(store)
            times, wrong = read_at_random(db.get, pairs, list(pairs), seconds, calls_max)
            after = resident_bytes(store)
    return {
        "percent": percent,
        "limited_by": "control group" if group is not None else "posix_fadvise",
        "hit_rate": min(1.0, (before + after) / 2 / size),
        "rate": len(times) / sum(times) * 1e9,
        "mean_ns": sum(times) / len(times),
        "latency": summary(times)["percentiles"],
        "problems": [f"page cache, {percent} %: {wrong:,} answers are wrong"] if wrong else [],
    }


def read_at_random(
    get: Callable[[bytes], bytes | None],
    pairs: dict[bytes, bytes],
    keys: list[bytes],
    seconds: float,
    calls_max: int | None,
) -> tuple[list[int], int]:
    """
    Get keys, each as likely as the other.

    Returns:
        Nanoseconds of each call, and how many answers were wrong.
    """
    clock = time.perf_counter_ns
    choose = random.Random(5).choice
    end = clock() + int(seconds * 1e9)
    times: list[int] = []
    wrong = before = 0
    while not times or (before < end and (calls_max is None or len(times) < calls_max)):
        key = choose(keys)
        before = clock()
        value = get(key)
        times.append(clock() - before)
        wrong += value != pairs[key]
    return times, wrong
