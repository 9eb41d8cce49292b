"""
Open a store and get one key: after a close, after kill -9, from a checkpoint and the log after it,
and from the segments alone; peers after a close.

    pytest bench/test_open.py --keys 10000000
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engines import ENGINES, VALUE, fill

import pykv

ROUNDS = 5
WRITER = """
import sys, pykv
db = pykv.open(sys.argv[1])
number = 0
while True:
    db[b"%d" % (number % 1000)] = bytes(100)
    number += 1
    if number == 5000:
        print(flush=True)
"""


def leave(path: Path) -> None:
    """The store was closed: nothing to do."""


def kill_a_writer(path: Path) -> None:
    """End a process that writes to the store with SIGKILL."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, os.fspath(path)], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)


def lose_the_keydir(path: Path) -> None:
    """Leave what a reboot leaves: the log and the newest checkpoint, if there is one."""
    (path / "keydir").unlink()


def lose_all_but_segments(path: Path) -> None:
    for file in path.iterdir():
        if not file.name.startswith("segment-"):
            file.unlink()


@pytest.mark.benchmark(group="open and first get")
@pytest.mark.parametrize(
    "before",
    [leave, kill_a_writer, lose_the_keydir, lose_all_but_segments],
    ids=["clean", "after kill -9", "keydir lost", "segments alone"],
)
def test_open(
    tmp_path: Path,
    keys: list[bytes],
    benchmark: Any,
    measure: Callable[..., Any],
    before: Callable[[Path], None],
) -> None:
    path = tmp_path / "store.kv"
    with pykv.open(path) as db:
        fill(db, keys)
    opened: list[pykv.Store] = []

    def prepare() -> None:
        while opened:
            opened.pop().close()
        before(path)

    def run() -> bytes:
        opened.append(pykv.open(path))
        return opened[-1][keys[0]]

    assert measure(run, setup=prepare, rounds=ROUNDS) == VALUE
    benchmark.extra_info["recovered records"] = opened[-1].stats().recovered_records
    opened.pop().close()


@pytest.mark.benchmark(group="open and first get")
@pytest.mark.parametrize("name", ["lmdb", "sqlite"])
def test_peers(tmp_path: Path, keys: list[bytes], measure: Callable[..., Any], name: str) -> None:
    """After a close."""
    store = ENGINES[name](tmp_path)
    fill(store, keys)
    store.close()
    opened: list[Any] = []

    def prepare() -> None:
        while opened:
            opened.pop().close()

    def run() -> bytes:
        opened.append(ENGINES[name](tmp_path))
        opened[-1].begin_reading()
        found: bytes = opened[-1].get(keys[0])
        return found

    assert measure(run, setup=prepare, rounds=ROUNDS) == VALUE
    opened.pop().close()
