"""What the test programs of this folder cannot say themselves."""

from __future__ import annotations

import shutil
from typing import Any

import pytest


def test_every_source_compiles_without_a_warning(builder: Any) -> None:
    """A source that no test program refers to is compiled all the same, with warnings as errors."""
    if shutil.which(builder.compiler[0]) is None:
        pytest.skip(f"no C compiler: {builder.compiler[0]}")
    builder.build_archives()
    assert not builder.errors, "\n".join(builder.errors.values())
