"""
report.py -- pykv beside py-lmdb, in turn, in fresh processes: the table of the README.

    python bench/report.py --keys 1000000 --rounds 3 [--json FILE] [--directory DIR]

Each round runs pykv, then py-lmdb, then the baselines, each on a fresh store in a process of its own;
the figures are medians of the rounds, the ratios those of the medians, the longest put that of all
rounds. Keys of 16 random bytes, values of 100 bytes, random order where it says so. py-lmdb as its
documentation advises for speed: `writemap=True, sync=False` for writes, one long read transaction for
reads.

Where a lone sync waits longer than one of many (a processor that falls asleep while the disk works,
as in many virtual machines), 16 threads look better than group commit makes them: "puts a sync" is
what it does.

It never fails for being slow: speed is shown, not asserted.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

VALUE = bytes(range(100))
DURABLE = 400  # durable puts of one thread
THREADS = 16
clock = time.perf_counter

# Row: what it is, who it is compared with, the least ratio (or the most, for times).
ROWS = [
    ("put", "lmdb", 4.0),
    ("put_many of 1000", "lmdb", 4.0),
    ("get, present", "lmdb", 1.3),
    ("get, absent", "lmdb", 1.5),
    ("get_many of 100", "lmdb", 2.0),
    ("overwrite, random order", "lmdb", 3.0),
    ("items", "lmdb", 1.0),
    ("durable put, 1 thread", "pwrite + fdatasync", 0.9),
    ("durable put, 16 threads", "pykv, 1 thread", 5.0),
]

# Figures of pykv alone, and the most that each may be.
LIMITS = {
    "put p50 us": None,
    "put p99.9 us": 20,
    "put longest us": 5000,
    "open ms, clean": 5,
    "open ms, after kill -9": 5,
    "open ms, keydir lost": None,
    "open ms, segments alone": None,
    "puts a sync, 16 threads": None,
    "keydir bytes a key": 12,
}


def make_keys(count: int, seed: int) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Keys, the same in random order, and as many that are absent."""
    source = random.Random(seed)
    keys = [source.randbytes(16) for _ in range(count)]
    shuffled = keys[:]
    source.shuffle(shuffled)
    return keys, shuffled, [key[:-1] + bytes([key[-1] ^ 0xFF]) for key in shuffled]


def rate(count: int, operation: Callable[[], object]) -> float:
    """Operations a second."""
    start = clock()
    operation()
    return count / (clock() - start)


def run_pykv(path: Path, count: int, seed: int) -> dict[str, float]:
    import pykv

    keys, shuffled, absent = make_keys(count, seed)
    groups = [shuffled[i : i + 100] for i in range(0, count, 100)]
    pieces = [dict.fromkeys(keys[i : i + 1000], VALUE) for i in range(0, count, 1000)]
    out: dict[str, float] = {}

    def put(order: list[bytes]) -> None:
        for key in order:
            db[key] = VALUE

    def get() -> None:
        for key in shuffled:
            db[key]

    def get_absent() -> None:
        for key in absent:
            db.get(key)

    def items() -> None:
        for _key, _value in db.items():
            pass

    with pykv.open(path / "a.kv") as db:
        out["put"] = rate(count, lambda: put(keys))
        out["get, present"] = rate(count, get)
        out["get, absent"] = rate(count, get_absent)
        out["get_many of 100"] = rate(count, lambda: [db.get_many(group) for group in groups])
        out["items"] = rate(count, items)
        out["overwrite, random order"] = rate(count, lambda: put(shuffled))
        out["keydir bytes a key"] = db.stats().keydir_bytes / count
    with pykv.open(path / "b.kv") as db:
        out["put_many of 1000"] = rate(count, lambda: [db.put_many(piece) for piece in pieces])
    with pykv.open(path / "c.kv") as db:
        times = []
        for key in keys:
            start = time.perf_counter_ns()
            db[key] = VALUE
            times.append(time.perf_counter_ns() - start)
    times.sort()
    out["put p50 us"], out["put p99.9 us"], out["put longest us"] = (
        times[len(times) // 2] / 1e3,
        times[int(len(times) * 0.999)] / 1e3,
        times[-1] / 1e3,
    )
    out |= durable_pykv(path) | open_times(path / "a.kv", keys[0])
    return out


def durable_pykv(path: Path) -> dict[str, float]:
    import pykv

    def work(worker: int, count: int) -> None:
        for number in range(count):
            db[b"%d:%d" % (worker, number)] = VALUE

    with pykv.open(path / "d.kv", durability="commit") as db:
        work(0, 50)
        single = rate(DURABLE, lambda: work(1, DURABLE))

        def together() -> None:
            threads = [threading.Thread(target=work, args=(n, DURABLE)) for n in range(THREADS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        before = db.stats().syncs
        many = rate(DURABLE * THREADS, together)
        shared = DURABLE * THREADS / (db.stats().syncs - before)
    return {
        "durable put, 1 thread": single,
        "durable put, 16 threads": many,
        "puts a sync, 16 threads": shared,
    }


def open_times(path: Path, key: bytes) -> dict[str, float]:
    """Milliseconds to open and read one key: after a close, after kill -9, from less and less."""
    import pykv

    out = {}

    def opened(what: str) -> None:
        start = clock()
        with pykv.open(path) as db:
            db[key]
            out[what] = (clock() - start) * 1e3

    opened("open ms, clean")
    writer = (
        "import pykv, sys\n"
        "db = pykv.open(sys.argv[1])\n"
        "n = 0\n"
        "while True:\n"
        "    db[b'%d' % (n % 1000)] = bytes(100); n += 1\n"
        "    if n == 5000: print('go', flush=True)\n"
    )
    command = [sys.executable, "-c", writer, os.fspath(path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    opened("open ms, after kill -9")
    (path / "keydir").unlink()
    opened("open ms, keydir lost")
    for file in path.iterdir():
        if not file.name.startswith("segment-"):
            file.unlink()
    opened("open ms, segments alone")
    return out


def run_lmdb(path: Path, count: int, seed: int) -> dict[str, float]:
    import lmdb

    keys, shuffled, absent = make_keys(count, seed)
    groups = [shuffled[i : i + 100] for i in range(0, count, 100)]
    pieces = [list(dict.fromkeys(keys[i : i + 1000], VALUE).items()) for i in range(0, count, 1000)]
    out: dict[str, float] = {}
    size = max(1 << 30, count * 1000)

    def put(order: list[bytes]) -> None:
        for key in order:
            with env.begin(write=True) as txn:
                txn.put(key, VALUE)

    def put_many() -> None:
        for piece in pieces:
            with env.begin(write=True) as txn:
                for key, value in piece:
                    txn.put(key, value)

    env = lmdb.open(os.fspath(path / "a.lmdb"), map_size=size, writemap=True, sync=False)
    out["put"] = rate(count, lambda: put(keys))
    with env.begin() as txn:

        def get(order: list[bytes]) -> None:
            for key in order:
                txn.get(key)

        def items() -> None:
            with txn.cursor() as cursor:
                for _key, _value in cursor:
                    pass

        def get_many() -> None:
            with txn.cursor() as cursor:
                for group in groups:
                    cursor.getmulti(group)

        out["get, present"] = rate(count, lambda: get(shuffled))
        out["get, absent"] = rate(count, lambda: get(absent))
        out["get_many of 100"] = rate(count, get_many)
        out["items"] = rate(count, items)
    out["overwrite, random order"] = rate(count, lambda: put(shuffled))
    env.close()
    env = lmdb.open(os.fspath(path / "b.lmdb"), map_size=size, writemap=True, sync=False)
    out["put_many of 1000"] = rate(count, put_many)
    env.close()
    return out


def run_baseline(path: Path, count: int, seed: int) -> dict[str, float]:
    """A dict, and a bare loop of pwrite and fdatasync on a file that has its blocks."""
    keys, shuffled, _absent = make_keys(count, seed)
    table = dict.fromkeys(keys, VALUE)
    groups = [shuffled[i : i + 100] for i in range(0, count, 100)]
    out = {
        "dict, 100 at a time": rate(count, lambda: [[table[k] for k in group] for group in groups])
    }
    fd = os.open(path / "bare", os.O_RDWR | os.O_CREAT, 0o600)
    os.pwrite(fd, bytes(1 << 20), 0)
    os.fsync(fd)
    record = VALUE + bytes(44)

    def bare() -> None:
        for number in range(DURABLE):
            os.pwrite(fd, record, number * len(record))
            os.fdatasync(fd)

    bare()
    out["pwrite + fdatasync"] = rate(DURABLE, bare)
    os.close(fd)
    return out


RUNNERS = {"pykv": run_pykv, "lmdb": run_lmdb, "baseline": run_baseline}


def in_process(name: str, base: Path, count: int, seed: int) -> dict[str, float]:
    """Run one of RUNNERS in a process of its own, on an empty directory."""
    path = base / name
    path.mkdir()
    command = [sys.executable, __file__, "--run", name, "--keys", str(count), "--seed", str(seed)]
    command += ["--directory", os.fspath(path)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    shutil.rmtree(path)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def print_report(rounds: dict[str, list[dict[str, float]]]) -> None:
    """Print the table: medians of the rounds, and least and greatest ratio of a single round."""
    medians = medians_of(rounds)
    mine = medians["pykv"]
    print(
        "\n| operation | pykv, a second | beside, a second | ratio | of single rounds | at least |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    for what, peer, bar in ROWS:
        ratios = [
            figures["pykv"][what] / beside(figures, what, peer)
            for figures in (
                dict(zip(rounds, each, strict=True)) for each in zip(*rounds.values(), strict=True)
            )
        ]
        against = beside(medians, what, peer)
        print(
            f"| {what} | {mine[what]:,.0f} | {peer}: {against:,.0f} | **{mine[what] / against:.2f}**"
            f" | {min(ratios):.2f} to {max(ratios):.2f} | {bar} |"
        )
    print("\n| figure | pykv | at most |\n|---|---:|---:|")
    share = medians["baseline"]["dict, 100 at a time"] / mine["get_many of 100"]
    print(f"| get_many of 100, in times of `[d[k] for k in keys]` on a dict | {share:.2f} | 1.5 |")
    for name, limit in LIMITS.items():
        print(f"| {name} | {mine[name]:,.2f} | {'' if limit is None else f'{limit:,}'} |")


def beside(figures: dict[str, dict[str, float]], what: str, peer: str) -> float:
    """The figure that a row is compared with."""
    if peer == "lmdb":
        return figures["lmdb"][what]
    return figures["baseline"].get(peer) or figures["pykv"]["durable put, 1 thread"]


def medians_of(rounds: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """The median of each figure; of the longest put, the longest of all rounds."""
    return {
        name: {
            what: (max if "longest" in what else statistics.median)(each[what] for each in runs)
            for what in runs[0]
        }
        for name, runs in rounds.items()
    }


def processor() -> str:
    """The processor's name, where Linux tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--run", choices=RUNNERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(RUNNERS[options.run](options.directory, options.keys, options.seed)))
        return
    if importlib.util.find_spec("lmdb") is None:
        parser.error("py-lmdb is missing: pip install '.[peers]'")
    base = Path(tempfile.mkdtemp(prefix="pykv-report-", dir=options.directory))
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in RUNNERS}
    try:
        for number in range(options.rounds):
            for name in RUNNERS:
                rounds[name].append(in_process(name, base, options.keys, options.seed + number))
                print(f"round {number + 1} of {options.rounds}: {name} done", file=sys.stderr)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    print(
        f"{options.keys:,} keys of 16 bytes, values of 100; medians of {options.rounds} rounds, in turn,"
        f" seeds from {options.seed}; Python {platform.python_version()}, {platform.platform()},"
        f" {processor()}, {os.cpu_count()} processors."
    )
    print_report(rounds)
    if options.json:
        options.json.write_text(
            json.dumps({"medians": medians_of(rounds), "rounds": rounds}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
