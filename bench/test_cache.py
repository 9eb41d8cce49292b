"""
Gets while the data is in memory, while it is not, and while only a part of it can be.

Cold: before each round all files are synced, closed and dropped from the page cache, then opened anew.
A limit: the gets are those of a process in a cgroup of its own, whose memory, page cache included, is a
quarter of the data; where no cgroup can be made, that is skipped.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import ENGINES, LmdbLarge, fill

GETS = 1000  # in a round
VALUE = random.Random(4).randbytes(1000)
FLOOR = 8 << 20  # bytes of memory that Python needs for itself
context = multiprocessing.get_context("fork")
stores = pytest.mark.parametrize("name", ["pykv", "pykv, pread", "lmdb", "sqlite"])


def drop(path: Path) -> None:
    """Have none of the files in *path*, which nobody has mapped, in the page cache."""
    for file in path.rglob("*"):
        if file.is_file():
            fd = os.open(file, os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


@contextlib.contextmanager
def memory_limit(size: int) -> Iterator[Callable[[], None]]:
    """A cgroup of so many bytes: yields what a process calls to enter it."""
    own = {}  # controllers: path
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        own[names] = path
    if "memory" in own:
        root, limit = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
    else:
        root, limit = Path("/sys/fs/cgroup"), "memory.max"
    parent = root / own.get("memory", own.get("", "/")).lstrip("/")
    group = (parent if parent.is_dir() else root) / f"pykv-bench-{os.getpid()}"
    try:
        group.mkdir()
        (group / limit).write_text(str(size))
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip(f"no cgroup with a memory limit can be made here: {error}")
    try:
        yield lambda: (group / "cgroup.procs").write_text(str(os.getpid()))  # type: ignore[misc]
    finally:
        group.rmdir()


def get_some(store: Any, keys: list[bytes]) -> None:
    get = store.get
    for key in keys:
        assert len(get(key)) == 1000


def make(name: str, path: Path, keys: list[bytes]) -> None:
    store = ENGINES[name](path)
    fill(store, keys, VALUE)
    store.close()


@pytest.fixture
def picked(keys: list[bytes]) -> Callable[[], list[bytes]]:
    source = random.Random(5)
    return lambda: source.choices(keys, k=GETS)


@stores
@pytest.mark.benchmark
@pytest.mark.parametrize("cache", ["warm", "cold"])
def test_page_cache(
    tmp_path: Path,
    keys: list[bytes],
    picked: Callable[[], list[bytes]],
    benchmark: Any,
    measure: Callable[..., Any],
    name: str,
    cache: str,
) -> None:
    benchmark.group = f"get, page cache {cache}"
    make(name, tmp_path, keys)
    opened = [ENGINES[name](tmp_path)]
    opened[0].begin_reading()
    get_some(opened[0], keys)

    def prepare() -> tuple[tuple[Any, list[bytes]], dict[str, Any]]:
        if cache == "cold":
            opened.pop().close()
            drop(tmp_path)
            opened.append(ENGINES[name](tmp_path))
            opened[0].begin_reading()
        return (opened[0], picked()), {}

    measure(get_some, GETS, setup=prepare, rounds=5)
    opened[0].close()


@pytest.mark.benchmark(group="get, page cache cold")
def test_bare_reads(tmp_path: Path, keys: list[bytes], measure: Callable[..., Any]) -> None:
    """What the disk can do: 4 KiB at random places of a file as large."""
    size = max(len(keys) * 1000, 1 << 20)
    file = tmp_path / "bare"
    file.write_bytes(bytes(size))
    source = random.Random(6)

    def prepare() -> tuple[tuple[int], dict[str, Any]]:
        drop(tmp_path)
        fd = os.open(file, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        return (fd,), {}

    def run(fd: int) -> None:
        for _ in range(GETS):
            os.pread(fd, 4096, source.randrange(size) & ~4095)
        os.close(fd)

    measure(run, GETS, setup=prepare, rounds=5)


@stores
@pytest.mark.benchmark(group="get, memory for a quarter of the data")
def test_memory_limit(
    tmp_path: Path,
    keys: list[bytes],
    picked: Callable[[], list[bytes]],
    benchmark: Any,
    measure: Callable[..., Any],
    name: str,
) -> None:
    make(name, tmp_path, keys)
    drop(tmp_path)
    size = sum(file.stat().st_blocks * 512 for file in tmp_path.rglob("*") if file.is_file())
    ours, theirs = context.Pipe()

    def serve(enter: Callable[[], None]) -> None:
        ours.close()
        enter()
        store = (LmdbLarge if name == "lmdb" else ENGINES[name])(tmp_path)
        store.begin_reading()
        for wanted in iter(theirs.recv, None):
            get_some(store, wanted)
            theirs.send(True)
        store.close()

    with memory_limit(FLOOR + size // 4) as enter:
        child = context.Process(target=serve, args=(enter,))
        child.start()
        theirs.close()

        def run() -> None:
            ours.send(picked())
            assert ours.recv()

        measure(run, GETS, rounds=5, warmup_rounds=5)
        benchmark.extra_info["data, MiB"] = size >> 20
        ours.send(None)
        child.join()
        assert child.exitcode == 0
