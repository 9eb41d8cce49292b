"""Options and helpers of the tests that kill processes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for workers.py


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=30, help="kills of each loop in tests/kill")


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    """How often to kill."""
    number: int = request.config.getoption("--kills")
    return number
