"""
libFuzzer targets: any bytes in place of any file, and any series of calls.

`pytest tests/fuzz --seconds 60` runs each for a minute. An input that is a finding is put into
build/fuzz/TARGET/artifacts; once what it found is fixed, it goes to tests/fuzz/found/TARGET and is
tried first in every later run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

TARGETS = sorted(path.stem for path in Path(__file__).parent.glob("fuzz_*.c"))


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_is_a_finding(name: str, targets: Any, pytestconfig: pytest.Config) -> None:
    """No input crashes or hangs the engine, or breaks one of the promises that the target checks."""
    seconds = pytestconfig.getoption("--seconds", None)
    run = targets.run(name, 1 if seconds is None else seconds)
    print(f"{name}: {run.inputs} inputs")
    if run.artifact is not None:
        pytest.fail(f"{name}: {run.artifact}\n{run.output[-8000:]}", pytrace=False)
    assert run.inputs > 20, run.output
