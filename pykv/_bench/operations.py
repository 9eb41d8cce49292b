"""
operations.py -- one engine, one store, each operation in turn: how many keys a second, what it
occupies, and what is left after kill -9.

What a call answers is compared with what was stored, all of it, between the times that count: a
thousand keys are timed, then checked, then the next thousand.
"""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from pykv._bench.data import pairs_of, read_pairs
from pykv._bench.engines import Engine, Pair, Shape, engines, grouped
from pykv._bench.machine import disk_used
from pykv._bench.worker import patient, spawn

CHUNK = 1000  # keys that are timed at once, and that a call for many keys gets
DELETE_CHUNK = 20  # fewer: for dbm.dumb, which writes all keys anew at each
FILL = 10  # times `seconds`: how long filling a store may take before it gets fewer keys
EMPTY = 40  # the same for deleting all
OPENS = 5
THREADS = 16
KILL_KEYS = 1000  # that a writer has put before it is killed
NEWEST = b"!"  # what it puts behind each value
IDLE_SECONDS = 2.5  # for an engine that tidies up by itself

Chunk = TypeVar("Chunk", bound=list[Any])
Answer = TypeVar("Answer")


class Measured:
    """The figures of one run: rates and sizes by name, and what was wrong."""

    def __init__(self) -> None:
        self.rates: dict[str, float] = {}
        self.figures: dict[str, float] = {}
        self.problems: list[str] = []

    def time(
        self,
        name: str,
        chunks: Iterable[Chunk],
        run: Callable[[Chunk], Answer],
        seconds: float,
        wrong: Callable[[Chunk, Answer], int] = lambda _chunk, _answer: 0,
    ) -> int:
        """
        Run one chunk after another until they or the *seconds* are over; note keys a second.

        Args:
            wrong: Counts the keys of a chunk for which the answer is not what was stored.
        Returns:
            How many keys it were.
        """
        clock = time.perf_counter
        taken, things, failed = 0.0, 0, 0
        for chunk in chunks:
            begun = clock()
            answer = run(chunk)
            taken += clock() - begun
            things += len(chunk)
            failed += wrong(chunk, answer)
            if taken > seconds:
                break
        self.rates[name] = things / taken if taken else 0.0
        if failed:
            self.problems.append(f"{name}: {failed:,} of {things:,} answers are wrong")
        return things


def measure(directory: Path, engine: str, data: str, seconds: float, first: bool) -> dict[str, Any]:
    """
    Measure all operations of an engine.

    Args:
        directory: For its stores.
        engine: Its name.
        data: File of pairs.
        seconds: For each operation.
        first: This is the first round: measure also what needs no repeating, sizes on disk.
    """
    kind = engines()[engine]
    pairs = read_pairs(Path(data))
    gc.collect()
    gc.freeze()  # else collections walk through the pairs while others are timed
    shape = Shape(len(pairs), sum(map(len, pairs)) + sum(map(len, pairs.values())))
    out = Measured()
    path = _new(directory / "a")
    db = kind(path, shape)
    stored = _fill(out, db, pairs, seconds)
    keys = list(stored)
    random.Random(1).shuffle(keys)
    _read(out, db, stored, keys, seconds)
    _change(out, db, stored, keys, seconds, first)
    db.close()
    if kind.persistent:
        if first:
            out.figures["overwritten_disk_bytes"] = disk_used(path)
            _remove_all(out, kind, path, shape, stored, seconds)
        _open_and_kill(out, kind, path, shape, data, seconds)
        if kind.shared:
            _read_together(out, path, shape, engine, data, seconds)
    db = kind(_new(directory / "b"), shape)
    out.time("put in 1,000s", grouped(pairs.items(), CHUNK), db.put_many, seconds)
    db.close()
    if kind.durable:
        for threads in (1, THREADS):
            _put_durably(out, kind, _new(directory / f"durable{threads}"), shape, threads, seconds)
    return {
        "version": kind.version(),
        "keys": len(stored),
        "keys_wanted": len(pairs),
        "data_bytes": sum(map(len, stored)) + sum(map(len, stored.values())),
        "rates": out.rates,
        "figures": out.figures,
        "problems": out.problems,
    }


def occupied(directory: Path, engine: str, data: str, shape: list[int], seconds: float) -> Any:
    """
    Fill a store with pairs that nobody else holds, read them, and return what that takes in RAM.

    The first come before the measuring, for what an engine takes once and for all.

    Returns:
        keys; ram_bytes, what it cannot do without; mapped_bytes, pages of files that the system can
        take away. Both None where the system does not tell.
    """
    db = engines()[engine](_new(directory / "store"), Shape(*shape))
    first = min(CHUNK, shape[0] // 2)
    wrong = _put_and_get(db, islice(pairs_of(Path(data)), first), seconds)[1]
    before, pinned = db.memory(), db.pinned_bytes()
    keys, more = _put_and_get(db, islice(pairs_of(Path(data)), first, None), seconds)
    wrong += more
    gc.collect()
    after, pinned = db.memory(), db.pinned_bytes() - pinned
    told: dict[str, Any] = {"keys": keys, "ram_bytes": None, "mapped_bytes": None, "problems": []}
    if before and after:
        used = after - before
        told["ram_bytes"], told["mapped_bytes"] = used.private + pinned, used.mapped - pinned
    if wrong:
        told["problems"].append(f"{wrong:,} answers are wrong")
    db.close()
    return told


def _put_and_get(db: Engine, pairs: Iterable[Pair], seconds: float) -> tuple[int, int]:
    """Put pairs for a while and read each; how many, and how many answers were wrong."""
    keys = wrong = 0
    end = time.monotonic() + FILL * seconds
    for chunk in grouped(pairs, CHUNK):
        db.put_many(chunk)
        keys += len(chunk)
        found = db.get_many([key for key, _ in chunk])
        wrong += sum(value != got for (_, value), got in zip(chunk, found, strict=True))
        if time.monotonic() > end:
            break
    return keys, wrong


def _new(path: Path) -> Path:
    path.mkdir()
    return path


def _fill(
    out: Measured, db: Engine, pairs: dict[bytes, bytes], seconds: float
) -> dict[bytes, bytes]:
    """Put one by one for a while, the rest in 1,000s; return what is stored then."""
    put = db.put

    def put_each(chunk: list[Pair]) -> None:
        for key, value in chunk:
            put(key, value)

    items = list(pairs.items())
    done = out.time("put", grouped(items, CHUNK), put_each, seconds)
    end = time.monotonic() + FILL * seconds
    for chunk in grouped(items[done:], CHUNK):
        db.put_many(chunk)
        done += len(chunk)
        if time.monotonic() > end:
            break
    return dict(items[:done])


def _read(
    out: Measured, db: Engine, stored: dict[bytes, bytes], keys: list[bytes], seconds: float
) -> None:
    get = db.reader()

    def each(chunk: list[bytes]) -> list[bytes | None]:
        return [get(key) for key in chunk]

    def differ(chunk: list[bytes], answer: list[bytes | None]) -> int:
        return sum(stored.get(key) != value for key, value in zip(chunk, answer, strict=True))

    absent = [key[:-1] + bytes([key[-1] ^ 0xFF]) if key else b"?" for key in keys]
    absent = [key for key in absent if key not in stored]
    out.time("get", grouped(keys, CHUNK), each, seconds, differ)
    out.time("get in 1,000s", grouped(keys, CHUNK), db.get_many, seconds, differ)
    out.time("get, absent", grouped(absent, CHUNK), each, seconds, differ)

    iterator = iter(db.items())

    def take(chunk: list[bytes]) -> list[Pair]:
        return list(islice(iterator, len(chunk)))

    def differ_taken(chunk: list[bytes], answer: list[Pair]) -> int:
        wrong = sum(stored.get(key) != value for key, value in answer)
        return len(chunk) - len(answer) + wrong

    out.time("items", grouped(keys, CHUNK), take, seconds, differ_taken)


def _change(
    out: Measured,
    db: Engine,
    stored: dict[bytes, bytes],
    keys: list[bytes],
    seconds: float,
    whole: bool,
) -> None:
    """Overwrite each value by itself reversed, if *whole* every one; then delete some."""
    put, delete = db.put, db.delete

    def put_each(chunk: list[Pair]) -> None:
        for key, value in chunk:
            put(key, value)

    def delete_each(chunk: list[bytes]) -> None:
        for key in chunk:
            delete(key)

    new = [(key, stored[key][::-1]) for key in keys]
    done = out.time("overwrite", grouped(new, CHUNK), put_each, seconds)
    if whole:
        for chunk in grouped(new[done:], CHUNK):
            db.put_many(chunk)
        done = len(new)
    stored.update(new[:done])
    _differ(out, db, "after overwriting", stored, keys[:CHUNK])

    half = keys[: len(keys) // 2]
    gone = out.time("delete", grouped(half, DELETE_CHUNK), delete_each, seconds)
    _differ(out, db, "after deleting", {}, keys[:gone][:CHUNK])
    for chunk in grouped([(key, stored[key]) for key in keys[:gone]], CHUNK):
        db.put_many(chunk)


def _differ(
    out: Measured, db: Engine, when: str, stored: dict[bytes, bytes], keys: list[bytes]
) -> None:
    wrong = sum(db.get(key) != stored.get(key) for key in keys)
    if wrong:
        out.problems.append(f"{when}: {wrong:,} of {len(keys):,} keys are not as they should be")


def _remove_all(
    out: Measured,
    kind: type[Engine],
    path: Path,
    shape: Shape,
    stored: dict[bytes, bytes],
    seconds: float,
) -> None:
    """What the disk holds after the last delete, and a moment; then put all back."""
    db = kind(path, shape)
    end = time.monotonic() + EMPTY * seconds
    for key in stored:
        db.delete(key)
        if time.monotonic() > end:
            break
    else:
        time.sleep(IDLE_SECONDS)
        db.close()
        out.figures["deleted_disk_bytes"] = disk_used(path)
        db = kind(path, shape)
        if sum(1 for _ in db.items()):
            out.problems.append("after deleting all, items() is not empty")
    for chunk in grouped(stored.items(), CHUNK):
        db.put_many(chunk)
    db.close()


def _open_and_kill(
    out: Measured,
    kind: type[Engine],
    path: Path,
    shape: Shape,
    data: str,
    seconds: float,
) -> None:
    """Open and read a key after a close, and after the kill of a process that was writing."""
    pairs = read_pairs(Path(data), KILL_KEYS)
    probe = next(iter(pairs))

    def opened() -> tuple[float, Engine]:
        begun = time.perf_counter()
        db = kind(path, shape)
        found = db.get(probe)
        taken = (time.perf_counter() - begun) * 1000
        if not _is_right(found, pairs[probe]):
            out.problems.append("the first get after an open has another value")
        return taken, db

    times: list[float] = []
    while len(times) < OPENS and sum(times) < seconds * 1000:
        taken, db = opened()
        times.append(taken)
        db.close()
    out.figures["open_ms"] = statistics.median(times)

    writer = spawn("victim", path, engine=kind.name, data=data, shape=shape)
    with patient(writer) as (_stdin, stdout):
        begun = stdout.readline() == b"go\n"
        writer.send_signal(signal.SIGKILL)
    kind.kill(path)
    if not begun:
        out.problems.append("the writer that was to be killed did not write")
        return
    out.figures["open_killed_ms"], db = opened()
    out.figures["killed_lost"] = sum(db.get(key) != pairs[key] + NEWEST for key in pairs)
    db.close()


def _is_right(found: bytes | None, value: bytes) -> bool:
    """Whether it is a value that the key has had: as put, overwritten, or by a victim."""
    return found in (value, value[::-1], value + NEWEST)


def victim(directory: Path, engine: str, data: str, shape: list[int]) -> None:
    """Overwrite the first pairs, tell, and go on until killed, or the parent is."""
    parent = os.getppid()
    pairs = read_pairs(Path(data), KILL_KEYS)
    db = engines()[engine](directory, Shape(*shape))
    told = False
    while os.getppid() == parent:
        for key, value in pairs.items():
            db.put(key, value + NEWEST)
        if not told:
            print("go", flush=True)
            told = True


def _read_together(
    out: Measured, path: Path, shape: Shape, engine: str, data: str, seconds: float
) -> None:
    """Gets of one process, then of two at once."""
    db = engines()[engine](path, shape)  # what a kill left is mended before others look at it
    if not db.served:
        db.close()
    arguments = {"engine": engine, "data": data, "shape": shape, "seconds": seconds}
    for count in (1, 2):
        name = f"get, {count} process{'es' if count > 1 else ''}"
        with ExitStack() as stack:
            readers = [spawn("reader", path, **arguments) for _ in range(count)]
            pipes = [stack.enter_context(patient(reader)) for reader in readers]
            begun = [stdout.readline() for _stdin, stdout in pipes]  # all are ready
            for stdin, _stdout in pipes:
                stdin.write(b"go\n")
                stdin.flush()
            told = [json.loads(stdout.readline() or b"null") for _stdin, stdout in pipes]
        if not all(begun) or None in told:
            out.problems.append(f"{name}: could not be run")
            break
        out.rates[name] = sum(each["rate"] for each in told)
        wrong = sum(each["wrong"] for each in told)
        if wrong:
            out.problems.append(f"{name}: {wrong:,} answers are wrong")
    if db.served:
        db.close()


def reader(
    directory: Path, engine: str, data: str, shape: list[int], seconds: float
) -> dict[str, float]:
    """Open to read, say so, wait for the word, and read."""
    pairs = read_pairs(Path(data))
    db = engines()[engine](directory, Shape(*shape), read_only=True)
    get = db.reader()
    order = list(pairs)
    random.shuffle(order)
    print("ready", flush=True)
    sys.stdin.readline()
    out = Measured()
    wrong = 0

    def differ(chunk: list[bytes], answer: list[bytes | None]) -> int:
        nonlocal wrong
        for key, value in zip(chunk, answer, strict=True):
            wrong += value is not None and not _is_right(value, pairs[key])
        return 0

    out.time("get", grouped(order, CHUNK), lambda chunk: [get(k) for k in chunk], seconds, differ)
    return {"rate": out.rates["get"], "wrong": wrong}


def _put_durably(
    out: Measured, kind: type[Engine], path: Path, shape: Shape, threads: int, seconds: float
) -> None:
    db = kind(path, shape, durable=True)
    counts = [0] * threads
    value = bytes(range(100))
    start = threading.Barrier(threads)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            mine = db.for_thread()
            start.wait()
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                mine.put(b"%d:%d" % (number, counts[number]), value)
                counts[number] += 1
        except Exception as error:
            start.abort()
            failures.append(error)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    begun = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    taken = time.perf_counter() - begun
    name = f"durable put, {threads} thread{'s' if threads > 1 else ''}"
    if failures:
        out.problems.append(f"{name}: {failures[0]}")
        return
    out.rates[name] = sum(counts) / taken
    get = db.for_thread().get  # of its own: it sees what all threads have written
    wrong = sum(
        get(b"%d:%d" % (number, each)) != value
        for number, count in enumerate(counts)
        for each in (range(count) if count < CHUNK else range(0, count, count // CHUNK))
    )
    if wrong:
        out.problems.append(f"{name}: {wrong:,} puts are not there")
    db.close()
