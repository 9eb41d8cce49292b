"""Values and growth far beyond what one segment, buffer or bucket holds."""

from __future__ import annotations

from pathlib import Path

import pytest

import pykv


@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_value_of_many_segments(path: Path, io: str) -> None:
    """A value of 100 MiB in a store with segments of 64 KiB is whole, also after a rebuild."""
    value = bytes(range(256)) * (400 << 10)
    with pykv.open(path, segment_bytes=1 << 16, io=io) as db:
        db[b"large"] = value
        db[b"k"] = b"v"
        assert db[b"large"] == value
    (path / "keydir").unlink()
    with pykv.open(path, segment_bytes=1 << 16, io=io) as db:
        assert db[b"large"] == value
        assert db[b"k"] == b"v"
        assert db.verify().ok


def test_iteration_over_a_store_that_outgrows_it(path: Path) -> None:
    """An iteration begun on a small store ends as of then, though the store grew 500-fold."""
    with pykv.open(path) as db:
        db.put_many((b"%d" % n, b"") for n in range(5_000))
        iteration = iter(db.keys())
        keys = [next(iteration)]
        for start in range(0, 2_500_000, 100_000):
            db.put_many((b"x%d" % n, b"") for n in range(start, start + 100_000))
        keys += iteration
        assert len(keys) == len(set(keys)) == 5_000


@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_limit_of_disk_bytes(path: Path, io: str) -> None:
    """At max_disk_bytes writes are refused, nothing is lost, and a rebuild changes nothing."""
    with pykv.open(path, max_disk_bytes=1 << 20, segment_bytes=1 << 16, io=io) as db:
        count = 0
        with pytest.raises(pykv.StoreFullError, match="limit"):
            while True:
                db[b"%d" % count] = b"x" * 1_000
                count += 1
        assert len(db) == count
        assert db.verify().ok
    (path / "keydir").unlink()
    with pykv.open(path, "w", io=io) as db:
        assert len(dict(db)) == len(db) == count
