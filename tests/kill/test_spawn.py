"""A store is sent to processes that share nothing with this one: pickled, by path and options."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import workers

import pykv

WORKERS = 4
WRITES = 500


def test_spawned_workers_share_the_store(tmp_path: Path) -> None:
    """They open it where they are, and what all wrote is there."""
    context = multiprocessing.get_context("spawn")
    with pykv.open(tmp_path / "store.kv") as db, context.Pool(WORKERS) as pool:
        tasks = [(db, worker, WRITES) for worker in range(WORKERS)]
        done = pool.starmap_async(workers.count_shared, tasks).get(timeout=300)
        assert sorted(done) == list(range(1, WORKERS + 1))
        assert db[b"count"] == b"%d" % (WORKERS * WRITES)
        assert len(db) == WORKERS * WRITES + 2
        assert db.verify().ok
