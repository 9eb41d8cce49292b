"""A store is sent to processes that share nothing with this one: pickled, by path and options."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pykv

WORKERS = 4
WRITES = 500


def count(db: pykv.Store, worker: int) -> int:
    """Write beside others; the handle came by pickle, and closes with us."""
    with db:
        for n in range(WRITES):
            db[b"%d:%d" % (worker, n)] = b"v"
            db.incr(b"count")
        return db.incr(b"done")


def test_spawned_workers_share_the_store(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with pykv.open(tmp_path / "store.kv") as db:
        with context.Pool(WORKERS) as pool:
            done = pool.starmap(count, [(db, worker) for worker in range(WORKERS)])
        assert sorted(done) == list(range(1, WORKERS + 1))
        assert db[b"count"] == b"%d" % (WORKERS * WRITES)
        assert len(db) == WORKERS * WRITES + 2
        assert db.verify().ok
