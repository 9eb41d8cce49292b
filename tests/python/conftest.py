"""Stores for the tests of the Python API: fresh, empty, closed at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import pykv


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a store may be made."""
    return tmp_path / "store.kv"


@pytest.fixture(params=["mmap", "pread"])
def db(path: Path, request: pytest.FixtureRequest) -> Iterator[pykv.Store]:
    """An open and empty store, in each io mode, with small segments so that tests fill several."""
    with pykv.open(path, io=request.param, segment_bytes=1 << 20) as store:
        yield store


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A file of 3,000 pairs, as the benchmark's processes read it."""
    from pykv._bench.data import made_up, write_pairs

    file = tmp_path / "pairs"
    write_pairs(made_up(3000, 16, 100, seed=1), file)
    return file
