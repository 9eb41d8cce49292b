"""
Backups beside `cp -r`, in turn, in one run: a full one that copies, a full one by second names, and
one that is brought up to date after 1 % of the keys were written again.

    pytest bench/test_backup.py -s --backup-mib 1024

`cp` leaves its copy in memory, a backup is durable when it returns: so the table has `cp` alone, and
`cp` with `sync` of what it made. It never fails for being slow: speed is shown, not asserted.
"""

from __future__ import annotations

import random
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import pykv

VALUE_SIZE = 10_000
ROUNDS = 5


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def copy(path: Path, dest: Path) -> None:
    subprocess.run(["cp", "-r", path, dest], check=True)


def sync(dest: Path) -> None:
    subprocess.run(["sync", *dest.iterdir()], check=True)


def test_backup(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    size = pytestconfig.getoption("--backup-mib") << 20
    numbers = random.Random(1)
    path = tmp_path / "db"
    times: dict[str, list[float]] = {}
    with pykv.open(path) as db:
        keys = [b"%016d" % n for n in range(size // (VALUE_SIZE + 50))]
        for key in keys:
            db[key] = numbers.randbytes(VALUE_SIZE)
        db.sync()

        def note(name: str, run: Callable[[], object]) -> None:
            subprocess.run(["sync"], check=True)  # what came before is on the disk
            times.setdefault(name, []).append(timed(run))

        for number in range(ROUNDS):
            dest = [tmp_path / f"{name}{number}" for name in ("cp", "copied", "linked")]
            note("cp -r", lambda dest=dest: copy(path, dest[0]))
            times.setdefault("cp -r, sync", []).append(
                times["cp -r"][-1] + timed(lambda dest=dest: sync(dest[0]))
            )
            note("full, copied", lambda dest=dest: db.backup(dest[1], link=False))
            note("full, linked", lambda dest=dest: db.backup(dest[2]))
            for key in numbers.sample(keys, len(keys) // 100):
                db[key] = numbers.randbytes(VALUE_SIZE)
            note("1 % new, copied", lambda dest=dest: db.backup(dest[1], link=False))
            note("1 % new, linked", lambda dest=dest: db.backup(dest[2]))
            for each in dest:
                shutil.rmtree(each)
    medians = {name: statistics.median(found) for name, found in times.items()}
    print(f"\n{size >> 20} MiB, medians of {ROUNDS} rounds\n")
    print(f"{'':18}{'ms':>9}{'of cp':>8}{'of cp, sync':>13}{'of full, copied':>17}")
    for name, median in medians.items():
        ratios = [median / medians[of] for of in ("cp -r", "cp -r, sync", "full, copied")]
        print(f"{name:18}{median * 1000:9.1f}{ratios[0]:8.3f}{ratios[1]:13.3f}{ratios[2]:17.3f}")
