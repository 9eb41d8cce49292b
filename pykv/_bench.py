"""
_bench.py -- the quick bench: real data in, read back and checked, writers killed, and a table of
what each durability and io mode costs.

The data is what every machine with Python has: the sources of the standard library, each file under
its path, and each identifier with the places it occurs at.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

import pykv
from pykv._cli import progress

Durability = Literal["process", "interval", "commit"]
Io = Literal["mmap", "pread"]

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
PLACES_MAX = 200  # places kept of one identifier
SAMPLE = 20_000  # single operations that are timed, of each kind
SAMPLE_COMMIT = 300  # of those that wait for the disk
KILLS = 5
BATCH = 1_000

# The writer that is killed: batches of three keys that belong together, each batch acknowledged by
# its number on standard output. A batch that is acknowledged must be there afterwards, whole.
WRITER = """
import sys
import pykv

with pykv.open(sys.argv[1]) as db:
    number = int(sys.argv[2])
    while True:
        number += 1
        with db.batch() as batch:
            batch[b"first:%d" % number] = b"%d" % number
            batch[b"second:%d" % number] = b"%d" % number * 50
            batch[b"last"] = b"%d" % number
        sys.stdout.write("%d\\n" % number)
        sys.stdout.flush()
"""


class CheckError(Exception):
    """What was read is not what was written."""


def corpus(seconds: float) -> dict[bytes, bytes]:
    """Return the standard library: sources by path, and where each identifier occurs."""
    root = Path(sysconfig.get_path("stdlib"))
    data: dict[bytes, bytes] = {}
    places: dict[str, list[str]] = {}
    end = time.monotonic() + seconds
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if "site-packages" in name or time.monotonic() > end:
            continue
        content = path.read_bytes()
        data[b"file:" + name.encode()] = content
        text = content.decode("utf-8", "replace")
        for number, line in enumerate(text.splitlines(), 1):
            for word in set(IDENTIFIER.findall(line)):
                where = places.setdefault(word, [])
                if len(where) < PLACES_MAX:
                    where.append(f"{name}:{number}")
    for word, where in places.items():
        data[b"id:" + word.encode()] = "\n".join(where).encode()
    return data


def percentile(ordered: Sequence[int], share: float) -> float:
    """The value, in microseconds, that *share* of the ordered nanoseconds do not exceed."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1_000


def timed(
    what: str, operation: Callable[[Any], object], inputs: Iterable[Any], each: int = 1
) -> dict[str, Any]:
    """Time *operation* on each of *inputs*, an operation on *each* keys."""
    clock = time.perf_counter_ns
    times: list[int] = []
    for item in inputs:
        start = clock()
        operation(item)
        times.append(clock() - start)
    total = sum(times)
    times.sort()
    return {
        "operation": what,
        "count": len(times) * each,
        "per_second": len(times) * each / (total / 1e9),
        "p50_us": percentile(times, 0.5),
        "p99_us": percentile(times, 0.99),
        "p999_us": percentile(times, 0.999),
        "max_us": times[-1] / 1_000,
    }


def chunks(keys: Sequence[bytes], size: int) -> list[Sequence[bytes]]:
    """*keys* in pieces of *size*, the last one shorter left out."""
    return [keys[i : i + size] for i in range(0, len(keys) - size + 1, size)]


def check(db: pykv.Store, data: dict[bytes, bytes]) -> None:
    """Read everything back, one by one, in batches and by iteration."""
    if len(db) != len(data):
        raise CheckError(f"{len(db)} keys where {len(data)} were written")
    keys = list(data)
    for group in [keys[i : i + BATCH] for i in range(0, len(keys), BATCH)]:
        if db.get_many(group) != [data[key] for key in group]:
            raise CheckError("get_many returned something else than was written")
    seen = 0
    for key, value in db.items():
        if data.get(key) != value:
            raise CheckError(f"iteration returned something else under {key!r}")
        seen += 1
    if seen != len(data):
        raise CheckError(f"iteration returned {seen} of {len(data)} keys")
    report = db.verify()
    if not report.ok:
        raise CheckError(f"verification found {report.damage_count} damaged places")


def measure(path: Path, data: dict[bytes, bytes], durability: Durability, io: Io) -> dict[str, Any]:
    """Fill a store, check it, time single operations, reopen it."""
    keys = sorted(data, key=lambda key: hashlib.blake2b(key, digest_size=8).digest())
    rows: list[dict[str, Any]] = []
    sample = keys[:SAMPLE]
    with pykv.open(path, "n", durability=durability, io=io) as db:
        pieces = [
            {key: data[key] for key in keys[i : i + BATCH]} for i in range(0, len(keys), BATCH)
        ]
        rows.append(timed(f"put_many of {BATCH}", db.put_many, pieces, BATCH))
        check(db, data)
        few = sample[:SAMPLE_COMMIT] if durability == "commit" else sample
        rows.append(timed("put", lambda key: db.put(key, data[key]), few))
        rows.append(timed("get", db.__getitem__, sample))
        rows.append(timed("get, absent", db.get, [key + b"?" for key in sample]))
        rows.append(timed("get_many of 100", db.get_many, chunks(sample, 100), 100))
        rows.append(timed("delete", db.delete, few))
        db.put_many({key: data[key] for key in few})
        check(db, data)
        stats = db.stats()
    start = time.perf_counter_ns()
    with pykv.open(path, "w", durability=durability, io=io) as db:
        db[keys[0]]
        open_ms = (time.perf_counter_ns() - start) / 1e6
        check(db, data)
    return {
        "durability": durability,
        "io": io,
        "keys": stats.keys,
        "keydir_bytes_per_key": stats.keydir_bytes / stats.keys,
        "disk_bytes": stats.disk_bytes,
        "live_bytes": stats.live_bytes,
        "open_ms": open_ms,
        "operations": rows,
    }


def kill_writers(path: Path) -> dict[str, Any]:
    """Kill a writer with SIGKILL several times; whatever it acknowledged must be there, whole."""
    acknowledged, open_ms = 0, []
    for turn in range(KILLS):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, os.fspath(path), str(acknowledged)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        goal = acknowledged + 200 * (turn + 1)
        lines = []
        for line in child.stdout:
            lines.append(line)
            if int(line) >= goal:
                break
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.readlines()
        child.stdout.close()
        child.wait()
        complete = [int(line) for line in lines if line.endswith("\n")]
        if not complete:
            raise CheckError("the writer ended by itself")
        acknowledged = complete[-1]
        start = time.perf_counter_ns()
        with pykv.open(path) as db:
            db.get(b"last")
            open_ms.append((time.perf_counter_ns() - start) / 1e6)
            last = int(db[b"last"])
            if last < acknowledged:
                raise CheckError(
                    f"batch {acknowledged} was acknowledged, and {last} is the last there"
                )
            for number in range(1, last + 1):
                whole = b"%d" % number
                if (
                    db.get(b"first:%d" % number) != whole
                    or db.get(b"second:%d" % number) != whole * 50
                ):
                    raise CheckError(f"batch {number} of {last} is not whole after a kill")
            if b"first:%d" % (last + 1) in db or not db.verify().ok:
                raise CheckError("a batch is there by half after a kill")
            acknowledged = last
    return {"kills": KILLS, "batches": acknowledged, "open_ms": sorted(open_ms)[len(open_ms) // 2]}


def print_tables(console: Console, results: list[dict[str, Any]], kill: dict[str, Any]) -> None:
    """Two tables: what operations cost, and what the stores cost."""
    table = Table(title="Operations (microseconds)")
    names = ("durability", "io", "operation", "a second", "p50", "p99", "p99.9", "max")
    for name in names:
        table.add_column(name, justify="left" if name in names[:3] else "right")
    for result in results:
        for row in result["operations"]:
            latencies = (
                f"{row[field]:,.1f}" for field in ("p50_us", "p99_us", "p999_us", "max_us")
            )
            table.add_row(
                result["durability"],
                result["io"],
                row["operation"],
                f"{row['per_second']:,.0f}",
                *latencies,
            )
        table.add_section()
    console.print(table)
    table = Table(title="Stores")
    for name in ("durability", "io", "keys", "RAM bytes a key", "disk MB", "live MB", "open ms"):
        table.add_column(name, justify="right")
    for result in results:
        table.add_row(
            result["durability"],
            result["io"],
            f"{result['keys']:,}",
            f"{result['keydir_bytes_per_key']:.1f}",
            f"{result['disk_bytes'] / 1e6:,.1f}",
            f"{result['live_bytes'] / 1e6:,.1f}",
            f"{result['open_ms']:.2f}",
        )
    console.print(table)
    console.print(
        f"{kill['kills']} writers killed with SIGKILL, {kill['batches']:,} batches acknowledged: "
        f"all are there, each whole. Open after a kill: {kill['open_ms']:.2f} ms (median)."
    )


def run_quick(directory: Path | None, json_file: Path | None) -> int:
    """Run it all; 0 if every check held."""
    console = Console(width=None if sys.stdout.isatty() else 110)
    start = time.monotonic()
    base = Path(tempfile.mkdtemp(prefix="pykv-bench-", dir=directory))
    modes: list[tuple[Durability, Io]] = [
        ("process", "mmap"),
        ("process", "pread"),
        ("interval", "mmap"),
        ("commit", "mmap"),
        ("commit", "pread"),
    ]
    try:
        with progress() as bar:
            task = bar.add_task("reading the standard library", total=len(modes) + 2)
            data = corpus(seconds=12)
            size = sum(map(len, data)) + sum(map(len, data.values()))
            bar.update(task, advance=1)
            results = []
            for durability, io in modes:
                bar.update(task, description=f"durability={durability}, io={io}")
                results.append(measure(base / f"{durability}-{io}.kv", data, durability, io))
                shutil.rmtree(base / f"{durability}-{io}.kv")
                bar.update(task, advance=1)
            bar.update(task, description="killing writers")
            kill = kill_writers(base / "killed.kv")
        console.print(
            f"pykv {pykv.__version__} on {os.cpu_count()} processors: {len(data):,} keys, "
            f"{size / 1e6:,.1f} MB of the standard library of Python {sys.version.split()[0]}, "
            "read back and checked three times a store."
        )
        print_tables(console, results, kill)
        console.print(f"All checks held. {time.monotonic() - start:.0f} seconds.")
        if json_file is not None:
            json_file.write_text(json.dumps({"stores": results, "kill": kill}, indent=1) + "\n")
    except CheckError as error:
        console.print(f"A CHECK FAILED: {error}", style="bold red")
        return 1
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return 0
