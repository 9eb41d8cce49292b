"""
kill.py -- kill a writer with SIGKILL, several times, and see what the store holds then: each
batch that was acknowledged, whole; of the one that was under way all or nothing; and no more.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pykv
from pykv._bench.library import Batch, Library

WRITER = [sys.executable, "-P", "-m", "pykv._bench.writer"]
PACKAGE_PARENT = Path(pykv.__file__).parents[1]
PATIENCE_SECONDS = 30  # how long a writer may be silent before that is a failure
DELAY_MAX_SECONDS = 0.002  # between the batch that was waited for and the signal


@dataclass
class Killed:
    """
    What the kills of one store have shown.

    Attributes:
        kills: How many writers were killed while they wrote.
        acknowledged: Batches that they had acknowledged.
        checked_keys: Keys that were read back and compared, after all kills together.
        lost: Keys of acknowledged batches that were absent or had another value.
        torn: Batches that were there in part.
        open_ms: Milliseconds of each open and first get after a kill.
        problems: What was wrong, a sentence each.
    """

    kills: int = 0
    acknowledged: int = 0
    checked_keys: int = 0
    lost: int = 0
    torn: int = 0
    open_ms: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def write_plan(library: Library, path: Path) -> None:
    """Write which keys each batch has, as the writer reads it."""
    plan = [[key.decode("latin-1") for key in batch] for batch in library.batches]
    path.write_text(json.dumps(plan), encoding="ascii")


def kill_writers(
    library: Library, source: Path, plan: Path, store: Path, options: Mapping[str, str], kills: int
) -> Killed:
    """
    Let writers fill *store*, each going on where the one before was killed.

    Args:
        library: What is written.
        source: A store that holds all of it.
        plan: See write_plan.
        store: Where the writers write: not there yet.
        options: durability and io.
        kills: How many writers to kill. Where they are killed is random, at even distances.
    """
    killed = Killed()
    choose = random.Random()
    count = len(library.batches)
    first = 0  # the batch that the next writer begins with
    for number in range(kills):
        goal = int(count * (number + choose.uniform(0.4, 1.0)) / (kills + 1))
        delay = choose.uniform(0, DELAY_MAX_SECONDS)
        status, last = _kill_one(source, plan, store, options, first, goal, delay)
        if status == 0:
            break  # done before the signal came
        if status != -signal.SIGKILL:
            killed.problems.append(f"a writer ended with status {status} by itself")
            break
        killed.kills += 1
        killed.acknowledged = first = last + 1
        # What was written when its writer could not say so any more is not written again.
        first += _check(library.batches, first, store, options, killed)
    if not killed.kills and not killed.problems:
        killed.problems.append("no writer could be killed in time")
    return killed


def _kill_one(
    source: Path,
    plan: Path,
    store: Path,
    options: Mapping[str, str],
    first: int,
    goal: int,
    delay: float,
) -> tuple[int, int]:
    """Kill a writer soon after it has acknowledged batch *goal*; its status and last word."""
    arguments = [source, plan, store, options["durability"], options["io"], str(first)]
    # The writer imports this very package, whatever pykv/ the working directory may hold.
    paths = filter(None, [str(PACKAGE_PARENT), os.environ.get("PYTHONPATH")])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    writer = subprocess.Popen(
        [*WRITER, *map(str, arguments)], stdout=subprocess.PIPE, env=environment
    )
    assert writer.stdout is not None
    words, last = b"", first - 1
    with writer.stdout as pipe:
        while last < goal and select.select([pipe], [], [], PATIENCE_SECONDS)[0]:
            data = os.read(pipe.fileno(), 65_536)
            if not data:
                break
            words += data
            last = _last_word(words, last)
        time.sleep(delay)  # the writer goes on meanwhile: it does not wait for us
        writer.send_signal(signal.SIGKILL)
        while data := os.read(pipe.fileno(), 65_536):  # acknowledged, but not yet heard
            words += data
    return writer.wait(), _last_word(words, last)


def _last_word(words: bytes, last: int) -> int:
    lines = words[: words.rfind(b"\n") + 1].split()
    return int(lines[-1]) if lines else last


def _check(
    batches: list[Batch], done: int, store: Path, options: Mapping[str, str], killed: Killed
) -> bool:
    """Check *store*: the first *done* batches must be there; tell whether the next one is too."""
    first_key, first_value = next(iter(batches[0].items()))
    before = time.perf_counter()
    with pykv.open(store, "w", **options) as db:  # type: ignore[arg-type]
        found = db.get(first_key)
        killed.open_ms.append((time.perf_counter() - before) * 1000)
        if done > 0 and found != first_value:
            killed.problems.append("the first get after a kill has another value")

        expected = {key: value for batch in batches[:done] for key, value in batch.items()}
        values = db.get_many(expected)
        lost = sum(a != b for a, b in zip(values, expected.values(), strict=True))
        killed.checked_keys += len(expected)
        killed.lost += lost
        if lost:
            killed.problems.append(f"after a kill, {lost:,} acknowledged keys are lost or wrong")

        under_way = batches[done] if done < len(batches) else {}
        values = db.get_many(under_way)
        present = sum(value is not None for value in values)
        if present and values != list(under_way.values()):
            killed.torn += 1
            killed.problems.append(f"after a kill, batch {done:,} is there in part")
        if len(db) != len(expected) + present:
            killed.problems.append("after a kill, there are keys that nobody wrote")
        if not db.verify().ok:
            killed.problems.append("after a kill, verify() finds damage")
        return present > 0
