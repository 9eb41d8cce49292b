"""
plan.py -- what a run consists of: sizes that fit into the machine, and a list of tasks.

Engines take turns, round after round, so that what else the machine does hits all of them alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pykv._bench import cost, durability, pagecache, space, tradeoff
from pykv._bench.data import made_up, read_data, write_pairs
from pykv._bench.engines import engines
from pykv._bench.library import read_library
from pykv._bench.machine import disk_free, memory_available

MEMORY_SHARE = 4  # a process takes a 4th of what is free, at most
DISK_SHARE = 4
PAIR_OVERHEAD = 200  # bytes of RAM of a pair in Python, beside its own
STORES_PER_PAIR = 12  # times its size: what stores of a task hold together, dead records and all


@dataclass(frozen=True)
class Size:
    """
    How much a run does.

    Attributes:
        keys: Of the comparison.
        rounds: Of each engine; figures are the medians.
        seconds: For each operation or workload.
        records: Of YCSB.
        rate: Calls a second of the open loops.
        cache_bytes: Of data for the trade-offs.
        with_tests: The standard library's own tests are part of the real data.
    """

    keys: int
    rounds: int
    seconds: float
    records: int
    rate: float
    cache_bytes: int
    with_tests: bool


SIZES = {
    "standard": Size(150_000, 3, 0.2, 50_000, 10_000, 128 << 20, False),
    "full": Size(1_000_000, 5, 2.0, 500_000, 10_000, 1 << 30, True),
}


@dataclass(frozen=True)
class Options:
    """
    What the user wants.

    Attributes:
        size: "standard" or "full".
        peers: Names of engines beside pykv; None: all that are there.
        data: The user's own, instead of pairs made up.
        keys, key_bytes, value_bytes: Of the pairs made up.
        ram_price, disk_price: Of a gigabyte a month.
    """

    size: str = "standard"
    peers: Sequence[str] | None = None
    data: Path | None = None
    keys: int | None = None
    key_bytes: int = 16
    value_bytes: int = 100
    ram_price: float = cost.RAM_PRICE
    disk_price: float = cost.DISK_PRICE

    def chosen(self, missing: dict[str, str]) -> list[str]:
        """Return the names of the engines to run, of those that are not missing."""
        wanted = list(engines()) if self.peers is None else ["pykv", *self.peers]
        return [name for name in dict.fromkeys(wanted) if name not in missing]


def check_names(peers: str) -> list[str]:
    """Return the names of *peers*, which commas divide; a ValueError if there is no such engine."""
    names = [name.strip() for name in peers.split(",") if name.strip()]
    for name in names:
        if name not in engines():
            raise ValueError(f"no peer is called {name!r}: {', '.join(engines())}")
    return names


@dataclass(frozen=True)
class Task:
    """
    A part to run.

    Attributes:
        part: Of worker.PARTS.
        label: What the user reads while it runs.
        arguments: Of the part.
        about: Which of several runs of the part it belongs to.
        keep: A directory that tasks share, one after another; None: an empty one of its own.
    """

    part: str
    label: str
    arguments: dict[str, Any] = field(default_factory=dict)
    about: str = ""
    keep: str | None = None


def fitting(size: Size, pair_bytes: int, base: Path) -> Size:
    """Return *size* with fewer keys and less data where the machine has no room for all of it."""
    memory = memory_available() // MEMORY_SHARE
    disk = disk_free(base) // DISK_SHARE
    keys = min(memory // (pair_bytes + PAIR_OVERHEAD), disk // (STORES_PER_PAIR * pair_bytes))
    records = min(memory // (1000 + PAIR_OVERHEAD), disk // (STORES_PER_PAIR * 1000))
    return replace(
        size,
        keys=max(1, min(size.keys, keys)),
        records=max(1, min(size.records, records)),
        cache_bytes=max(1 << 20, min(size.cache_bytes, memory // 2, disk // STORES_PER_PAIR)),
    )


def plan(options: Options, base: Path, chosen: Sequence[str]) -> tuple[list[Task], dict[str, Any]]:
    """Write the data to *base*; return the tasks, and what the data is."""
    size = SIZES[options.size]
    if options.keys is not None:
        size = replace(size, keys=options.keys)
    pair_bytes = options.key_bytes + options.value_bytes
    size = fitting(size, pair_bytes, base)
    if size.keys * 2 > 256**options.key_bytes:
        raise ValueError(
            f"there are no {size.keys:,} different keys of {options.key_bytes} bytes to draw"
        )
    data: dict[str, Any] = asdict(size)

    compared, real, cached = base / "compared", base / "real", base / "cached"
    library = read_library(size.with_tests).pairs()
    write_pairs(library.items(), real)
    if options.data is None:
        data["about"] = (
            f"{size.keys:,} keys of {options.key_bytes} random bytes,"
            f" values of {options.value_bytes}"
        )
        write_pairs(made_up(size.keys, options.key_bytes, options.value_bytes, seed=1), compared)
    else:
        pairs, whole = read_data(options.data, memory_available() // MEMORY_SHARE // 2)
        if options.keys is not None:
            pairs = dict(list(pairs.items())[: options.keys])
        part = "" if whole and options.keys is None else "the beginning of "
        data["about"] = f"{part}{options.data}: {len(pairs):,} pairs"
        size = replace(size, keys=len(pairs))
        if not pairs:
            raise ValueError(f"{options.data} holds nothing to store")
        pair_bytes = sum(len(key) + len(value) for key, value in pairs.items()) // len(pairs)
        data |= asdict(size)
        write_pairs(pairs.items(), compared)
    data["real"] = (
        f"the sources of Python's standard library and an index of them, {len(library):,} pairs"
    )
    data["cached"] = f"{size.cache_bytes // 1016:,} values of 1,000 bytes"
    write_pairs(made_up(size.cache_bytes // 1016, 16, 1000, seed=2), cached)

    tasks = _comparison(size, pair_bytes, chosen, compared, real)
    tasks += _choices(size, compared, cached)
    return tasks, data


def _comparison(
    size: Size, pair_bytes: int, chosen: Sequence[str], compared: Path, real: Path
) -> list[Task]:
    tasks = []
    seconds = size.seconds
    for number in range(size.rounds):
        for engine in chosen:
            arguments = {
                "engine": engine,
                "data": str(compared),
                "seconds": seconds,
                "first": number == 0,
            }
            label = f"operations, round {number + 1}: {engine}"
            tasks.append(Task("operations", label, arguments, "made up"))
    shape = [size.keys, size.keys * pair_bytes]
    for engine in chosen:
        arguments = {"engine": engine, "data": str(compared), "shape": shape, "seconds": seconds}
        tasks.append(Task("occupied", f"RAM: {engine}", arguments))
    for number in range(size.rounds):
        for engine in chosen:
            arguments = {"engine": engine, "records": size.records, "seconds": seconds}
            tasks.append(Task("ycsb", f"YCSB, round {number + 1}: {engine}", arguments))
    for engine in chosen:
        arguments = {
            "engine": engine,
            "data": str(compared),
            "rate": size.rate,
            "seconds": 4 * seconds,
        }
        tasks.append(Task("latency", f"latencies: {engine}", arguments))
    for engine in chosen:
        arguments = {"engine": engine, "data": str(real), "seconds": seconds, "first": False}
        tasks.append(Task("operations", f"real data: {engine}", arguments, "real"))
    return tasks


def _choices(size: Size, compared: Path, cached: Path) -> list[Task]:
    """The tasks that show what pykv's own options cost."""
    data, seconds = {"data": str(cached)}, 2 * size.seconds
    tasks = []
    if pagecache.CAN_EVICT:
        tasks.append(Task("prepare", "storing data for the trade-offs", data, keep="choices"))
        for choice in tradeoff.CHOICES:
            arguments = data | {"choice": choice, "seconds": seconds}
            tasks.append(Task("tradeoff", f"RAM against disk: {choice}", arguments, keep="choices"))
        for io in ("mmap", "pread"):
            for percent in pagecache.PERCENTS:
                arguments = data | {"percent": percent, "io": io, "seconds": seconds}
                tasks.append(
                    Task("pagecache", f"page cache: {io}, {percent} %", arguments, keep="choices")
                )
    for mode in durability.LOST:
        for threads in durability.THREADS:
            arguments = {"durability": mode, "threads": threads, "seconds": seconds}
            tasks.append(Task("durability", f"durability: {mode}, {threads} threads", arguments))
    for percent in space.PERCENTS:
        arguments = {"data": str(compared), "percent": percent, "seconds": seconds}
        tasks.append(Task("space", f"space: {percent} %", arguments))
    return tasks
