"""
Many threads and processes on one store at once: pykv beside py-lmdb and SQLite.

A round lasts SECONDS, whoever runs; what is measured is how much was done: `a_second`, of all together,
and `least_share`, that of the slowest, in extra_info. sharing.py prints the same as a table, with more.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest
from sharing import DURABLE, DURABLE_KEYS, ENGINES, GETS, PUTS, at_once

SECONDS = 1.0
ROUNDS = 3
engines = pytest.mark.parametrize("name", ["pykv", "lmdb", "sqlite"])


def measure(
    benchmark: Any,
    name: str,
    path: Path,
    durable: bool,
    write: bool,
    how: str,
    orders: list[list[bytes]],
) -> None:
    if name == "lmdb":
        pytest.importorskip("lmdb")
    seen: list[list[float]] = []

    def run() -> None:
        seen.append(at_once(ENGINES[name], path, durable, write, how, orders, SECONDS))

    benchmark.pedantic(run, rounds=ROUNDS)
    benchmark.extra_info["a_second"] = statistics.median(map(sum, seen))
    benchmark.extra_info["least_share"] = statistics.median(min(each) / sum(each) for each in seen)


@engines
@pytest.mark.benchmark(group="gets at once")
@pytest.mark.parametrize(("how", "count"), GETS)
def test_gets(
    tmp_path: Path, keys: list[bytes], benchmark: Any, name: str, how: str, count: int
) -> None:
    engine = ENGINES[name](tmp_path, False)
    engine.fill(keys)
    engine.close()
    measure(
        benchmark, name, tmp_path, False, False, how, [keys[n:] + keys[:n] for n in range(count)]
    )


@engines
@pytest.mark.benchmark(group="puts at once")
@pytest.mark.parametrize(("how", "count"), PUTS)
def test_puts(
    tmp_path: Path, keys: list[bytes], benchmark: Any, name: str, how: str, count: int
) -> None:
    ENGINES[name](tmp_path, False).close()
    measure(benchmark, name, tmp_path, False, True, how, [keys[n::4] for n in range(count)])


@engines
@pytest.mark.benchmark(group="durable puts at once")
@pytest.mark.parametrize(("how", "count"), DURABLE)
def test_durable_puts(
    tmp_path: Path, keys: list[bytes], benchmark: Any, name: str, how: str, count: int
) -> None:
    ENGINES[name](tmp_path, True).close()
    orders = [keys[n::16][:DURABLE_KEYS] for n in range(count)]
    measure(benchmark, name, tmp_path, True, True, how, orders)
