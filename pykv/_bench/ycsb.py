"""
ycsb.py -- the core workloads A to F of the Yahoo! Cloud Serving Benchmark, with its own parameters.

Cooper et al., "Benchmarking Cloud Serving Systems with YCSB", SoCC 2010; keys, fields and
distributions as its CoreWorkload has them: keys `user` and a hash of the record's number, 10
fields of 100 bytes, scans of 1 to 100 records, one client thread. A record is one value of 1,000
bytes, and an update writes all of it (writeallfields=true), for these stores know no fields.

A store without order cannot scan. There the application keeps the sorted list of keys, finds the
place by bisection and gets the records by name, which answers the same; its time counts.
"""

from __future__ import annotations

import bisect
import gc
import random
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pykv._bench.engines import Engine, Pair, Shape, engines, grouped
from pykv._bench.measure import timing_of
from pykv._bench.operations import CHUNK

VALUE_BYTES = 10 * 100  # fieldcount, fieldlength
THETA = 0.99  # the constant of the zipfian distribution
SCRAMBLED_ITEMS = 10_000_000_000  # ranks are drawn of so many, then scrambled onto the records
SCRAMBLED_ZETA = 26.46902820178302  # zeta(SCRAMBLED_ITEMS, THETA), as YCSB has it
SCAN_LENGTH_MAX = 100
POOL_BYTES = 1 << 20
ROOM = 10  # a 10th more may be inserted and still be chosen; till then, as YCSB does, draw again
LOAD = 20  # times `seconds`: how long the loading may take


class Workload(NamedTuple):
    """
    Shares of operations, and how the records are chosen.

    Attributes:
        about: In a few words.
        shares: Of each operation, adding up to 1.
        chosen: "zipfian" or "latest".
    """

    about: str
    shares: dict[str, float]
    chosen: str


WORKLOADS = {
    "A": Workload("half updates", {"read": 0.5, "update": 0.5}, "zipfian"),
    "B": Workload("5 % updates", {"read": 0.95, "update": 0.05}, "zipfian"),
    "C": Workload("reads alone", {"read": 1.0}, "zipfian"),
    "F": Workload("half read-modify-writes", {"read": 0.5, "modify": 0.5}, "zipfian"),
    "D": Workload("reads of what is new", {"read": 0.95, "insert": 0.05}, "latest"),
    "E": Workload("short scans", {"scan": 0.95, "insert": 0.05}, "zipfian"),
}


class Zipfian:
    """
    Ranks from 0, with probability proportional to 1 / (rank + 1) ** THETA.

    By inversion, as in Gray et al., "Quickly Generating Billion-Record Synthetic Databases", SIGMOD
    1994: exact for the two first ranks, an approximation beyond. The count may grow.
    """

    def __init__(self, count: int, source: random.Random, zeta: float | None = None) -> None:
        self._random = source.random
        self._count, self._zeta = 0, 0.0
        self._zeta_2 = 1 + 0.5**THETA
        if zeta is None:
            self.grow(count)
        else:
            self._count, self._zeta = count, zeta
            self._prepare()

    def grow(self, count: int) -> None:
        """Draw from *count* ranks from now on: no fewer than before."""
        self._zeta += sum(1 / rank**THETA for rank in range(self._count + 1, count + 1))
        self._count = count
        self._prepare()

    def _prepare(self) -> None:
        self._alpha = 1 / (1 - THETA)
        self._eta = (1 - (2 / self._count) ** (1 - THETA)) / (1 - self._zeta_2 / self._zeta)

    def draw(self) -> int:
        """Return a rank."""
        u = self._random()
        uz = u * self._zeta
        if uz < 1:
            return 0
        if uz < self._zeta_2:
            return 1
        return int(self._count * (self._eta * u - self._eta + 1) ** self._alpha)


def fnv_hash(number: int) -> int:
    """Return the 64-bit FNV-1a hash of the 8 bytes of *number*, its sign dropped, as YCSB does."""
    value = 0xCBF29CE484222325
    for _ in range(8):
        value = ((value ^ (number & 0xFF)) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
        number >>= 8
    return value if value < 1 << 63 else (1 << 64) - value


def key_of(number: int) -> bytes:
    """Return the key of a record."""
    return b"user%d" % fnv_hash(number)


class Operation(NamedTuple):
    """
    What a client does.

    Attributes:
        name: "read", "update", "insert", "modify" (read, then update) or "scan".
        key: Of the record, or of the first.
        value: What to write.
        expected: The right answer: a value, or of a scan keys and the places of their values.
    """

    name: str
    key: bytes
    value: bytes | None
    expected: Any


class Records:
    """What the store must hold, and what a client does next."""

    def __init__(self, count: int, seed: int) -> None:
        self._random = random.Random(seed)
        self._pool = self._random.randbytes(POOL_BYTES + VALUE_BYTES)
        self._scrambled = Zipfian(SCRAMBLED_ITEMS, self._random, SCRAMBLED_ZETA)
        self._latest = Zipfian(count, self._random)
        self._room = count + count // ROOM  # does not grow, for the hot records to stay the same
        self._places = {key_of(number): self._place() for number in range(count)}
        self.order = sorted(self._places)

    def pairs(self) -> Iterator[Pair]:
        """Yield all that must be there."""
        return ((key, self.value(place)) for key, place in self._places.items())

    def value(self, place: int) -> bytes:
        """Return the value that begins at a place of the pool."""
        return self._pool[place : place + VALUE_BYTES]

    def _place(self) -> int:
        return self._random.randrange(POOL_BYTES)

    def _write(self, key: bytes) -> bytes:
        place = self._places[key] = self._place()
        return self.value(place)

    def choose(self, chosen: str) -> bytes:
        """Return the key of a record that is there."""
        count = len(self._places)
        if chosen == "zipfian":
            while (number := fnv_hash(self._scrambled.draw()) % self._room) >= count:
                pass
            return key_of(number)
        self._latest.grow(count)
        return key_of(count - 1 - self._latest.draw())

    def operations(self, workload: Workload) -> Iterator[Operation]:
        """Yield operations for ever; each is taken as done."""
        names, shares = list(workload.shares), list(workload.shares.values())
        while True:
            name = self._random.choices(names, shares)[0]
            if name == "insert":
                key = key_of(len(self._places))
                bisect.insort(self.order, key)
                yield Operation(name, key, self._write(key), None)
                continue
            key = self.choose(workload.chosen)
            if name == "scan":
                first = bisect.bisect_left(self.order, key)
                keys = self.order[first : first + self._random.randint(1, SCAN_LENGTH_MAX)]
                yield Operation(name, key, None, [(each, self._places[each]) for each in keys])
                continue
            expected = self.value(self._places[key])
            yield Operation(name, key, None if name == "read" else self._write(key), expected)


def measure(directory: Path, engine: str, records: int, seconds: float) -> dict[str, Any]:
    """
    Load the records and run each workload for a while; E, which is last, on records loaded anew.

    Args:
        directory: For the stores.
        engine: Its name.
        records: How many there are at the beginning.
        seconds: Of each workload.
    """
    kind = engines()[engine]
    shape = Shape(records, records * (VALUE_BYTES + 24))
    rates: dict[str, float] = {}
    operations: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    db: Engine | None = None
    for letter, workload in WORKLOADS.items():
        if db is None or letter == "E":
            if db is not None:
                db.close()
            path = directory / letter
            path.mkdir()
            db = kind(path, shape)
            held = Records(records, seed=records)
            rates["load"] = _load(db, held, records, seconds)
            gc.collect()
            gc.freeze()
        taken, wrong = _run(db, held, workload, seconds)
        timings = [timing_of(name, times, len(times)) for name, times in taken.items()]
        rates[letter] = sum(t.calls for t in timings) / sum(t.total_ns for t in timings) * 1e9
        operations[letter] = {timing.operation: asdict(timing) for timing in timings}
        if wrong:
            problems.append(f"YCSB {letter}: {wrong:,} answers are wrong")
    assert db is not None
    db.close()
    return {"rates": rates, "operations": operations, "problems": problems}


def _load(db: Engine, held: Records, records: int, seconds: float) -> float:
    """Put all records, and return how many a second."""
    begun = time.perf_counter()
    taken = 0.0
    for chunk in grouped(held.pairs(), CHUNK):
        before = time.perf_counter()
        db.put_many(chunk)
        taken += time.perf_counter() - before
        if time.perf_counter() - begun > LOAD * seconds:
            raise TimeoutError(f"{records:,} records could not be loaded in {LOAD * seconds:.0f} s")
    return records / taken


def _run(
    db: Engine, held: Records, workload: Workload, seconds: float
) -> tuple[dict[str, list[int]], int]:
    """Return what each call took, in nanoseconds, by the operation's name; and wrong answers."""
    clock = time.perf_counter_ns
    get, put = db.reader() if workload.shares.keys() == {"read"} else db.get, db.put
    keys = held.order.copy()  # as an application keeps them beside a store without order

    def scan(first: bytes, count: int) -> list[Pair]:
        place = bisect.bisect_left(keys, first)
        names = keys[place : place + count]
        return list(zip(names, db.get_many(names), strict=True))  # type: ignore[arg-type]

    def insert(key: bytes, value: bytes) -> object:
        bisect.insort(keys, key)
        return put(key, value)

    if db.ordered:
        scan, insert = db.scan, put  # type: ignore[assignment]
    taken: dict[str, list[int]] = {name: [] for name in workload.shares}
    wrong = 0
    operations = held.operations(workload)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        chunk = list(islice(operations, CHUNK))
        answers: list[Any] = []
        for name, key, value, expected in chunk:
            before = clock()
            if name == "read":
                answer: Any = get(key)
            elif name == "update":
                answer = put(key, value)  # type: ignore[arg-type]
            elif name == "modify":
                answer = get(key)
                put(key, value)  # type: ignore[arg-type]
            elif name == "scan":
                answer = scan(key, len(expected))
            else:
                answer = insert(key, value)  # type: ignore[arg-type]
            taken[name].append(clock() - before)
            answers.append(answer)
        for operation, answer in zip(chunk, answers, strict=True):
            wrong += not _is_right(held, operation, answer)
    return taken, wrong


def _is_right(held: Records, operation: Operation, answer: Any) -> bool:
    if operation.name in ("update", "insert"):
        return True  # what it wrote is seen by what is read later
    if operation.name == "scan":
        return bool(answer == [(key, held.value(place)) for key, place in operation.expected])
    return bool(answer == operation.expected)
