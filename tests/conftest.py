"""Options that all tests share."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--sanitize",
        choices=["address", "thread", "none"],
        default="address",
        help="what tests/c is built with: AddressSanitizer and UndefinedBehaviorSanitizer"
        " (the default), ThreadSanitizer, or nothing",
    )
    parser.addoption(
        "--bits",
        choices=["native", "32"],
        default="native",
        help="32: tests/c as programs of 32 bits (Debian: gcc-multilib), with --sanitize none",
    )
