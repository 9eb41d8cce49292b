"""
Backups beside `cp -r`, in one run: a full one that copies, a full one by second names, and one that is
brought up to date after 1 % of the keys were written again.

    pytest bench/test_backup.py --backup-mib 1024

`cp` leaves its copy in memory, a backup is durable when it returns: so there is `cp` alone, and `cp` with
`sync` of what it made.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pykv

VALUE_SIZE = 10_000
ROUNDS = 5
numbers = random.Random(1)


@pytest.fixture(scope="module")
def db(tmp_path_factory: Any, pytestconfig: pytest.Config) -> Iterator[pykv.Store]:
    count = (pytestconfig.getoption("--backup-mib") << 20) // (VALUE_SIZE + 50)
    with pykv.open(tmp_path_factory.mktemp("backup") / "db") as opened:
        for number in range(count):
            opened[b"%016d" % number] = numbers.randbytes(VALUE_SIZE)
        opened.sync()
        yield opened


def copy(db: pykv.Store, dest: Path) -> None:
    subprocess.run(["cp", "-r", db.path, dest], check=True)


def copy_and_sync(db: pykv.Store, dest: Path) -> None:
    copy(db, dest)
    subprocess.run(["sync", *dest.iterdir()], check=True)


def back_up_by_copy(db: pykv.Store, dest: Path) -> None:
    db.backup(dest, link=False)


def back_up_by_link(db: pykv.Store, dest: Path) -> None:
    db.backup(dest)


@pytest.mark.benchmark(group="backup, full")
@pytest.mark.parametrize("act", [copy, copy_and_sync, back_up_by_copy, back_up_by_link])
def test_full(
    db: pykv.Store,
    tmp_path: Path,
    measure: Callable[..., Any],
    act: Callable[[pykv.Store, Path], None],
) -> None:
    dest = tmp_path / "dest"

    def prepare() -> None:
        shutil.rmtree(dest, ignore_errors=True)
        subprocess.run(["sync"], check=True)  # what came before is on the disk

    measure(lambda: act(db, dest), setup=prepare, rounds=ROUNDS)


@pytest.mark.benchmark(group="backup, after 1 % was written again")
@pytest.mark.parametrize("act", [back_up_by_copy, back_up_by_link])
def test_incremental(
    db: pykv.Store,
    tmp_path: Path,
    measure: Callable[..., Any],
    act: Callable[[pykv.Store, Path], None],
) -> None:
    dest = tmp_path / "dest"
    act(db, dest)

    def prepare() -> None:
        for _ in range(max(1, len(db) // 100)):
            db[b"%016d" % numbers.randrange(len(db))] = numbers.randbytes(VALUE_SIZE)
        subprocess.run(["sync"], check=True)

    measure(lambda: act(db, dest), setup=prepare, rounds=ROUNDS)
