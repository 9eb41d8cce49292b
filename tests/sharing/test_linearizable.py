"""
Threads of several processes call at once, and what they saw can be told as one after the other.

`pytest tests/sharing --operations 1000000` is the long run.
"""

from __future__ import annotations

import itertools
import multiprocessing
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from linearize import Call, ImpossibleError, apply_to_all, apply_to_key, first_impossible

import pykv

PROCESSES = 4
THREADS = 4
OPERATIONS = 16_000  # in all, unless --operations says otherwise
KEYS = 4
SEGMENT_BYTES = 1 << 20

Act = Callable[[pykv.Store, random.Random, str], list[tuple[Any, Call]]]

# CPython 3.12 and later warn of fork() beside other threads; the children have none yet.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


@pytest.fixture
def operations(pytestconfig: pytest.Config) -> int:
    return int(pytestconfig.getoption("--operations", None) or OPERATIONS)


# ---- Calls of one key ----


def call_one(db: pykv.Store, source: random.Random, unique: str) -> list[tuple[Any, Call]]:
    """One call of one key; values are unique, so that a wrong one is known as such."""
    number = source.randrange(KEYS)
    key = b"key:%d" % number
    if source.random() < 0.2:
        by = source.randrange(1, 9)
        begin = time.monotonic_ns()
        total = db.incr(b"count:%d" % number, by)
        return [(b"count:%d" % number, Call(begin, time.monotonic_ns(), "incr", (by,), total))]
    value = unique.encode()
    name = source.choice(["get", "get", "put", "put", "delete", "put_if_absent", "compare_and_set"])
    arguments: tuple[Any, ...] = ()
    if name in ("put", "put_if_absent"):
        arguments = (value,)
    elif name == "compare_and_set":
        arguments = (db.get(key), source.choice([value, None]))
    begin = time.monotonic_ns()
    result = getattr(db, name)(key, *arguments)
    return [(key, Call(begin, time.monotonic_ns(), name, arguments, result))]


# ---- Calls of all keys ----


def call_all(db: pykv.Store, source: random.Random, unique: str) -> list[tuple[Any, Call]]:
    """A batch, a snapshot or a transaction over several keys."""
    names = [b"part:%d" % number for number in range(KEYS)]
    kind = source.random()
    if kind < 0.4:
        begin = time.monotonic_ns()
        with db.snapshot() as snapshot:
            values = tuple(map(int, snapshot.get_many(names)))
        return [(None, Call(begin, time.monotonic_ns(), "read", (), values))]
    if kind < 0.7:
        source_at, target_at = source.sample(range(KEYS), 2)

        def move(t: pykv.Transaction) -> None:
            t[names[source_at]] = b"%d" % (int(t[names[source_at]]) - 1)
            t[names[target_at]] = b"%d" % (int(t[names[target_at]]) + 1)

        begin = time.monotonic_ns()
        db.transact(move, retries=1000)
        ended = time.monotonic_ns()
        return [(None, Call(begin, ended, "move", (source_at, target_at, 1), None))]
    changes = tuple((at, source.randrange(1 << 40)) for at in source.sample(range(KEYS), 2))
    if kind < 0.85:
        begin = time.monotonic_ns()
        db.put_many({names[at]: b"%d" % value for at, value in changes})
        return [(None, Call(begin, time.monotonic_ns(), "write", changes, None))]
    at = source.randrange(KEYS)
    expected = int(db[names[at]])
    begin, done = time.monotonic_ns(), True
    try:
        with db.batch() as batch:
            batch.expect_value(names[at], b"%d" % expected)
            for which, value in changes:
                batch[names[which]] = b"%d" % value
    except pykv.ConflictError:
        done = False
    ended = time.monotonic_ns()
    return [(None, Call(begin, ended, "write_if", (at, expected, changes), done))]


# ---- Many at once ----


def work(path: Path, act: Act, process: int, count: int, start: Any, out: Any) -> None:
    """Call from THREADS threads, from when all processes are there."""
    calls: list[list[tuple[Any, Call]]] = [[] for _ in range(THREADS)]

    def run(thread: int) -> None:
        source = random.Random(process * THREADS + thread)
        for n in range(count):
            calls[thread] += act(db, source, f"{process}.{thread}.{n}")
            if n % 16 == 0:  # CPython switches threads each 5 ms; more often is harder on us
                time.sleep(0)

    with pykv.open(path, segment_bytes=SEGMENT_BYTES) as db:
        start.wait()
        threads = [threading.Thread(target=run, args=(n,)) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    out.put([*itertools.chain(*calls)])


def history(path: Path, act: Act, operations: int) -> dict[Any, list[Call]]:
    """What PROCESSES x THREADS saw, by key."""
    context = multiprocessing.get_context("fork")
    start, out = context.Barrier(PROCESSES), context.Queue()
    count = operations // (PROCESSES * THREADS)
    workers = [
        context.Process(target=work, args=(path, act, process, count, start, out))
        for process in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    calls: dict[Any, list[Call]] = defaultdict(list)
    for _ in workers:
        for key, call in out.get(timeout=600):
            calls[key].append(call)
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    return calls


def test_each_key_is_linearizable(tmp_path: Path, operations: int) -> None:
    calls = history(tmp_path / "store.kv", call_one, operations)
    assert sum(map(len, calls.values())) == operations // 16 * 16
    for key, of_key in calls.items():
        assert first_impossible(of_key, None, apply_to_key) is None, key


def test_batches_snapshots_and_transactions_are_linearizable(
    tmp_path: Path, operations: int
) -> None:
    path = tmp_path / "store.kv"
    with pykv.open(path) as db:
        db.put_many({b"part:%d" % number: b"0" for number in range(KEYS)})
    (calls,) = history(path, call_all, operations // 4).values()
    assert first_impossible(calls, (0,) * KEYS, apply_to_all) is None


# ---- The checker itself finds what is wrong ----


def calls_of(*rows: tuple[int, int, str, Any, Any]) -> list[Call]:
    return [Call(*row) for row in rows]


@pytest.mark.parametrize(
    ("calls", "right"),
    [
        (calls_of((1, 2, "put", ("a",), None), (3, 4, "get", (), "a")), True),
        (calls_of((1, 4, "put", ("a",), None), (2, 3, "get", (), None)), True),
        (calls_of((1, 2, "put", ("a",), None), (3, 4, "get", (), None)), False),  # stale
        (calls_of((1, 2, "get", (), "a"), (3, 4, "put", ("a",), None)), False),  # too early
        (
            calls_of(  # seen, and then no more
                (1, 9, "put", ("a",), None), (2, 3, "get", (), "a"), (4, 5, "get", (), None)
            ),
            False,
        ),
        (calls_of((1, 4, "incr", (1,), 1), (2, 3, "incr", (1,), 1)), False),  # lost update
        (calls_of((1, 4, "incr", (1,), 2), (2, 3, "incr", (1,), 1)), True),
        (
            calls_of((1, 4, "put_if_absent", ("a",), True), (2, 3, "put_if_absent", ("b",), True)),
            False,
        ),
        (
            calls_of(
                (1, 2, "put", ("a",), None), (3, 6, "delete", (), True), (4, 5, "delete", (), True)
            ),
            False,
        ),
        (
            calls_of(
                (1, 2, "put", ("a",), None),
                (3, 6, "compare_and_set", ("a", "b"), True),
                (4, 5, "compare_and_set", ("a", "c"), True),
            ),
            False,
        ),
    ],
)
def test_the_checker_of_one_key(calls: list[Call], right: bool) -> None:
    assert (first_impossible(calls, None, apply_to_key) is None) is right


@pytest.mark.parametrize(
    ("calls", "right"),
    [
        (calls_of((1, 4, "write", ((0, 1), (1, 1)), None), (2, 3, "read", (), (1, 1))), True),
        (calls_of((1, 4, "write", ((0, 1), (1, 1)), None), (2, 3, "read", (), (1, 0))), False),
        (calls_of((1, 4, "move", (0, 1, 5), None), (2, 3, "read", (), (-5, 5))), True),
        (calls_of((1, 2, "move", (0, 1, 5), None), (3, 4, "read", (), (0, 0))), False),
        (
            calls_of(
                (1, 4, "write_if", (0, 0, ((1, 1),)), True),
                (2, 3, "write_if", (1, 1, ((0, 1),)), True),
            ),
            True,
        ),
        (
            calls_of(  # write skew
                (1, 4, "write_if", (0, 0, ((1, 1),)), True),
                (2, 3, "write_if", (1, 0, ((0, 1),)), True),
            ),
            False,
        ),
    ],
)
def test_the_checker_of_all_keys(calls: list[Call], right: bool) -> None:
    assert (first_impossible(calls, (0, 0), apply_to_all) is None) is right


def test_a_wrong_result_in_a_long_history_is_found() -> None:
    source, value, calls = random.Random(1), None, []
    for n in range(2000):
        if source.random() < 0.5:
            value = str(n)
            calls.append(Call(10 * n, 10 * n + 15, "put", (value,), None))
        else:
            calls.append(Call(10 * n + 6, 10 * n + 9, "get", (), value))
    gets = [n for n, call in enumerate(calls) if call.name == "get" and n > 1000]
    wrong = calls[gets[0]]._replace(result="never written")
    assert first_impossible([*calls[: gets[0]], wrong], None, apply_to_key) == wrong
    with pytest.raises(ImpossibleError):
        apply_to_key("a", Call(0, 0, "get", (), "b"))
