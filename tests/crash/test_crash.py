"""Power cuts, kills, failing calls and damaged files, on the simulated machine of tests/c/sim_os.h."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest


def figure(output: str, what: str) -> int:
    """The number that stands before *what* in a program's last line."""
    match = re.search(rf"(\d+) {re.escape(what)}", output.splitlines()[-1])
    assert match is not None, f"no figure '{what}' in: {output}"
    return int(match[1])


@pytest.fixture(scope="module", autouse=True)
def beside(
    request: pytest.FixtureRequest, plain: Any, sanitized: Any
) -> Iterator[dict[str, Future[str]]]:
    """What takes longest, one behind the other, while the tests before those that it is for run."""
    runs = {
        "test_damage_everywhere": (plain, "damage"),
        "test_failing_calls_under_sanitizers": (
            sanitized, "faults", "--stride", "101", "--seed", "100"
        ),
    }  # fmt: skip
    selected = {item.name for item in request.session.items}
    for programs in plain, sanitized:
        for name in "crash", "faults", "damage":
            programs.build(name)  # now: two at a time would build the same
    with ThreadPoolExecutor(1) as pool:
        yield {
            test: pool.submit(programs.output, *arguments)
            for test, (programs, *arguments) in runs.items()
            if test in selected
        }
        pool.shutdown(cancel_futures=True)


def test_power_cuts_and_kills(plain: Any, pytestconfig: pytest.Config) -> None:
    """Whatever a cut leaves, the store opens with a state that was true, and goes on from there."""
    images = pytestconfig.getoption("--images", 25_000)
    output = plain.run("crash", "--images", images, seconds=60 + images / 50)
    distinct = figure(output, "distinct +") + figure(output, "distinct of a second crash")
    assert distinct >= images
    assert figure(output, "violations") == 0


def test_power_cuts_under_sanitizers(sanitized: Any) -> None:
    """The same on fewer images, with every access to memory checked."""
    output = sanitized.run("crash", "--images", 2500, "--seed", 1000)
    assert figure(output, "violations") == 0


def test_failing_calls(plain: Any) -> None:
    """Whichever of the calls that are tried fails, the caller hears of it and nothing acknowledged is lost.

    Each fifth call of the scripts; `faults` without --stride tries all of them.
    """
    output = plain.run("faults", "--stride", 5)
    assert figure(output, "runs") >= 3000
    assert figure(output, "violations") == 0


def test_a_sync_that_fails_during_recovery(plain: Any) -> None:
    """The next open in this boot knows of it, and writes anew what the failed sync may have dropped."""
    output = plain.run("faults", "--scripts", 1, "--seed", 6, "--flavour", 5, "--from", 138)
    assert figure(output, "violations") == 0


def test_times_to_live(plain: Any) -> None:
    """
    What expires does so once, whatever comes between: cuts, kills, each 97th call failing, damage in
    a segment.
    """
    output = plain.run("crash", "--flavour", 8, "--images", 2000)
    assert figure(output, "violations") == 0
    output = plain.run("faults", "--flavour", 8, "--scripts", 1, "--stride", 97)
    assert figure(output, "violations") == 0
    one = "--stage", "closed", "--file", "segment-"
    output = plain.run("damage", "--flavour", 8, *one, "--stride", 199)
    assert figure(output, "trials") >= 2000


def test_backups(plain: Any) -> None:
    """
    Cut, killed or failing, a backup is the old instant, the new one, or says that it is none; its
    store is whole, and the next backup succeeds.
    """
    output = plain.run("crash", "--flavour", 11, "--images", 3000)
    assert figure(output, "violations") == 0
    output = plain.run("faults", "--flavour", 11, "--scripts", 1, "--stride", 29)
    assert figure(output, "violations") == 0


def test_damage_under_sanitizers(sanitized: Any) -> None:
    """As below for each 29th byte of another store, with every access to memory checked."""
    sanitized.run("damage", "--stride", 29, "--seed", 9)


def test_damage_everywhere(beside: dict[str, Future[str]]) -> None:
    """No change to any file is a crash, a hang, a wrong value or a silent loss."""
    output = beside["test_damage_everywhere"].result()
    print(output)
    assert figure(output, "trials") >= 20_000


def test_failing_calls_under_sanitizers(beside: dict[str, Future[str]]) -> None:
    """As test_failing_calls for each 101st call of other scripts, with every access to memory checked."""
    print(beside["test_failing_calls_under_sanitizers"].result())
