"""
Snapshots and transactions of several processes: forked, killed, and at work on the same keys.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import workers

import pykv

# CPython 3.12 and later warn of fork() beside other threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

ACCOUNTS, TOTAL = 20, 2_000


@pytest.fixture
def db(tmp_path: Path) -> Iterator[pykv.Store]:
    """A store with accounts, open before any fork."""
    with pykv.open(tmp_path / "store.kv", segment_bytes=workers.SEGMENT_BYTES) as store:
        store.update({b"account:%d" % n: b"%d" % (TOTAL // ACCOUNTS) for n in range(ACCOUNTS)})
        yield store


def await_report(worker: workers.Worker) -> None:
    """Wait until the worker has reported."""
    deadline = time.monotonic() + 20
    while worker.done == 0 and time.monotonic() < deadline:
        worker.listen(0.01)
    assert worker.done


def test_a_child_has_the_snapshot_too(db: pykv.Store) -> None:
    """After a fork both have the snapshot; when one closes it the other still has all of it."""
    expected = dict(db)
    mine, theirs = db.snapshot(), db.snapshot()
    read, write = os.pipe()

    def child(report: Callable[..., None]) -> None:
        assert db.stats().snapshots == 4  # the parent's two, and ours
        mine.close()
        report(1)
        os.read(read, 1)
        assert dict(theirs) == expected
        assert theirs.get_many(expected) == list(expected.values())

    worker = workers.Worker(child)
    await_report(worker)
    theirs.close()
    db.clear()
    assert dict(mine) == expected
    db.put_many((b"%d" % n, b"") for n in range(1_000))
    db.clear()
    os.write(write, b".")
    worker.join()
    assert dict(mine) == expected
    mine.close()
    assert db.stats().snapshots == 0
    os.close(read)
    os.close(write)


def test_a_child_and_its_parent_commit(db: pykv.Store) -> None:
    """Of a transaction that goes on in both after a fork, one commits and the other conflicts."""
    read, write = os.pipe()
    t = db.transaction()
    t.incr(b"account:1")

    def child() -> None:
        os.read(read, 1)
        with pytest.raises(pykv.ConflictError):
            t.__exit__(None, None, None)

    worker = workers.Worker(lambda report: child())
    t.__exit__(None, None, None)
    os.write(write, b".")
    worker.join()
    assert db[b"account:1"] == b"101"
    os.close(read)
    os.close(write)


def test_no_phantoms(db: pykv.Store) -> None:
    """Processes that count the keys of a prefix and add one named by the count never collide."""

    def take_seats(report: Callable[..., None]) -> None:
        def function(t: pykv.Transaction) -> None:
            t[b"seat:%d" % len(t.keys(prefix=b"seat:"))] = b""

        for _ in range(150):
            db.transact(function, retries=10_000)

    everybody = [workers.Worker(take_seats) for _ in range(3)]
    for worker in everybody:
        worker.join()
    assert set(db.keys(prefix=b"seat:")) == {b"seat:%d" % n for n in range(450)}


def test_a_killed_process_frees_its_pins(db: pykv.Store) -> None:
    """The snapshots of a process that was killed hold nothing any more."""

    def hold(report: Callable[..., None]) -> None:
        taken = [db.snapshot() for _ in range(100)]
        transaction = db.transaction()
        iteration = iter(db)
        next(iteration)
        report(len(taken) + len(list(transaction)))
        signal.pause()

    worker = workers.Worker(hold)
    await_report(worker)
    worker.kill()
    deadline = time.monotonic() + 10
    while db.stats().snapshots and time.monotonic() < deadline:
        time.sleep(0.01)
    assert db.stats().snapshots == 0
    db.clear()
    assert list(db) == []
    taken = [db.snapshot() for _ in range(1_024)]
    assert len(taken) == 1_024


@pytest.mark.parametrize("kill", [False, True])
def test_bank(db: pykv.Store, kill: bool) -> None:
    """While processes move money, snapshots in others always see the same total."""

    def move(report: Callable[..., None], seed: int) -> None:
        chance = random.Random(seed)
        for n in range(1_000_000):
            source, target = chance.sample(range(ACCOUNTS), 2)

            def function(t: pykv.Transaction, source: int = source, target: int = target) -> None:
                amount = min(chance.randrange(100), int(t.get(b"account:%d" % source, b"0")))
                for account, by in ((source, -amount), (target, amount)):
                    if t.incr(b"account:%d" % account, by) == 0:
                        del t[b"account:%d" % account]  # so that there are deletes, and phantoms

            if n % 10 == 0:  # and one by a batch, which notices if it comes too late
                found = db.get_with_version(b"account:%d" % source)
                with contextlib.suppress(pykv.ConflictError), db.batch() as batch:
                    if found is not None:
                        batch.expect_version(b"account:%d" % source, found[1])
                        batch[b"account:%d" % source] = found[0]
            db.transact(function, retries=1_000)
            report(n + 1)

    def watch(report: Callable[..., None], how: int) -> None:
        for n in range(1_000_000):
            if how == 0:
                with db.snapshot() as seen:
                    values = [*seen.values(prefix=b"account:")]
                    one_by_one = [seen.get(b"account:%d" % m, b"0") for m in range(ACCOUNTS)]
                    assert sum(map(int, one_by_one)) == TOTAL
            elif how == 1:
                values = [*db.values(prefix=b"account:")]
            else:
                with db.transaction() as t:
                    values = [*t.values(prefix=b"account:")]
                    t[b"total"] = b"%d" % sum(map(int, values))
            assert sum(map(int, values)) == TOTAL
            report(n + 1)

    def watch_patiently(report: Callable[..., None], how: int) -> None:
        while True:
            try:
                watch(report, how)
            except pykv.ConflictError:
                continue

    movers = [workers.Worker(move, seed) for seed in range(2)]
    watchers = [workers.Worker(watch_patiently, how) for how in range(3)]
    end = time.monotonic() + 3
    seed = 100
    while time.monotonic() < end:
        for worker in movers + watchers:
            worker.listen(0.005)
        if kill:
            movers.pop(0).kill()
            movers.append(workers.Worker(move, seed := seed + 1))
        else:
            with db.snapshot() as seen:
                assert sum(map(int, seen.values(prefix=b"account:"))) == TOTAL
    for worker in watchers:
        assert worker.done > 0
    for worker in movers + watchers:
        worker.kill()
    with db.snapshot() as seen:
        assert sum(map(int, seen.values(prefix=b"account:"))) == TOTAL
    assert db.verify().ok
