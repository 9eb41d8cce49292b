"""Options and helpers of the tests that kill processes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for workers.py

from workers import Worker


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=30, help="kills of each loop in tests/kill")


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    """How often to kill."""
    number: int = request.config.getoption("--kills")
    return number


@pytest.fixture(autouse=True)
def _no_worker_outlives_its_test() -> Iterator[None]:
    """Whatever becomes of a test, it leaves nobody behind who waits for it."""
    yield
    for worker in list(Worker.running):
        with contextlib.suppress(AssertionError):  # the test has failed already
            worker.kill()
