"""
quick.py -- the main job: real data in, all of it read back and checked, writers killed, and what
each durability and io mode costs.

The data is the standard library of the Python that runs (library.py). Nothing is shown that
was not measured in this run: what could not be run says so, and makes the exit code 1, as does
every check that fails. Progress is drawn between measurements, never during one.
"""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

import pykv
from pykv._bench.kill import Killed, kill_writers, write_plan
from pykv._bench.library import Batch, Library, read_library
from pykv._bench.machine import machine
from pykv._bench.measure import Timing, time_calls, time_whole, timing_of
from pykv._bench.quick_tables import print_report
from pykv._bench.steps import Steps

MODES = [
    {"durability": durability, "io": io}
    for durability in ("process", "interval", "commit")
    for io in ("mmap", "pread")
]
SINGLE_VALUE_SIZE_MAX = 4096  # bytes: single operations are on identifiers with values up to this
GROUP = 100  # keys of a get_many


@dataclass(frozen=True)
class Size:
    """How much a run does."""

    calls: int  # of a single operation, at most
    seconds: float  # for a single operation, at most
    kills: int  # in each mode
    opens: int  # after a close, of which the median counts


QUICK = Size(calls=20_000, seconds=0.5, kills=3, opens=5)


@dataclass
class ModeResult:
    """
    What one durability and io mode has shown.

    Attributes:
        durability, io: As of `pykv.open`.
        timings: An operation each.
        keys, keydir_bytes, disk_bytes, live_bytes: As `Store.stats` told them, with all data in.
        open_ms: Milliseconds of an open and a first get after a close: the median.
        killed: What the kills have shown; None: they could not be run.
        problems: Checks that failed, and why what is missing could not be run.
    """

    durability: str
    io: str
    timings: list[Timing] = field(default_factory=list)
    keys: int = 0
    keydir_bytes: int = 0
    disk_bytes: int = 0
    live_bytes: int = 0
    open_ms: float | None = None
    killed: Killed | None = None
    problems: list[str] = field(default_factory=list)


def run(directory: Path | None = None, out: Path | None = None) -> int:
    """
    Run it all and print the tables.

    Args:
        directory: Where to make the stores; None: where temporary files go.
        out: Where to write all figures, as quick.json.
    Returns:
        The exit code: 0 if everything ran and every check held.
    """
    size = QUICK
    begun = time.monotonic()
    base = Path(tempfile.mkdtemp(prefix="pykv-bench-", dir=directory))
    try:
        with Steps(2 + 2 * len(MODES)) as steps:
            steps.begin("reading the standard library")
            library = read_library(with_tests=False)
            steps.begin("storing it for the writers")
            source, plan = base / "source.kv", base / "plan.json"
            write_plan(library, plan)
            with pykv.open(source) as db:
                for batch in library.batches:
                    db.put_many(batch)
            results = []
            for options in MODES:
                name = ", ".join(options.values())
                result = ModeResult(options["durability"], options["io"])
                results.append(result)
                try:
                    steps.begin(f"{name}: measuring")
                    measure(result, library, base / "measured.kv", size)
                    steps.begin(f"{name}: killing writers")
                    store = base / "killed.kv"
                    result.killed = kill_writers(library, source, plan, store, options, size.kills)
                    result.problems += result.killed.problems
                except (pykv.Error, OSError) as error:
                    result.problems.append(f"could not be run to its end: {error}")
                for store in (base / "measured.kv", base / "killed.kv"):
                    shutil.rmtree(store, ignore_errors=True)
        seconds = time.monotonic() - begun
        context = machine(base)
    finally:
        shutil.rmtree(base, ignore_errors=True)

    print_report(context, library, results, seconds)
    if out is not None:
        document = {
            "machine": context,
            "seconds": seconds,
            "library": {
                name: getattr(library, name)
                for name in ("files", "identifiers", "places", "source_bytes")
            },
            "modes": [dataclasses.asdict(result) for result in results],
        }
        out.mkdir(parents=True, exist_ok=True)
        (out / "quick.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 1 if any(result.problems for result in results) else 0


def measure(result: ModeResult, library: Library, path: Path, size: Size) -> None:
    """Fill a store at *path*, time each operation, and check after each step what it holds."""
    pairs = library.pairs()
    options = {"durability": result.durability, "io": result.io}
    names = [
        key
        for key, value in pairs.items()
        if key.startswith(b"id:") and len(value) <= SINGLE_VALUE_SIZE_MAX
    ]
    random.Random(1).shuffle(names)
    once = names[: size.calls]
    often = list(islice(chain.from_iterable([names] * (size.calls // len(names) + 1)), size.calls))
    groups = [often[i : i + GROUP] for i in range(0, len(often) - GROUP + 1, GROUP)]
    timings = result.timings

    with pykv.open(path, "n", **options) as db:  # type: ignore[arg-type]
        taken = []
        for batch in library.batches:
            before = time.perf_counter_ns()
            db.put_many(batch)
            taken.append(time.perf_counter_ns() - before)
        timings.append(timing_of("put_many", taken, len(pairs)))
        check(result, db, pairs, "after put_many")

        seconds = size.seconds
        timings.append(
            time_calls("put", lambda key: db.put(key, pairs[key]), often, seconds=seconds)
        )
        timings.append(time_calls("get", db.get, often, seconds=seconds))
        absent = [key + b"?" for key in often]
        timings.append(time_calls("get, absent", db.get, absent, seconds=seconds))
        timings.append(
            time_calls(f"get_many of {GROUP}", db.get_many, groups, seconds=seconds, things=GROUP)
        )
        timings.append(time_whole("items", lambda: sum(1 for _ in db.items())))
        removed = time_calls("delete", db.delete, once, seconds=seconds)
        timings.append(removed)
        gone = once[: removed.calls]
        if any(db.contains_many(gone)) or len(db) != len(pairs) - len(gone):
            result.problems.append("after delete, other keys are there than should be")
        db.put_many({key: pairs[key] for key in gone})
        check(result, db, pairs, "after delete and put_many")
        stats = db.stats()
    result.keys = stats.keys
    result.keydir_bytes = stats.keydir_bytes
    result.disk_bytes = stats.disk_bytes
    result.live_bytes = stats.live_bytes

    opens = []
    for _ in range(size.opens):
        begun = time.perf_counter()
        with pykv.open(path, "w", **options) as db:  # type: ignore[arg-type]
            found = db.get(names[0])
            opens.append((time.perf_counter() - begun) * 1000)
        if found != pairs[names[0]]:
            result.problems.append("the first get after an open has another value")
    result.open_ms = statistics.median(opens)
    with pykv.open(path, "r", io=result.io) as db:  # type: ignore[arg-type]
        check(result, db, pairs, "after reopening")


def check(result: ModeResult, db: pykv.Store, pairs: Batch, when: str) -> None:
    """Read everything back, by key and by iteration, and compare it; verify the store."""
    if len(db) != len(pairs):
        result.problems.append(f"{when}, there are {len(db):,} keys, not {len(pairs):,}")
    wrong = sum(a != b for a, b in zip(db.get_many(pairs), pairs.values(), strict=True))
    if wrong:
        result.problems.append(f"{when}, get_many() has {wrong:,} wrong values")
    seen = 0
    for key, value in db.items():
        seen += 1
        wrong += pairs.get(key) != value
    if wrong or seen != len(pairs):
        result.problems.append(f"{when}, items() has {seen:,} pairs, {wrong:,} of them wrong")
    report = db.verify()
    if not report.ok:
        result.problems.append(f"{when}, verify() finds {report.damage_count:,} damaged places")
