"""
kill -9 of the only process that has a store open, at any moment, again and again.

Durable as promised: whatever was acknowledged is there afterwards, and no batch is there by half.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import workers
from operations import MARKS, Clears, Session, apply, apply_model, operations, resolve, settle, work

import pykv

SEED = 20_261


def check(path: Path, options: dict[str, Any]) -> dict[bytes, bytes]:
    """Open the store and return what is in it, having looked at it from all sides."""
    with pykv.open(path, "w", segment_bytes=workers.SEGMENT_BYTES, **options) as db:
        found = dict(db.items())
        assert len(db) == len(found)
        assert db.get_many(list(found)) == list(found.values())
        for key, value in found.items():
            assert db[key] == value
        report = db.verify()
        assert report.ok, report
        for group in range(5):
            tokens = [found.get(b"mark:%d:%d" % (group, n)) for n in range(MARKS)]
            assert len(set(tokens)) == 1, f"a half batch: {tokens}"
    return found


def lose(path: Path, choose: random.Random) -> str:
    """Now and then take away what can be made again from the log."""
    chance = choose.random()
    if chance < 0.15:
        (path / "keydir").unlink()
        return "keydir"
    if chance < 0.22:
        for file in path.iterdir():
            if file.name == "keydir" or file.name.startswith("checkpoint-"):
                file.unlink()
        return "keydir and checkpoints"
    if chance < 0.30:
        copy = path.with_name("copy.kv")
        shutil.copytree(path, copy)
        shutil.rmtree(path)
        copy.rename(path)
        return "inode of the keydir"
    return ""


def work_alone(
    report: Callable[..., None],
    path: Path,
    seed: int,
    options: dict[str, Any],
    model: dict[bytes, bytes],
) -> None:
    """What the only process of a store does until it is killed."""
    with pykv.open(path, "w", segment_bytes=workers.SEGMENT_BYTES, **options) as db:
        work(Session(db, b"", model, Clears(1)), seed, True, report)


def test_kill_the_only_process(tmp_path: Path, kills: int) -> None:
    """One store, one process, many deaths: each acknowledged write is there after each of them."""
    path = tmp_path / "store.kv"
    choose = random.Random(SEED)
    model: dict[bytes, bytes] = {}
    total = rebuilt = 0
    pykv.open(path, "c", segment_bytes=workers.SEGMENT_BYTES).close()
    for number in range(kills):
        options = {
            "io": choose.choice(["mmap", "mmap", "pread"]),
            "durability": choose.choice(["process", "process", "interval", "commit"]),
        }
        worker = workers.Worker(work_alone, path, SEED + number, options, model)
        worker.listen(choose.choice([0.005, 0.02, 0.05, 0.2, 0.5]) * choose.random() + 0.002)
        worker.kill()
        lost = lose(path, choose)
        rebuilt += lost != ""
        try:
            settle(model, check(path, options), SEED + number, worker.done, worker.events)
        except BaseException as error:
            error.add_note(f"kill {number}, {options}, lost: {lost}, acknowledged: {worker.done}")
            raise
        total += worker.done
    segments = len(list(path.glob("segment-*")))
    print(
        f"{kills} kills, {total} acknowledged operations, {rebuilt} rebuilds, {segments} segments"
    )


def test_kill_during_recovery(tmp_path: Path, kills: int) -> None:
    """A process that dies while it builds the keydir anew leaves the next one no worse off."""
    path = tmp_path / "store.kv"
    choose = random.Random(SEED)
    model: dict[bytes, bytes] = {}
    script = operations(SEED, clears=False)
    with pykv.open(path, segment_bytes=workers.SEGMENT_BYTES) as db:
        for _ in range(4_000):
            operation = resolve(next(script), model)
            if operation[0] not in ("snapshot", "scan", "verify"):
                assert apply(db, operation) == apply_model(model, operation)

    def reopen(report: Any) -> None:
        with pykv.open(path, "w") as db:
            report(1)
            db.sync()

    finished = 0
    for number in range(kills):
        for file in list(path.iterdir()):
            if file.name == "keydir" or (number % 4 == 0 and file.name.startswith("checkpoint-")):
                file.unlink()
        worker = workers.Worker(reopen)
        worker.listen(choose.random() * choose.choice([0.01, 0.03, 0.1]))
        worker.kill()
        finished += worker.done
        if number % 5 == 4:
            assert check(path, {}) == model
    assert check(path, {}) == model
    print(f"{kills} kills during recovery, of which {finished} came too late")
