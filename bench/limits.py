"""
limits.py -- what this machine can do at best, whatever the store: the physical limits beside which
docs/performance.md puts pykv.

    python bench/limits.py [--keys 1000000] [--directory DIR] [--write]

Cache misses by bench/c/floor.c, calls by timeit, the disk by bare loops in --directory. --write runs
bench/c/core.c, too, and puts both tables into docs/performance.md.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "c"))

from instructions import PAGE, build, tell

from pykv._core import ffi, lib

ROOT = Path(__file__).resolve().parents[1]
SYNCS, READS, FILE_SIZE = 300, 2000, 1 << 30
Row = tuple[str, float]  # what, nanoseconds


class Step(ctypes.Structure):
    """struct floor_step of bench/c/floor.h."""

    _fields_ = [("group", ctypes.c_size_t)] + [
        (name, ctypes.c_bool) for name in ("table", "key", "record", "append")
    ]


def memory(work: Path, keys: int) -> list[Row]:
    """Misses in memory of the size of the keydir and the log of so many keys."""
    sources = [ROOT / "bench/c/floor.c", ROOT / "csrc/checksum.c"]
    library = work / "floor.so"
    flags = ["-O3", "-std=c11", "-shared", "-fPIC", f"-I{ROOT / 'csrc'}"]
    subprocess.run([os.environ.get("CC", "cc"), *flags, *sources, "-o", library], check=True)
    floor = ctypes.CDLL(os.fspath(library))
    floor.floor_ns.restype = ctypes.c_double
    floor.floor_init.restype = ctypes.c_bool
    state = ctypes.create_string_buffer(64)  # struct floor is smaller
    if not floor.floor_init(state, ctypes.c_size_t(keys)):
        raise SystemExit("there is not enough memory: choose fewer --keys")

    def step(group: int, **what: bool) -> float:
        return min(floor.floor_ns(state, ctypes.byref(Step(group, **what))) for _ in range(3))

    size = keys * 144 >> 20
    rows = [
        (f"a random line of a table of {keys * 116 // 10 >> 20} MiB", step(1, table=True)),
        (f"a random line of a log of {size} MiB", step(1, key=True)),
        ("a random record of it: 144 bytes, checksum, copy", step(1, record=True)),
        ("the same, 64 at once", step(64, record=True)),
        ("144 bytes and their checksum appended", step(64, append=True)),
    ]
    floor.floor_release(state)
    return rows


def calls() -> list[Row]:
    """What Python takes to call something that does nothing, or next to it."""
    rows = ffi.gc(lib.pykv_rows_new(), lib.pykv_rows_free)
    pairs = {b"%016d" % number: b"" for number in range(100)}
    key, number = b"%016d" % 1, 1000

    def time_of(act: str, names: dict[str, object]) -> float:
        return min(timeit.repeat(act, globals=names, number=number, repeat=50)) / number * 1e9

    return [
        ("a function of Python that does nothing", time_of("f()", {"f": lambda: None})),
        ("a get of a dict", time_of("get(key)", {"get": pairs.get, "key": key})),
        ("a call through cffi, no argument", time_of("f()", {"f": lib.pykv_version_string})),
        (
            "a call through cffi, one pointer",
            time_of("f(x)", {"f": lib.pykv_rows_count, "x": rows}),
        ),
    ]


def median_ns(act: Callable[[], object], count: int) -> float:
    times = []
    for _ in range(count):
        start = time.perf_counter_ns()
        act()
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times)


def disk(work: Path) -> list[Row]:
    """Bare system calls; a file of FILE_SIZE is read, none of it in the page cache."""
    fd = os.open(work / "file", os.O_RDWR | os.O_CREAT, 0o600)
    piece = random.Random(1).randbytes(1 << 20)
    for at in range(0, FILE_SIZE, len(piece)):
        os.pwrite(fd, piece, at)
    os.fsync(fd)
    places = random.Random(2)

    def sync() -> None:
        os.pwrite(fd, piece[:144], 0)
        os.fdatasync(fd)

    def read() -> None:
        os.pread(fd, 4096, places.randrange(FILE_SIZE) & ~4095)

    rows = [("pwrite of 144 bytes, and fdatasync", median_ns(sync, SYNCS))]
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    rows.append(("4 KiB at random, not in the page cache", median_ns(read, READS)))
    os.pread(fd, 4096, 0)
    rows.append(
        ("4 KiB in the page cache, by pread", median_ns(lambda: os.pread(fd, 4096, 0), READS))
    )
    with mmap.mmap(fd, 1 << 24) as mapped:
        pages = iter(range(0, 1 << 24, 1 << 16))  # the kernel maps sixteen at a time

        def touch() -> int:
            return mapped[next(pages)]

        os.pread(fd, 1 << 24, 0)
        rows.append(("16 pages of it that are mapped", median_ns(touch, 256)))
    os.close(fd)
    return rows


def machine() -> str:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    name = model[1] if model else platform.machine()
    return (
        f"{os.cpu_count()} x {name}, Linux {platform.release()}, Python {platform.python_version()}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--directory", type=Path, help="on the disk to measure")
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        work = Path(directory)
        rows = memory(work, options.keys) + calls() + disk(work)
        table = "".join(f"| {what} | {ns:,.0f} |\n" for what, ns in rows)
        limits = f"| {machine()} | ns |\n|---|---:|\n{table}"
        print(limits)
        if options.write:
            command = [*build(work)[:2], str(options.keys)]
            core = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            print(core)
            tell("limits", limits)
            tell("core", f"```\n{core}```\n")


if __name__ == "__main__":
    main()
