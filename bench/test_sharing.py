"""
Many threads and processes on one store at once: pykv beside py-lmdb and SQLite.

A round lasts --round-seconds, whoever runs; what is measured is how much was done: by all together, and
the share of the slowest. sharing.py prints the same as a table, with more.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sharing import DURABLE, DURABLE_KEYS, ENGINES, GETS, PUTS, at_once

engines = pytest.mark.parametrize("name", ["pykv", "lmdb", "sqlite"])


@pytest.fixture
def together(
    name: str, tmp_path: Path, benchmark: Any, measure: Callable[..., Any], pytestconfig: Any
) -> Iterator[Callable[..., None]]:
    """Measure what threads or processes do at once, one for each order of keys."""
    if name == "lmdb":
        pytest.importorskip("lmdb")
    seconds = pytestconfig.getoption("--round-seconds")
    seen: list[list[float]] = []

    def run(durable: bool, write: bool, how: str, orders: list[list[bytes]]) -> None:
        measure(
            lambda: seen.append(
                at_once(ENGINES[name], tmp_path, durable, write, how, orders, seconds)
            )
        )

    yield run
    benchmark.extra_info["a second"] = statistics.median(map(sum, seen))
    shares = [min(each) / sum(each) for each in seen]
    benchmark.extra_info["share of the slowest"] = round(statistics.median(shares), 3)


@engines
@pytest.mark.benchmark(group="gets at once")
@pytest.mark.parametrize(("how", "count"), GETS)
def test_gets(
    tmp_path: Path, keys: list[bytes], together: Any, name: str, how: str, count: int
) -> None:
    engine = ENGINES[name](tmp_path, False)
    engine.fill(keys)
    engine.close()
    together(False, False, how, [keys[n:] + keys[:n] for n in range(count)])


@engines
@pytest.mark.benchmark(group="puts at once")
@pytest.mark.parametrize(("how", "count"), PUTS)
def test_puts(
    tmp_path: Path, keys: list[bytes], together: Any, name: str, how: str, count: int
) -> None:
    ENGINES[name](tmp_path, False).close()
    together(False, True, how, [keys[n::4] for n in range(count)])


@engines
@pytest.mark.benchmark(group="durable puts at once")
@pytest.mark.parametrize(("how", "count"), DURABLE)
def test_durable_puts(
    tmp_path: Path, keys: list[bytes], together: Any, name: str, how: str, count: int
) -> None:
    ENGINES[name](tmp_path, True).close()
    together(True, True, how, [keys[n::16][:DURABLE_KEYS] for n in range(count)])
