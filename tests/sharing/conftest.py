"""Options of the tests in this folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for linearize.py


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--operations", type=int, default=None, help="calls in all of each history")
