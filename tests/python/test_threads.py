"""Any number of threads share one store."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator

import pytest

import pykv

THREADS = 4


@pytest.fixture(autouse=True)
def _switch_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def together(act: Callable[[int], None]) -> None:
    """Run act(0), act(1)... at once in threads of their own; raise what they raised."""
    errors: list[BaseException] = []
    start = threading.Barrier(THREADS)

    def work(number: int) -> None:
        start.wait()
        try:
            act(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
        assert not thread.is_alive()
    for error in errors:
        raise error


def test_each_thread_reads_its_own_writes(db: pykv.Store) -> None:
    """What a thread wrote it reads back at once, whatever the others do; no value is mixed up."""

    def act(number: int) -> None:
        for n in range(2_000):
            key, value = b"%d:%d" % (number, n), b"%d:%d;" % (number, n) * (n % 50 + 1)
            db[key] = value
            assert db[key] == value
            if n % 100 == 0:
                keys = [b"%d:%d" % (number, m) for m in range(n)]
                assert db.get_many(keys) == [
                    b"%d:%d;" % (number, m) * (m % 50 + 1) for m in range(n)
                ]

    together(act)
    assert len(db) == THREADS * 2_000


def test_incr_loses_nothing(db: pykv.Store) -> None:
    """Increments of one counter by many threads all count, and no sum is given twice."""
    sums: list[int] = []

    def act(number: int) -> None:
        sums.extend([db.incr(b"n") for _ in range(1_000)])

    together(act)
    assert db[b"n"] == b"%d" % (THREADS * 1_000)
    assert sorted(sums) == list(range(1, THREADS * 1_000 + 1))


def test_one_thread_wins(db: pykv.Store) -> None:
    """Of threads that race for put_if_absent() or setdefault(), one wins, and all agree."""
    won: list[bytes] = []
    seen: list[tuple[bytes, bytes]] = []

    def act(number: int) -> None:
        for n in range(500):
            if db.put_if_absent(b"%d" % n, b"%d" % number):
                won.append(b"%d" % n)
            key = b"default:%d" % n
            seen.append((key, db.setdefault(key, b"%d" % number)))

    together(act)
    assert sorted(won) == sorted(b"%d" % n for n in range(500))
    assert all(db[key] == value for key, value in seen)


def test_compare_and_set_is_atomic(db: pykv.Store) -> None:
    """A counter kept by compare_and_set() in a loop loses nothing."""
    db[b"n"] = b"0"

    def act(number: int) -> None:
        for _ in range(200):
            while True:
                now = db[b"n"]
                if db.compare_and_set(b"n", now, b"%d" % (int(now) + 1)):
                    break

    together(act)
    assert db[b"n"] == b"%d" % (THREADS * 200)


def test_pop_hands_out_each_item_once(db: pykv.Store) -> None:
    """Threads that empty a store with popitem() and pop() get each item once between them."""
    db.put_many((b"%d" % n, b"%d" % n) for n in range(4_000))
    taken: list[bytes] = []

    def act(number: int) -> None:
        mine = []
        for n in range(1_000):
            value = db.pop(b"%d" % n, None)
            if value is not None:
                mine.append(value)
        try:
            while True:
                mine.append(db.popitem()[1])
        except KeyError:
            pass
        taken.extend(mine)

    together(act)
    assert sorted(taken) == sorted(b"%d" % n for n in range(4_000))
    assert len(db) == 0


def test_batches_show_at_once(db: pykv.Store) -> None:
    """An iteration sees all of a batch or nothing of it."""
    keys = [b"%d" % n for n in range(50)]
    db.put_many((key, b"0") for key in keys)

    def act(number: int) -> None:
        for n in range(200):
            if number == 0:
                db.put_many((key, b"%d" % n) for key in keys)
            else:
                assert len(set(db.values())) == 1

    together(act)


def test_one_iterator_among_threads(db: pykv.Store) -> None:
    """An iterator that threads share by mistake may raise ValueError; it never crashes."""
    expected = {b"%d" % n: b"x" * (n % 200) for n in range(20_000)}
    db.put_many(expected)
    iteration = iter(db.items())

    def act(number: int) -> None:
        try:
            for key, value in iteration:
                assert expected[key] == value
        except ValueError as error:
            assert "already executing" in str(error)

    together(act)


def test_mutation_of_arguments(db: pykv.Store) -> None:
    """A list that another thread changes during the call is taken as it was at some moment."""
    keys: list[bytes] = [b"%d" % n for n in range(100)]
    pairs = {key: key for key in keys}
    stop = threading.Event()

    def act(number: int) -> None:
        if number == 0:
            while not stop.is_set():
                keys.append(b"x" * 1_000)
                keys.pop(0)
                keys.insert(0, b"longer" * 10)
                keys.pop()
        else:
            try:
                for _ in range(300):
                    assert len(db.get_many(keys)) in range(98, 103)
                    assert len(db.contains_many(keys)) in range(98, 103)
                    db.put_many(pairs)
            finally:
                stop.set()

    together(act)
    assert dict(db) == pairs


def test_a_value_that_changes_meanwhile(db: pykv.Store) -> None:
    """A bytearray that another thread writes into during a put never makes a damaged record."""
    value = bytearray(50_000)
    stop = threading.Event()

    def act(number: int) -> None:
        if number == 0:
            while not stop.is_set():
                value[:] = bytes([value[0] + 1 & 255]) * len(value)
        else:
            try:
                for n in range(100):
                    key = b"%d:%d" % (number, n % 10)
                    db[key] = value
                    assert len(db[key]) == len(value)
            finally:
                stop.set()

    together(act)
    assert db.verify().ok
