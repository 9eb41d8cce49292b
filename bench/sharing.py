"""
sharing.py -- many threads and processes on one store: pykv beside py-lmdb, SQLite and LevelDB.

    python bench/sharing.py --rounds 5 --seconds 2 [--keys N] [--kills N] [--json FILE] [--directory DIR]

Each round runs every case of every engine in turn, each on a fresh store in fresh processes that begin
together; the figures are medians of the rounds, the ratios medians of the ratios of each round, and the
longest stall that of all rounds. Keys of 16 random bytes, values of 100, random order.

Each engine is set as its documentation advises, see ENGINES. LevelDB admits one process.

A stall: one process is killed while it holds the lock of the writers, having held it for up to 50 ms
while three others wait to put. It is the longest time from the kill to the end of a put of theirs,
of all puts that end within half a second of the kill, and of the first if that comes later.

It never fails for being slow: speed is shown, not asserted.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import mmap
import multiprocessing
import os
import platform
import queue
import random
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

VALUE = bytes(range(100))
PIECE, DURABLE_PIECE = 200, 5  # operations between two looks at the clock
SURVIVORS = 3
NOTES = 4096  # puts that took longer than a millisecond, noted by each survivor
context = multiprocessing.get_context("fork")

Call = Callable[[bytes], object]


# ---- Engines: how each is opened, in each thread or process anew if it asks for that ----


class Pykv:
    """A store as it opens by default; durability="commit" for durable puts."""

    alone = False

    def __init__(self, path: Path, durable: bool) -> None:
        import pykv

        self.db = pykv.open(path / "store.kv", durability="commit" if durable else "process")

    @contextlib.contextmanager
    def reader(self) -> Iterator[Call]:
        yield self.db.get

    @contextlib.contextmanager
    def writer(self) -> Iterator[Call]:
        db = self.db

        def put(key: bytes) -> None:
            db[key] = VALUE

        yield put

    def fill(self, keys: list[bytes]) -> None:
        self.db.put_many(dict.fromkeys(keys, VALUE))

    def hold(self, ready: Callable[[], None]) -> None:
        """
        Take the writer lock and keep it: inside a put whose value lies in a mapping of a file that was
        cut. To read it is a SIGBUS; the handler tells, and returns, and it is read again, for ever.
        """
        read, faults = os.pipe()
        os.set_blocking(faults, False)
        signal.signal(signal.SIGBUS, lambda *_: None)
        signal.set_wakeup_fd(faults, warn_on_full_buffer=False)
        with tempfile.TemporaryFile() as file:
            file.truncate(1 << 20)
            value = memoryview(mmap.mmap(file.fileno(), 1 << 20))
            file.truncate(mmap.PAGESIZE)

            def tell() -> None:
                os.read(read, 1)
                ready()

            threading.Thread(target=tell).start()
            self.db.put(b"held", value)

    def close(self) -> None:
        self.db.close()


class Lmdb:
    """writemap=True, sync=False; for durable puts the defaults. One long read transaction a reader."""

    alone = False

    def __init__(self, path: Path, durable: bool) -> None:
        import lmdb

        fast = {} if durable else {"writemap": True, "sync": False}
        self.env = lmdb.open(os.fspath(path / "store.lmdb"), map_size=4 << 30, **fast)

    @contextlib.contextmanager
    def reader(self) -> Iterator[Call]:
        with self.env.begin() as transaction:
            yield transaction.get

    @contextlib.contextmanager
    def writer(self) -> Iterator[Call]:
        begin = self.env.begin

        def put(key: bytes) -> None:
            with begin(write=True) as transaction:
                transaction.put(key, VALUE)

        yield put

    def fill(self, keys: list[bytes]) -> None:
        with self.env.begin(write=True) as transaction:
            for key in keys:
                transaction.put(key, VALUE)

    def hold(self, ready: Callable[[], None]) -> None:
        with self.env.begin(write=True) as transaction:
            transaction.put(b"held", VALUE)
            ready()
            signal.pause()

    def close(self) -> None:
        self.env.close()


class Sqlite:
    """WAL, synchronous=NORMAL; for durable puts FULL. A connection for each thread."""

    alone = False

    def __init__(self, path: Path, durable: bool) -> None:
        self.path = path / "store.sqlite"
        self.level = "FULL" if durable else "NORMAL"
        with self.connection() as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS t (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID"
            )

    @contextlib.contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=60)
        connection.execute(f"PRAGMA synchronous={self.level}")
        yield connection
        connection.close()

    @contextlib.contextmanager
    def reader(self) -> Iterator[Call]:
        with self.connection() as connection:
            connection.execute("BEGIN")
            execute = connection.execute
            yield lambda key: execute("SELECT v FROM t WHERE k = ?", (key,)).fetchone()

    @contextlib.contextmanager
    def writer(self) -> Iterator[Call]:
        with self.connection() as connection:
            execute = connection.execute
            yield lambda key: execute("REPLACE INTO t VALUES (?, ?)", (key, VALUE))

    def fill(self, keys: list[bytes]) -> None:
        with self.connection() as connection:
            connection.execute("BEGIN")
            connection.executemany("REPLACE INTO t VALUES (?, ?)", [(key, VALUE) for key in keys])
            connection.execute("COMMIT")

    def hold(self, ready: Callable[[], None]) -> None:
        with self.connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("REPLACE INTO t VALUES (?, ?)", (b"held", VALUE))
            ready()
            signal.pause()

    def close(self) -> None:
        """Nothing is open."""


class LevelDb:
    """The defaults; sync=True for durable puts."""

    alone = True

    def __init__(self, path: Path, durable: bool) -> None:
        import plyvel

        self.db = plyvel.DB(os.fspath(path / "store.ldb"), create_if_missing=True)
        self.durable = durable

    @contextlib.contextmanager
    def reader(self) -> Iterator[Call]:
        yield self.db.get

    @contextlib.contextmanager
    def writer(self) -> Iterator[Call]:
        put, durable = self.db.put, self.durable
        yield lambda key: put(key, VALUE, sync=durable)

    def fill(self, keys: list[bytes]) -> None:
        for key in keys:
            self.db.put(key, VALUE)

    def close(self) -> None:
        self.db.close()


ENGINES: dict[str, Any] = {"pykv": Pykv, "lmdb": Lmdb, "sqlite": Sqlite, "leveldb": LevelDb}


# ---- Cases ----

GETS = [("processes", 1), ("processes", 2), ("threads", 1), ("threads", 2), ("threads", 4)]
PUTS = [("processes", 1), ("processes", 4)]
DURABLE = [(how, count) for how in ("threads", "processes") for count in (1, 4, 16)]
DURABLE_KEYS = 1_000  # of each committer

# Row: what, the case that it is compared with, at least.
RATIOS = [
    ("get, 2 processes", "get, 1 processes", 1.9),
    ("get, 2 threads", "get, 1 threads", 1.0),
    ("get, 4 threads", "get, 1 threads", None),
    ("put, 4 processes", "put, 1 processes", 0.7),
    ("durable put, 4 threads", "durable put, 1 threads", None),
    ("durable put, 16 threads", "durable put, 1 threads", 5.5),
    ("durable put, 4 processes", "durable put, 1 processes", None),
    ("durable put, 16 processes", "durable put, 1 processes", 5.5),
]


def repeat(act: Call, pieces: list[list[bytes]], seconds: float) -> tuple[int, float]:
    """How often act() was called, one key after the other, and in which time."""
    start = time.perf_counter()
    count = 0
    while True:
        for piece in pieces:
            for key in piece:
                act(key)
            count += len(piece)
            now = time.perf_counter()
            if now - start >= seconds:
                return count, now - start


def at_once(
    engine: Any,
    path: Path,
    durable: bool,
    write: bool,
    how: str,
    orders: list[list[bytes]],
    seconds: float,
) -> list[float]:
    """Calls a second of each of so many threads or processes: one for each order of keys."""
    size = DURABLE_PIECE if durable else PIECE
    processes = how == "processes"
    start = (context if processes else threading).Barrier(len(orders))
    rates = (context if processes else queue).SimpleQueue()

    def work(opened: Any, order: list[bytes]) -> None:
        pieces = [order[at : at + size] for at in range(0, len(order), size)]
        with opened.writer() if write else opened.reader() as act:
            act(order[0])
            start.wait()
            count, took = repeat(act, pieces, seconds)
            rates.put(count / took)
            start.wait()  # closing is not the others' business

    def work_alone(order: list[bytes]) -> None:
        opened = engine(path, durable)
        work(opened, order)
        opened.close()

    if processes:
        workers = [context.Process(target=work_alone, args=(order,)) for order in orders]
    else:
        opened = engine(path, durable)
        workers = [threading.Thread(target=work, args=(opened, order)) for order in orders]
    for worker in workers:
        worker.start()
    out = [rates.get() for _ in workers]
    for worker in workers:
        worker.join()
    if not processes:
        opened.close()
    return out


def stall(
    engine: Any, path: Path, keys: list[bytes], kills: int, source: random.Random
) -> list[float]:
    """Milliseconds of the longest stall of the survivors, for each kill of the lock's holder."""
    notes = [memoryview(mmap.mmap(-1, 8 + 16 * NOTES)).cast("Q") for _ in range(SURVIVORS)]
    lasts = memoryview(mmap.mmap(-1, 8 * SURVIVORS)).cast("Q")
    stop = memoryview(mmap.mmap(-1, 1))
    read, ready = os.pipe()

    def survive(number: int, order: list[bytes]) -> None:
        mine, count = notes[number], 0
        opened = engine(path, False)
        with opened.writer() as put:
            while not stop[0]:
                for key in order:
                    start = time.monotonic_ns()
                    put(key)
                    lasts[number] = end = time.monotonic_ns()
                    if end - start > 1_000_000 and count < NOTES:
                        mine[1 + 2 * count], mine[2 + 2 * count] = start, end
                        mine[0] = count = count + 1
        opened.close()

    def hold() -> None:
        engine(path, False).hold(lambda: os.write(ready, b"."))

    survivors = [
        context.Process(target=survive, args=(n, keys[n::SURVIVORS])) for n in range(SURVIVORS)
    ]
    for survivor in survivors:
        survivor.start()
    times = []
    while not all(lasts):
        time.sleep(0.01)
    for _ in range(kills):
        for mine in notes:
            mine[0] = 0
        holder = context.Process(target=hold)
        holder.start()
        os.read(read, 1)
        time.sleep(source.random() * 0.05)
        assert holder.pid is not None
        killed = time.monotonic_ns()
        os.kill(holder.pid, signal.SIGKILL)
        holder.join()
        while not all(last > killed for last in lasts):
            time.sleep(0.0005)
        time.sleep(max(0, 0.5 - (time.monotonic_ns() - killed) / 1e9))
        times.append(
            max(
                (mine[2 + 2 * n] - max(killed, mine[1 + 2 * n]))
                for mine in notes
                for n in range(mine[0])
                if mine[2 + 2 * n] > killed
            )
            / 1e6
        )
    stop[0] = 1
    for survivor in survivors:
        survivor.join()
    return times


def run(name: str, base: Path, keys: int, seconds: float, kills: int, seed: int) -> dict[str, Any]:
    """All cases of an engine."""
    engine, source = ENGINES[name], random.Random(seed)
    out: dict[str, Any] = {}
    number = 0

    def fresh() -> Path:
        nonlocal number
        number += 1
        path = base / str(number)
        path.mkdir()
        return path

    all_keys = [source.randbytes(16) for _ in range(keys)]
    if not engine.alone:
        path = fresh()
        opened = engine(path, False)
        opened.fill(all_keys)
        opened.close()
        for how, count in GETS:
            orders = [source.sample(all_keys, keys) for _ in range(count)]
            out[f"get, {count} {how}"] = sum(
                at_once(engine, path, False, False, how, orders, seconds)
            )
        out["stall ms"] = stall(engine, path, all_keys, kills, source)
        shutil.rmtree(path)
        for how, count in PUTS:
            path = fresh()
            engine(path, False).close()
            orders = [all_keys[n::4] for n in range(count)]
            rates = at_once(engine, path, False, True, how, orders, seconds)
            out[f"put, {count} {how}"] = sum(rates)
            out[f"share of the slowest of {count}"] = min(rates) / sum(rates)
            shutil.rmtree(path)
    for how, count in DURABLE:
        if engine.alone and how == "processes":
            continue
        path = fresh()
        engine(path, True).close()
        orders = [source.sample(all_keys, DURABLE_KEYS) for _ in range(count)]
        out[f"durable put, {count} {how}"] = sum(
            at_once(engine, path, True, True, how, orders, seconds)
        )
        shutil.rmtree(path)
    return out


# ---- The report ----


def in_process(name: str, base: Path, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Run the cases of an engine in a process of its own, on an empty directory."""
    path = base / name
    path.mkdir()
    command = [
        sys.executable,
        __file__,
        "--run",
        name,
        "--seed",
        str(seed),
        "--directory",
        str(path),
    ]
    for option in ("keys", "seconds", "kills"):
        command += [f"--{option}", str(getattr(options, option))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    shutil.rmtree(path)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def print_report(rounds: dict[str, list[dict[str, Any]]]) -> None:
    """Print the tables: each engine in a column."""
    names = list(rounds)
    print(f"\n| a second | {' | '.join(names)} |\n|---|{'---:|' * len(names)}")
    for what in rounds["pykv"][0]:
        if not what.startswith(("stall", "share")):
            cells = [median_of(rounds[name], lambda each: each[what], "{:,.0f}") for name in names]  # noqa: B023
            print(f"| {what} | {' | '.join(cells)} |")
    print(f"\n| ratio | {' | '.join(names)} | at least |\n|---|{'---:|' * (len(names) + 1)}")
    for what, one, least in RATIOS:
        cells = [
            median_of(rounds[name], lambda each: each[what] / each[one], "{:.2f}")  # noqa: B023
            for name in names
        ]
        print(
            f"| {what}, to {one.rsplit(',', 1)[1].strip()} | {' | '.join(cells)} | {least or ''} |"
        )
    share = "share of the slowest of 4"
    cells = [median_of(rounds[name], lambda each: each[share] * 4, "{:.2f}") for name in names]
    print(f"| puts of the slowest of 4 processes, to a quarter of all | {' | '.join(cells)} | |")
    print(f"\n| stall, ms | {' | '.join(names)} | at most |\n|---|{'---:|' * (len(names) + 1)}")
    for how, function, most in (("longest", max, 100), ("median", statistics.median, "")):
        cells = [
            f"{function([ms for each in rounds[name] for ms in each['stall ms']]):.1f}"
            if "stall ms" in rounds[name][0]
            else ""
            for name in names
        ]
        print(f"| {how} | {' | '.join(cells)} | {most} |")


def median_of(runs: list[dict[str, Any]], figure: Callable[[Any], float], shown: str) -> str:
    """The median of a figure of each round, with the least and the greatest; "" if it has none."""
    try:
        figures = [figure(each) for each in runs]
    except KeyError:
        return ""
    least, most = shown.format(min(figures)), shown.format(max(figures))
    return f"**{shown.format(statistics.median(figures))}** ({least} to {most})"


def versions() -> str:
    import lmdb

    return (
        f"Python {platform.python_version()}, py-lmdb {lmdb.__version__}, SQLite"
        f" {sqlite3.sqlite_version}, {platform.platform()}, {os.cpu_count()} processors"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--keys", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--kills", type=int, default=10, help="of the lock's holder, in each round")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--run", choices=ENGINES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        figures = run(
            options.run,
            options.directory,
            options.keys,
            options.seconds,
            options.kills,
            options.seed,
        )
        print(json.dumps(figures))
        return
    names = list(ENGINES)
    if importlib.util.find_spec("plyvel") is None:
        print("LevelDB is not run: plyvel is not installed", file=sys.stderr)
        names.remove("leveldb")
    base = Path(tempfile.mkdtemp(prefix="pykv-sharing-", dir=options.directory))
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    loads = []
    try:
        for number in range(options.rounds):
            for name in names:
                loads.append(os.getloadavg()[0])
                rounds[name].append(in_process(name, base, options, options.seed + number))
                print(f"round {number + 1} of {options.rounds}: {name} done", file=sys.stderr)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    print(
        f"{options.keys:,} keys of 16 bytes, values of 100, {options.seconds:g} s a case; medians of"
        f" {options.rounds} rounds, in turn, and the least and the greatest; {versions()}."
    )
    for name in names:
        print(f"- {name}: {ENGINES[name].__doc__.strip()}")
    print(f"- load average at the start of each: {', '.join(f'{load:.1f}' for load in loads)}")
    print_report(rounds)
    if options.json:
        options.json.write_text(json.dumps(rounds, indent=1) + "\n")


if __name__ == "__main__":
    main()
