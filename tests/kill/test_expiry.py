"""Processes that are killed while their store removes what has expired."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import workers

import pykv

# CPython 3.12 and later warn of fork() beside other threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

KEYS = 5_000
OPTIONS = {"segment_bytes": workers.SEGMENT_BYTES}


def put_and_wait(report: Callable[..., None], path: Path, number: int) -> None:
    """Write keys that live for a moment, and one that stays; report, and wait to be killed."""
    db = pykv.open(path, **OPTIONS)
    db[b"ever:%d" % number] = b"%d" % number
    db.put_many(((b"%d:%d" % (number, n), b"v" * 50) for n in range(KEYS)), ttl=0.2)
    while len(db) > 0:
        report(len(db))
        time.sleep(0.0005)


def test_removing_is_killed(tmp_path: Path, kills: int) -> None:
    """What others had removed stays so, what they had not is removed, and nothing else ever is."""
    path, chance = tmp_path / "store.kv", random.Random(7)
    kills = 1 + kills // 3
    for number in range(kills):
        worker = workers.Worker(put_and_wait, path, number)
        end = time.monotonic() + 20
        while not 0 < worker.done < KEYS and time.monotonic() < end:  # until it has begun to remove
            worker.listen(0.005)
        assert 0 < worker.done < KEYS
        worker.listen(chance.uniform(0, 0.02))
        worker.kill()
        if number % 3 == 0:
            (path / "keydir").unlink()
        if number % 5 == 0:
            with pykv.open(path, **OPTIONS) as db:
                assert db.verify().ok
                assert dict(db) == {b"ever:%d" % n: b"%d" % n for n in range(number + 1)}
    with pykv.open(path, **OPTIONS) as db:
        end = time.monotonic() + 60
        while len(db) > kills and time.monotonic() < end:
            time.sleep(0.01)
        assert len(db) == kills
        assert dict(db) == {b"ever:%d" % n: b"%d" % n for n in range(kills)}
        assert db.verify().ok
