"""Dead space is given back: by itself, on request, and never what somebody still needs."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import pykv

SEGMENT = 65_536
KEYS = [b"key:%03d" % number for number in range(200)]


def until(condition: Callable[[], bool]) -> None:
    """Wait for what the store does by itself; long, since machines are slow at times."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


def open_small(path: Path, **options: object) -> pykv.Store:
    return pykv.open(path, segment_bytes=SEGMENT, **options)  # type: ignore[arg-type]


def churn(
    db: pykv.Store, model: dict[bytes, bytes], rounds: int, seed: int = 1, deletes: float = 0.2
) -> None:
    """Overwrite and delete at random."""
    chance = random.Random(seed)
    for number in range(rounds):
        key = chance.choice(KEYS)
        if chance.random() < deletes:
            assert db.delete(key) == (model.pop(key, None) is not None)
        else:
            db[key] = model[key] = b"%d" % number * chance.randrange(1, 150)


def only_segments(path: Path) -> None:
    for file in path.iterdir():
        if not file.name.startswith("segment-"):
            file.unlink()


@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_the_log_keeps_its_bound_by_itself(tmp_path: Path, io: str) -> None:
    model: dict[bytes, bytes] = {}
    with open_small(tmp_path / "db", io=io) as db:
        for seed in range(10):
            churn(db, model, 1_000, seed)
            stats = db.stats()
            # Writers wait at the bound; a batch that is under way may pass it by itself.
            assert stats.log_bytes <= stats.log_limit_bytes + SEGMENT
        assert db.stats().freed_bytes > 5 * SEGMENT
        assert db.stats().write_amplification < 3
        assert dict(db.items()) == model
        assert db.verify().ok


def test_compact_leaves_what_is_live(tmp_path: Path) -> None:
    model: dict[bytes, bytes] = {}
    with open_small(tmp_path / "db") as db:
        db.pause_compaction()
        churn(db, model, 5_000)
        before = db.stats()
        assert before.log_bytes > 2 * before.live_bytes
        seen: list[tuple[int, int]] = []
        db.compact(lambda done, total: seen.append((done, total)))
        after = db.stats()
        assert after.live_bytes == before.live_bytes
        assert after.log_bytes - after.live_bytes < before.log_bytes / 20
        assert seen[-1][0] == seen[-1][1] > 0
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)
        assert dict(db.items()) == model


def test_versions_survive(tmp_path: Path) -> None:
    with open_small(tmp_path / "db") as db:
        db.update((key, b"v" * 500) for key in KEYS)
        versions = {key: db.get_with_version(key) for key in KEYS}
        for _ in range(3):
            db[b"other"] = b"o" * 60_000
        db.compact()
        assert {key: db.get_with_version(key) for key in KEYS} == versions
        with db.batch() as batch:
            found = versions[KEYS[0]]
            assert found is not None
            batch.expect_version(KEYS[0], found[1])
            batch[KEYS[0]] = b"new"
        assert db[KEYS[0]] == b"new"


@pytest.mark.parametrize("lost", ["nothing", "keydir", "all but segments"])
def test_nothing_comes_back(tmp_path: Path, lost: str) -> None:
    """Of what was deleted, whatever is lost after compactions."""
    path = tmp_path / "db"
    model: dict[bytes, bytes] = {}
    for seed in range(6):
        with open_small(path) as db:
            assert dict(db.items()) == model
            assert len(db) == len(model)
            churn(db, model, 800, seed, deletes=0.5)
            db.compact()
            churn(db, model, 100, seed + 100, deletes=0.9)
        if lost == "keydir":
            (path / "keydir").unlink()
        elif lost == "all but segments":
            only_segments(path)
    with open_small(path) as db:
        assert dict(db.items()) == model
        assert db.verify().ok


def test_tombstones_go_when_nothing_is_left_to_hide(tmp_path: Path) -> None:
    with open_small(tmp_path / "db") as db:
        db.update((b"%d" % number, b"x" * 200) for number in range(5_000))
        for number in range(5_000):
            del db[b"%d" % number]
        db.compact()
        assert db.stats().log_bytes < 1_000
        assert db.stats().segments <= 2


def test_a_snapshot_holds_what_it_needs(tmp_path: Path) -> None:
    model: dict[bytes, bytes] = {}
    with open_small(tmp_path / "db") as db:
        churn(db, model, 2_000)
        with db.snapshot() as snapshot:
            then = dict(model)
            churn(db, model, 3_000, seed=2)
            db.clear()
            db.compact()
            assert len(db) == 0
            assert dict(snapshot.items()) == then
            assert snapshot.get_many(KEYS) == [then.get(key) for key in KEYS]
            held = db.stats().held_bytes
            assert held > 0
        until(lambda: db.stats().held_bytes == 0)
        assert db.stats().log_bytes < held


def test_an_iteration_goes_on(tmp_path: Path) -> None:
    with open_small(tmp_path / "db") as db:
        expected = {b"%d" % number: b"v" * 300 for number in range(3_000)}
        db.update(expected)
        items = iter(db.items())
        seen = dict([next(items)])
        db.clear()
        db.compact()
        seen.update(items)
        assert seen == expected


def test_a_view_outlives_its_segment(tmp_path: Path) -> None:
    with open_small(tmp_path / "db") as db:
        db[b"k"] = b"v" * 10_000
        view = db.view(b"k")
        db.update((key, b"x" * 5_000) for key in KEYS)
        db.clear()
        db.compact()
        until(lambda: db.stats().segments <= 2)
        assert view == b"v" * 10_000
    assert view == b"v" * 10_000
    view.release()


def deleted_mappings() -> list[str]:
    """Segments that were removed and are still mapped by this process."""
    maps = Path("/proc/self/maps").read_text()
    return re.findall(r"segment-\d+ \(deleted\)", maps)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="tells mappings in /proc")
@pytest.mark.parametrize("flag", ["w", "r"])
def test_who_has_a_segment_mapped_lets_go_of_it(tmp_path: Path, flag: str) -> None:
    """Else the disk would not get its space back: also who only reads, and does nothing."""
    with open_small(tmp_path / "db") as db:
        db.update((key, b"x" * 5_000) for key in KEYS)
        with pykv.open(tmp_path / "db", flag) as other:  # type: ignore[arg-type]
            assert len(list(other.values())) == len(KEYS)
            db.clear()
            db.compact()
            until(lambda: not deleted_mappings())
            assert list(other) == []


def test_paused_compaction_waits(tmp_path: Path) -> None:
    model: dict[bytes, bytes] = {}
    with open_small(tmp_path / "db") as db, pykv.open(tmp_path / "db") as other:
        db.pause_compaction()
        assert other.stats().compaction_paused == 1
        churn(db, model, 10_000)
        stats = db.stats()
        assert stats.freed_bytes == 0
        assert stats.log_bytes > stats.log_limit_bytes
        other.resume_compaction()
        until(lambda: db.stats().log_bytes <= stats.log_limit_bytes)
        assert dict(db.items()) == model


def test_an_idle_store_tidies_up(tmp_path: Path) -> None:
    """Also the segment that is being written, though it is not full."""
    with pykv.open(tmp_path / "db") as db:
        for _ in range(100):
            db[b"k"] = b"x" * 100_000
        until(lambda: db.stats().log_bytes < 1_000_000)
        assert db[b"k"] == b"x" * 100_000


def test_space_factor(tmp_path: Path) -> None:
    sizes = {}
    for factor in (1.2, 4.0):
        with open_small(tmp_path / str(factor), space_factor=factor) as db:
            db.update((b"%d" % number, b"x" * 1_000) for number in range(3_000))
            chance = random.Random(5)
            for _ in range(15_000):
                db[b"%d" % chance.randrange(3_000)] = b"y" * 1_000
            sizes[factor] = db.stats().log_bytes / db.stats().live_bytes
    assert sizes[1.2] < 1.5 < sizes[4.0]


@pytest.mark.parametrize("factor", [1.0, 0, -1, 101, float("nan"), float("inf")])
def test_a_space_factor_out_of_range(tmp_path: Path, factor: float) -> None:
    with pytest.raises(pykv.InvalidError, match="space_factor"):
        pykv.open(tmp_path / "db", space_factor=factor)


def test_a_space_factor_that_is_no_number(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="space_factor"):
        pykv.open(tmp_path / "db", space_factor="2")  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [1 << 20, 8 << 20])
def test_dead_space_goes_before_a_limit_is_reached(tmp_path: Path, limit: int) -> None:
    with pykv.open(tmp_path / "db", max_disk_bytes=limit) as db:
        for number in range(8 * limit // 1_000):
            db[KEYS[number % 100]] = b"v" * 1_000
        assert db.stats().freed_bytes > limit
        with pytest.raises(pykv.StoreFullError):
            for number in range(4 * limit // 1_000):
                db[b"new:%d" % number] = b"n" * 1_000
        until(lambda: db.stats().log_bytes <= limit)  # a compaction under way may pass it
        assert all(db[key] == b"v" * 1_000 for key in KEYS[:100])


def test_who_may_not_compact(tmp_path: Path) -> None:
    with pykv.open(tmp_path / "db") as db:
        db[b"k"] = b"v"
    for call in ("compact", "pause_compaction", "resume_compaction"):
        with pytest.raises(pykv.ClosedError):
            getattr(db, call)()
        with (
            pykv.open(tmp_path / "db", "r") as reader,
            pytest.raises(pykv.ReadOnlyError),
        ):
            getattr(reader, call)()


def capacities(path: Path) -> dict[int, int]:
    """Of each segment, by its number: what its header says (csrc/format.md)."""
    found = {}
    for file in path.glob("segment-*"):
        with contextlib.suppress(FileNotFoundError), file.open("rb") as opened:
            found[int(file.name[8:])] = int.from_bytes(opened.read(64)[56:64], "little")
    return found


def bound(stats: pykv.Stats) -> float:
    """Of all files: twice the live bytes and two segments, each a sixteenth of the log."""
    segment = min(max((stats.log_bytes - stats.held_bytes) / 16, 4 << 20), 128 << 20)
    return 2.0 * stats.live_bytes + 2 * segment


def test_segments_grow_with_the_log(tmp_path: Path) -> None:
    with pykv.open(tmp_path / "db") as db:
        seen: dict[int, int] = {}
        for number in range(300):
            db[b"%d" % number] = bytes(1 << 20)
            seen |= capacities(tmp_path / "db")
            log = db.stats().log_bytes
            assert seen[max(seen)] <= max(log // 16, 4 << 20)
        assert list(dict.fromkeys(seen[number] >> 20 for number in sorted(seen))) == [4, 8, 16]


@pytest.mark.parametrize("size", [SEGMENT, 5_000_000])
def test_the_size_of_segments_that_the_user_says_stays(tmp_path: Path, size: int) -> None:
    with pykv.open(tmp_path / "db", segment_bytes=size) as db:
        for number in range(600):
            db[b"%d" % number] = bytes(20_000)
        db.delete_many([b"%d" % number for number in range(0, 600, 3)])
        db.compact()
        assert set(capacities(tmp_path / "db").values()) == {size}


def test_a_small_store_keeps_its_bound(tmp_path: Path) -> None:
    """20 MB, written anew ten times over, at every look."""
    chance = random.Random(11)
    with pykv.open(tmp_path / "db") as db:
        for number in range(220_000):
            db[b"%d" % chance.randrange(20_000)] = b"v" * 1_000
            if number % 200 == 0:
                stats = db.stats()
                assert stats.disk_bytes - stats.held_bytes <= bound(stats)
        assert db.stats().freed_bytes > 100_000_000


def test_a_store_that_shrinks_keeps_the_bound_of_a_small_one(tmp_path: Path) -> None:
    with pykv.open(tmp_path / "db") as db:
        for number in range(300):
            db[b"large%d" % number] = bytes(1 << 20)
        assert max(capacities(tmp_path / "db").values()) == 16 << 20
        db.delete_many([b"large%d" % number for number in range(300)])
        for number in range(40_000):
            db[b"%d" % (number % 4_000)] = b"v" * 1_000
        until(lambda: db.stats().disk_bytes <= bound(db.stats()) < 17 << 20)
        assert max(capacities(tmp_path / "db").values()) == 4 << 20


def test_a_large_segment_of_an_older_build(tmp_path: Path) -> None:
    """It had 128 MiB at once. It is ended when it takes more than a store of this size may."""
    with pykv.open(tmp_path / "db", segment_bytes=128 << 20) as db:
        db.update((b"%d" % number, b"old" * 300) for number in range(20_000))
    with pykv.open(tmp_path / "db") as db:
        assert set(capacities(tmp_path / "db").values()) == {128 << 20}
        assert db[b"7"] == b"old" * 300
        for number in range(100_000):
            db[b"%d" % (number % 19_000)] = b"new" * 300
            if number > 80_000 and number % 200 == 0:
                stats = db.stats()
                assert stats.disk_bytes - stats.held_bytes <= bound(stats)
        assert set(capacities(tmp_path / "db").values()) == {4 << 20}
        assert all(db[b"%d" % number] == b"new" * 300 for number in range(19_000))
        assert all(db[b"%d" % number] == b"old" * 300 for number in range(19_000, 20_000))
        assert db.verify().ok


def test_values_larger_than_a_segment(tmp_path: Path) -> None:
    values = {b"%d" % size: os.urandom(size) for size in (70_000, 1_048_576, 3_000_000)}
    for io in ("mmap", "pread"):
        with open_small(tmp_path / io, io=io) as db:
            for _ in range(3):
                db.update(values)
            db.put(b"ttl", b"x" * 2_000_000, ttl=3_600)
            expiry = db.ttl(b"ttl")
            db.compact()
            assert dict(db.items()) == values | {b"ttl": b"x" * 2_000_000}
            left = db.ttl(b"ttl")
            assert left is not None
            assert expiry is not None
            assert left <= expiry
        only_segments(tmp_path / io)
        with open_small(tmp_path / io, io=io) as db:
            assert dict(db.items()) == values | {b"ttl": b"x" * 2_000_000}


def test_threads_read_while_segments_go(tmp_path: Path) -> None:
    """No read fails, and none tells another value than the key's."""
    failures: list[BaseException] = []
    stop = threading.Event()
    with open_small(tmp_path / "db") as db:
        db.update((key, key * 100) for key in KEYS)

        def read() -> None:
            chance = random.Random(threading.get_ident())
            try:
                while not stop.is_set():
                    key = chance.choice(KEYS)
                    assert db[key][: len(key)] == key
                    assert all(v is not None for v in db.get_many(KEYS[:20]))
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        chance = random.Random(9)
        for number in range(20_000):
            key = chance.choice(KEYS)
            db[key] = key * chance.randrange(1, 200)
            if number % 5_000 == 4_999:
                db.compact()
        stop.set()
        for thread in threads:
            thread.join()
        assert db.stats().freed_bytes > 0
    assert not failures


def compact_until_killed(path: Path, ready: int) -> None:
    with open_small(path) as db:
        os.write(ready, b"on")
        while True:
            db.compact()
            db[b"mine"] = os.urandom(3_000)


@pytest.mark.parametrize("segments", [False, True], ids=["keydir", "segments alone"])
def test_a_compaction_that_is_killed(tmp_path: Path, segments: bool) -> None:
    """Nothing is lost, and another process goes on where it was."""
    path = tmp_path / "db"
    model: dict[bytes, bytes] = {}
    chance = random.Random(3)
    with open_small(path) as db:
        churn(db, model, 1_000)
        for number in range(8):
            ours, theirs = os.pipe()
            child = os.fork()
            if child == 0:
                try:
                    compact_until_killed(path, theirs)
                finally:
                    os._exit(1)
            os.close(theirs)
            assert os.read(ours, 2) == b"on"
            os.close(ours)
            for _ in range(chance.randrange(20)):
                churn(db, model, 20, number)
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
            churn(db, model, 50, number + 50)
            db.compact()
            mine = {b"mine": value} if (value := db.get(b"mine")) is not None else {}
            assert dict(db.items()) == model | mine
    if segments:
        only_segments(path)
    with open_small(path) as db:
        assert dict(db.items()) == model | mine
        assert db.verify().ok


def test_the_keydir_shrinks_with_a_reopen(tmp_path: Path) -> None:
    """Less than a byte for each key that there was; and what is left is all there."""
    count = 200_000
    with pykv.open(tmp_path / "db") as db:
        db.put_many((b"%d" % number, b"") for number in range(count))
        assert db.stats().keydir_bytes > count * 8
        db.delete_many([b"%d" % number for number in range(100, count)])
    with pykv.open(tmp_path / "db") as db:
        assert db.stats().keydir_bytes < count
        assert sorted(map(int, db)) == list(range(100))
        db[b"new"] = b"1"
    with pykv.open(tmp_path / "made large", expected_keys=count) as db:
        db[b"k"] = b"1"
    assert (tmp_path / "made large" / "keydir").stat().st_size > count * 8
