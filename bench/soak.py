"""
soak.py -- half an hour of everything at once, on a store as it opens by default.

    python bench/soak.py [--seconds 1800] [--json FILE] [--svg FILE] [--keys N] [--rate N] [--directory DIR]

Two processes write, each to keys of its own: overwrites in turn zipfian and uniform, deletes, keys that
expire, and gets. They take turns at holding a snapshot for a fifteenth of the time; for as long again
nobody has one. A third process reads the keys of both. --rate is the operations a second of each writer,
0: as many as it can.

Wrong answers: a writer has a model of its keys in memory, with which every get, every snapshot at its end
and, when all is over, every key must agree: in the store as it is, and once more after its keydir was
lost. The reader meets no value but the newest acknowledged one, or a newer one.

The bound: at every sample, one a second, all files of the store but what snapshots keep (`held_bytes`:
segments that were compacted and only wait for snapshots) take at most the space factor times the live
bytes, and two segments, each a sixteenth of the log, 4 to 128 MiB. Files count by the blocks that they have.

Exit status 1: the bound was broken, or an answer was wrong. Speed is shown, not judged.
"""

from __future__ import annotations

import argparse
import itertools
import json
import mmap
import multiprocessing
import os
import platform
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pykv

SPACE_FACTOR = 2.0  # the default of pykv.open
WRITERS = 2
BLOCK = 200  # operations between two looks at the clock
SLOTS = 1200  # of a histogram
FILLER = random.Random(1).randbytes(512)
CLOCK_MS = 10  # what two looks at the wall clock may differ by
context = multiprocessing.get_context("fork")


# ---- What a key must hold ----


def words(count: int) -> memoryview:
    """Numbers of 64 bits in memory that forked processes share."""
    return memoryview(mmap.mmap(-1, 8 * count)).cast("Q")


def key_of(owner: int, number: int) -> bytes:
    return b"%d:%08d" % (owner, number)


def value_of(key: bytes, generation: int) -> bytes:
    """Of 30 to 330 bytes, no two alike."""
    start = (int(key[-4:]) * 7 + generation * 13) % 200
    return b"%b;%d;" % (key, generation) + FILLER[start : start + 20 + generation * 31 % 280]


class Model:
    """
    The keys of one writer. A write of a key is told twice: `begun` is raised before it, `done` after it.

    An entry of `done` is a generation, which counts the writes of a key, and the lowest bit says whether
    it left a value. `early` and `late`, in milliseconds: until when that is there for certain, and from
    when on for certain no more; 0: for ever.
    """

    def __init__(self, owner: int, keys: int) -> None:
        self.owner = owner
        self.begun, self.done, self.early, self.late = (words(keys) for _ in range(4))

    def copy(self) -> Model:
        other = Model(self.owner, 1)
        other.done, other.early, other.late = (
            memoryview(bytes(each)).cast("Q") for each in (self.done, self.early, self.late)
        )
        return other

    def check(self, number: int, found: bytes | None, start: float, end: float) -> None:
        """Fail if a read between *start* and *end*, by the wall clock, cannot have *found* that."""
        key, state, late = key_of(self.owner, number), self.done[number], self.late[number]
        if not state & 1 or (late and late < start * 1000):
            right = found is None
        elif found is None:
            right = bool(late) and self.early[number] < end * 1000
        else:
            right = found == value_of(key, state >> 1)
        if not right:
            raise AssertionError(f"wrong answer for {key!r}, generation {state >> 1}: {found!r}")

    def check_all(self, reader: Any, clock: float | None = None) -> None:
        """Check every key, as of now or of the time *clock* of a snapshot, which must list just these."""
        count = 0
        for first in range(0, len(self.done), 1000):
            numbers = range(first, min(first + 1000, len(self.done)))
            start = clock or time.time()
            values = reader.get_many([key_of(self.owner, number) for number in numbers])
            end = clock or time.time()
            for number, value in zip(numbers, values, strict=True):
                self.check(number, value, start, end)
                count += value is not None
        if clock is not None:
            listed = sum(1 for _ in reader.keys(prefix=b"%d:" % self.owner))
            assert listed == count, f"the snapshot lists {listed} keys in place of {count}"


# ---- Histograms: 32 steps for each power of two, as HdrHistogram has them ----


def slot_of(ns: int) -> int:
    shift = max(ns.bit_length() - 6, 0)
    return min((shift << 5) + (ns >> shift), SLOTS - 1)


def ns_of(slot: int) -> int:
    """The longest time of a slot."""
    shift = max((slot >> 5) - 1, 0)
    return ((slot - (shift << 5) + 1) << shift) - 1


def percentile_us(counts: list[int], share: float) -> float | None:
    left = sum(counts) * share
    if not left:
        return None
    for slot, count in enumerate(counts):  # noqa: B007
        left -= count
        if left <= 0:
            break
    return ns_of(slot) / 1000


class Timed:
    """Puts and gets of one process, counted by how long they took."""

    def __init__(self) -> None:
        self.puts, self.gets = words(SLOTS), words(SLOTS)


# ---- The processes ----


class Soak:
    """What all processes share."""

    def __init__(self, path: Path, keys: int, seconds: float, rate: float) -> None:
        self.path, self.keys, self.rate = path, keys, rate
        self.hold = seconds / 15
        self.models = [Model(owner, keys) for owner in range(WRITERS)]
        self.times = [Timed() for _ in range(WRITERS + 1)]
        self.stop = words(1)
        self.start = time.monotonic()


def write(soak: Soak, owner: int) -> None:
    """The life of a writer."""
    model, timed, chance = soak.models[owner], soak.times[owner], random.Random(owner)
    numbers = range(soak.keys)
    zipfian = list(itertools.accumulate(1 / (number + 1) ** 0.99 for number in numbers))
    snapshot: Any = None
    due = time.monotonic()
    with pykv.open(soak.path) as db:
        for block in itertools.count():
            if soak.stop[0]:
                break
            weights = zipfian if block % 2 else None
            for number in chance.choices(numbers, cum_weights=weights, k=BLOCK):
                operate(db, model, timed, number, chance, soak.hold)
            held = int((time.monotonic() - soak.start) / soak.hold) % (2 * WRITERS) == 2 * owner
            if held and snapshot is None:
                clock = time.time()
                snapshot = db.snapshot(), model.copy(), clock
            elif not held and snapshot is not None:
                check_snapshot(*snapshot)
                snapshot = None
            if soak.rate:
                due = max(due + BLOCK / soak.rate, time.monotonic() - 1)
                time.sleep(max(0, due - time.monotonic()))
        if snapshot is not None:
            check_snapshot(*snapshot)


def operate(
    db: pykv.Store, model: Model, timed: Timed, number: int, chance: random.Random, life: float
) -> None:
    """One operation on a key: a put in 17 of 20 cases, one in 20 of them for a while; a delete or a get."""
    key, action, clock = key_of(model.owner, number), chance.random(), time.perf_counter_ns
    if action < 0.1:
        wall = time.time()
        start = clock()
        found = db.get(key)
        timed.gets[slot_of(clock() - start)] += 1
        model.check(number, found, wall, time.time())
        return
    generation = model.begun[number] = model.begun[number] + 1
    if action < 0.15:
        db.delete(key)
        model.done[number] = generation << 1
        return
    value = value_of(key, generation)
    ttl = chance.uniform(0.1, life) if action < 0.2 else None
    wall = time.time()
    start = clock()
    if ttl is None:
        db[key] = value
    else:
        db.put(key, value, ttl=ttl)
    timed.puts[slot_of(clock() - start)] += 1
    model.early[number] = 0 if ttl is None else int((wall + ttl) * 1000) - CLOCK_MS
    model.late[number] = 0 if ttl is None else int((time.time() + ttl) * 1000) + CLOCK_MS
    model.done[number] = generation << 1 | 1


def check_snapshot(snapshot: pykv.Snapshot, model: Model, clock: float) -> None:
    """It shows what its writer's keys held when it was taken; and is closed."""
    with snapshot:
        model.check_all(snapshot, clock)


def read(soak: Soak) -> None:
    """The life of the reader: in pieces, so that it leaves the processors to the writers."""
    timed, chance, clock = soak.times[WRITERS], random.Random(WRITERS), time.perf_counter_ns
    with pykv.open(soak.path, "r") as db:
        while not soak.stop[0]:
            for number in chance.choices(range(soak.keys), k=BLOCK):
                model = chance.choice(soak.models)
                key, before = key_of(model.owner, number), model.done[number]
                start = clock()
                found = db.get(key)
                timed.gets[slot_of(clock() - start)] += 1
                if found is not None:
                    generation = int(found.split(b";", 2)[1])
                    assert before >> 1 <= generation <= model.begun[number], (key, before, found)
                    assert found == value_of(key, generation), (key, found)
            time.sleep(0.02)


# ---- Samples ----


def pss_bytes(pid: int) -> dict[str, int]:
    """Memory of a process, what it shares divided by those who share it."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines if "Pss" in line}


def sample(
    soak: Soak, db: pykv.Store, processes: list[Any], before: list[list[int]]
) -> dict[str, Any]:
    """What there is to tell of the last second; *before* are the counts of the sample before."""
    first, stats = db.stats(), db.stats()
    # The files are listed first, and may be gone when what is held is counted: it counts by both looks.
    held = max(first.held_bytes, stats.held_bytes)
    segment = min(max((stats.log_bytes - held) // 16, 4 << 20), 128 << 20)
    memory = [pss_bytes(process.pid) for process in processes]
    now = [
        [sum(each) for each in zip(*(getattr(timed, name) for timed in soak.times), strict=True)]
        for name in ("puts", "gets")
    ]
    puts, gets = (
        [new - old for new, old in zip(*each, strict=True)]
        for each in zip(now, before, strict=True)
    )
    before[:] = now
    return {
        "seconds": time.monotonic() - soak.start,
        "keys": stats.keys,
        "disk_bytes": stats.disk_bytes,
        "live_bytes": stats.live_bytes,
        "held_bytes": held,
        "bound_bytes": int(SPACE_FACTOR * stats.live_bytes) + 2 * segment,
        "written_bytes": stats.written_bytes,
        "write_amplification": stats.write_amplification,
        "puts": sum(puts),
        "gets": sum(gets),
        "put_p999_us": percentile_us(puts, 0.999),
        "get_p999_us": percentile_us(gets, 0.999),
        "put_longest_us": percentile_us(puts, 1),
        "get_longest_us": percentile_us(gets, 1),
        "own_bytes": sum(each["Pss_Anon"] for each in memory),
        "mapped_bytes": sum(each["Pss_File"] for each in memory),
        "snapshot_seconds": stats.snapshot_ms / 1000,
    }


def watch(soak: Soak, db: pykv.Store, processes: list[Any], seconds: float) -> list[dict[str, Any]]:
    """Samples, one a second, for so long or until a process has failed."""
    samples: list[dict[str, Any]] = []
    before = [[0] * SLOTS, [0] * SLOTS]
    while (left := soak.start + seconds - time.monotonic()) > 0:
        time.sleep(min(1, left))
        if not all(process.is_alive() for process in processes):
            break
        samples.append(sample(soak, db, processes, before))
    return samples


def over_bound(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        each for each in samples if each["disk_bytes"] - each["held_bytes"] > each["bound_bytes"]
    ]


def run(
    path: Path, keys: int, seconds: float, rate: float
) -> tuple[list[dict[str, Any]], list[str]]:
    """The samples, and what was wrong."""
    soak = Soak(path, keys, seconds, rate)
    works: list[tuple[Callable[..., None], tuple[Any, ...]]] = [
        *((write, (soak, owner)) for owner in range(WRITERS)),
        (read, (soak,)),
    ]
    pykv.open(path).close()
    processes = [context.Process(target=target, args=arguments) for target, arguments in works]
    for process in processes:
        process.start()
    wrong = []
    try:
        with pykv.open(path) as db:
            samples = watch(soak, db, processes, seconds)
            soak.stop[0] = 1
            for process in processes:
                process.join()
            wrong += [f"{each} failed" for each in processes if each.exitcode]
            for model in soak.models:
                model.check_all(db)
            if not db.verify().ok:
                wrong.append("the store has damage")
        (path / "keydir").unlink()
        with pykv.open(path) as db:
            for model in soak.models:
                model.check_all(db)
    except AssertionError as error:
        wrong.append(str(error))
    finally:
        soak.stop[0] = 1
    wrong += [f"over the bound: {each}" for each in over_bound(samples)]
    return samples, wrong


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--keys", type=int, default=500_000, help="of each writer")
    parser.add_argument(
        "--rate", type=float, default=20_000, help="operations a second of each writer"
    )
    parser.add_argument("--json", type=Path, help="where to write the samples")
    parser.add_argument("--svg", type=Path, help="where to write the plot; needs the extra bench")
    parser.add_argument("--directory", type=Path, help="where to make the store")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(dir=options.directory))
    try:
        samples, wrong = run(directory / "store.kv", options.keys, options.seconds, options.rate)
    finally:
        shutil.rmtree(directory)
    print(*wrong, sep="\n", end="", file=sys.stderr)
    if not samples:
        return 1
    settings = {
        "seconds": options.seconds,
        "keys": options.keys,
        "rate": options.rate,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "processors": os.cpu_count(),
    }
    if options.json:
        options.json.write_text(json.dumps({"settings": settings, "samples": samples}, indent=1))
    if options.svg:
        from soak_plot import plot

        plot(samples, options.svg)
    share = max((each["disk_bytes"] - each["held_bytes"]) / each["bound_bytes"] for each in samples)
    longest = [
        max(each[f"{what}_longest_us"] or 0 for each in samples) / 1000 for what in ("put", "get")
    ]
    print(
        f"{len(samples)} samples, {sum(each['puts'] for each in samples):,} puts; disk at most {share:.3f}"
    )
    print(f"of the bound; longest put {longest[0]:.1f} ms, get {longest[1]:.1f} ms; ", end="")
    print(f"write amplification {samples[-1]['write_amplification']:.2f}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
