"""Options of the benchmark suites."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--keys", type=int, default=100_000, help="keys in the store")
