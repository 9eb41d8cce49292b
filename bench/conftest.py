"""What the benchmark suites share: options, keys, stores that are filled, and figures of our own."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for engines.py and the like

from engines import ENGINES, ROUNDS, fill

figures = pytest.StashKey[dict[str, dict[str, Any]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--keys", type=int, default=100_000, help="keys in the store")
    parser.addoption("--round-seconds", type=float, default=1, help="of rounds of fixed time")
    parser.addoption("--backup-mib", type=int, default=256, help="size of the store backed up")
    parser.addoption("--value-mib", type=int, default=64, help="size of the large value")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[figures] = {}


@pytest.fixture(scope="session")
def keys(pytestconfig: pytest.Config) -> list[bytes]:
    """Random keys of 16 bytes: --keys of them."""
    source = random.Random(1)
    return [source.randbytes(16) for _ in range(pytestconfig.getoption("--keys"))]


@pytest.fixture(scope="session")
def shuffled(keys: list[bytes]) -> list[bytes]:
    """The same in another order."""
    order = keys[:]
    random.Random(2).shuffle(order)
    return order


@pytest.fixture(params=ENGINES.values(), ids=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """An empty store of each engine."""
    opened = request.param(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def filled(engine: Any, keys: list[bytes]) -> Any:
    """A store of each engine that holds all keys."""
    fill(engine, keys)
    return engine


@pytest.fixture
def measure(benchmark: Any, request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """
    Run rounds of an act, and note the time of one operation of so many in a round.

    Whatever else a test puts into benchmark.extra_info is told at the end, too; all of it is in the
    JSON that --benchmark-save keeps.
    """

    def run(act: Callable[[], Any], operations: int | None = None, **options: Any) -> Any:
        result = benchmark.pedantic(act, **({"rounds": ROUNDS} | options))
        if operations and benchmark.stats is not None:  # as --benchmark-disable leaves it
            ns = benchmark.stats.stats.median / operations * 1e9
            benchmark.extra_info["ns an operation"] = ns
        return result

    yield run
    request.config.stash[figures][request.node.nodeid] = benchmark.extra_info


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if config.getoption("--benchmark-disable") or not config.stash[figures]:
        return
    terminalreporter.section("figures: medians of the rounds")
    for name, told in config.stash[figures].items():
        shown = ", ".join(
            f"{key}: {value:,.4g}" if isinstance(value, float) else f"{key}: {value:,}"
            for key, value in told.items()
        )
        terminalreporter.write_line(f"{name.split('/')[-1]:<56} {shown}")
