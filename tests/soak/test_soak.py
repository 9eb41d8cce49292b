"""bench/soak.py, for a short time: the bound at every sample, every answer; and that it can fail."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCH)
    import soak

    return soak


def test_the_disk_keeps_its_bound_and_every_answer_is_right(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    seconds = pytestconfig.getoption("--soak-seconds")
    options = ["--keys", "100000", "--rate", "0", "--seconds", str(seconds)]
    run = subprocess.run(
        [
            sys.executable,
            BENCH / "soak.py",
            *options,
            "--json",
            tmp_path / "json",
            "--directory",
            tmp_path,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    print(run.stdout)
    samples = json.loads((tmp_path / "json").read_text())["samples"]
    assert samples[-1]["written_bytes"] > 0
    assert any(each["snapshot_seconds"] > 0 for each in samples)


def test_a_wrong_answer_is_one(soak: Any) -> None:
    model, now = soak.Model(0, 3), time.time()
    key = soak.key_of(0, 1)
    model.done[1] = 5 << 1 | 1
    model.check(1, soak.value_of(key, 5), now, now)
    for found in (None, soak.value_of(key, 4), soak.value_of(soak.key_of(0, 2), 5), b""):
        with pytest.raises(AssertionError):
            model.check(1, found, now, now)
    model.early[1], model.late[1] = int(now * 1000) + 5_000, int(now * 1000) + 6_000
    for time_, right in ((now, [True, False]), (now + 5.5, [True, True]), (now + 7, [False, True])):
        for found, ok in zip((soak.value_of(key, 5), None), right, strict=True):
            if ok:
                model.check(1, found, time_, time_)
            else:
                with pytest.raises(AssertionError):
                    model.check(1, found, time_, time_)
    model.done[1] = 6 << 1  # deleted
    model.check(1, None, now, now)
    with pytest.raises(AssertionError):
        model.check(1, soak.value_of(key, 5), now, now)


def test_a_sample_over_the_bound_is_one(soak: Any) -> None:
    sample = {"disk_bytes": 1_100, "held_bytes": 100, "bound_bytes": 1_000}
    assert soak.over_bound([sample]) == []
    assert soak.over_bound([sample, over := sample | {"held_bytes": 99}]) == [over]


@pytest.mark.parametrize("ns", [0, 1, 63, 64, 100, 999, 123_456, 10**9, 10**11])
def test_a_time_is_counted_within_a_thirty_second(soak: Any, ns: int) -> None:
    assert ns <= soak.ns_of(soak.slot_of(ns)) <= ns + ns / 32
    counts = [0] * soak.SLOTS
    counts[soak.slot_of(ns)], counts[soak.SLOTS - 1] = 999, 1
    assert soak.percentile_us(counts, 0.999) == soak.ns_of(soak.slot_of(ns)) / 1000
    assert soak.percentile_us(counts, 1) == soak.ns_of(soak.SLOTS - 1) / 1000
