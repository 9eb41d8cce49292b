"""Backup, restore, repair: what the copies hold, beside writers, and what is refused."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import pykv
import pykv.aio
from pykv._cli import cli

SEGMENT = 65536
RECORD = 1040  # bytes of one of `plain`

WRITER = """
import sys, pykv
with pykv.open(sys.argv[1], segment_bytes=65536) as db:
    print("ready", flush=True)
    n = 0
    while not sys.stdin.readline().startswith("stop"):
        for _ in range(200):
            n += 1
            with db.batch() as batch:
                batch[b"process-a"] = batch[b"process-b"] = b"%d" % n
            db[b"noise-%d" % (n % 50)] = b"x" * 500
        print(n, flush=True)
"""


def files(path: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return what a directory holds: of each file its links, size and bytes."""
    return {
        each.name: (each.stat().st_ino, each.stat().st_size, each.read_bytes())
        for each in sorted(path.iterdir())
    }


def fill(db: pykv.Store, count: int = 400, seed: int = 1) -> None:
    """Write, overwrite and delete, some 400 KiB."""
    numbers = random.Random(seed)
    for n in range(count):
        db[b"key-%d" % numbers.randrange(150)] = b"%d " % n + b"v" * 1000
        db.delete(b"key-%d" % numbers.randrange(150))


def contents(path: Path) -> dict[bytes, bytes]:
    """Return all keys and values of the store at *path*."""
    with pykv.open(path, "r") as db:
        assert db.verify().ok
        return dict(db)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[pykv.Store]:
    """A store of several segments."""
    with pykv.open(tmp_path / "db", segment_bytes=SEGMENT) as store:
        fill(store)
        yield store


def test_a_backup_opens_as_a_store(db: pykv.Store, tmp_path: Path) -> None:
    """It has what the store had, and both can be written to afterwards."""
    then, dest = dict(db), tmp_path / "copy"
    made = db.backup(dest)
    assert made.keys == len(then) and made.copied > 0 and made.kept == 0
    fill(db, seed=2)
    assert contents(dest) == then
    with pykv.open(dest, "w") as copy:
        assert dict(copy) == then
        copy[b"new"] = b"here"
        fill(copy, seed=3)
        there = dict(copy)
        copy.compact()
    here = dict(db)
    db.compact()
    assert dict(db) == here and b"new" not in db
    assert contents(dest) == there


def test_finished_segments_get_a_second_name(db: pykv.Store, tmp_path: Path) -> None:
    """Where the disk allows it nothing is copied but the end of the log; with link=False all is."""
    db.pause_compaction()  # which else may come between the two, or leave little to link
    fill(db, seed=2)
    linked = db.backup(tmp_path / "linked")
    assert linked.linked > 4 * SEGMENT and linked.copied <= 2 * SEGMENT
    copied = db.backup(tmp_path / "copied", link=False)
    assert copied.linked == 0 and copied.copied == linked.linked + linked.copied
    many = [path.stat().st_nlink for path in (tmp_path / "copied").iterdir()]
    assert set(many) == {1}
    assert contents(tmp_path / "linked") == contents(tmp_path / "copied") == dict(db)


def test_reading_a_backup_leaves_it_as_it_is(db: pykv.Store, tmp_path: Path) -> None:
    """Any number may read at a time; a writer and the next backup have to wait for them."""
    dest = tmp_path / "copy"
    db.backup(dest)
    before = files(dest)
    with pykv.open(dest, "r") as one, pykv.open(dest, "r") as two:
        assert dict(one) == dict(two) == dict(db)
        with pytest.raises(pykv.ReadOnlyError):
            one[b"k"] = b"v"
        with pytest.raises(pykv.BusyError):
            db.backup(dest)
        with pytest.raises(pykv.BusyError):
            pykv.open(dest, "w")
    assert files(dest) == before
    db.backup(dest)


def test_the_next_backup_moves_only_what_is_new(db: pykv.Store, tmp_path: Path) -> None:
    """Files that both have stay, those that are no longer needed go."""
    dest = tmp_path / "copy"
    db.pause_compaction()
    first = db.backup(dest, link=False)
    db[b"one"] = b"more" * 10
    second = db.backup(dest, link=False)
    assert second.kept == first.copied and 0 < second.copied < 200
    assert contents(dest) == dict(db)
    before = files(dest)
    fill(db, seed=5)
    db.compact()
    third = db.backup(dest, link=False)
    assert third.removed > 0
    after = files(dest)
    assert contents(dest) == dict(db)
    stayed = [name for name in before if name in after and before[name][0] == after[name][0]]
    assert third.kept <= sum(after[name][1] for name in stayed if name.startswith("segment"))
    with pykv.open(dest, "r") as copy:
        assert copy.backup(tmp_path / "copy of the copy").keys == len(db)
    assert contents(tmp_path / "copy of the copy") == dict(db)


@pytest.mark.parametrize("link", [True, False])
def test_it_is_one_instant_while_others_write(tmp_path: Path, link: bool) -> None:
    """Threads and a process write batches of equal values, and compaction runs; none is torn."""
    path, dest = tmp_path / "db", tmp_path / "copy"
    stop = threading.Event()
    with pykv.open(path, segment_bytes=SEGMENT, space_factor=1.1) as db:
        other = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert other.stdin is not None and other.stdout is not None
        assert other.stdout.readline() == "ready\n"

        def write(name: bytes) -> None:
            n = 0
            while not stop.is_set():
                n += 1
                db.put_many({name + b"-a": b"%d" % n, name + b"-b": b"%d" % n})
                db[name + b"-noise-%d" % (n % 50)] = b"x" * 700
                db.delete(name + b"-noise-%d" % (n * 7 % 50))

        threads = [threading.Thread(target=write, args=(b"t%d" % i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        before: dict[bytes, int] = {}
        try:
            for _ in range(12):
                other.stdin.write("go\n")
                other.stdin.flush()
                if not link:
                    db.compact()
                least = {name: int(db.get(name + b"-b", b"0")) for name in (b"t0", b"t1")}
                made = db.backup(dest, link=link)
                other.stdout.readline()
                with pykv.open(dest, "r") as copy:
                    assert copy.verify().ok and len(copy) == made.keys
                    assert copy.stats().version == made.version
                    for name in b"t0", b"t1", b"process":
                        assert copy.get(name + b"-a") == copy.get(name + b"-b")
                    now = {name: int(copy.get(name + b"-a", b"0")) for name in (b"t0", b"t1")}
                for name, number in now.items():
                    assert number >= least[name] and number >= before.get(name, 0)
                before = now
        finally:
            stop.set()
            for thread in threads:
                thread.join()
            other.communicate("stop\n")
        assert other.returncode == 0
        db.backup(dest, link=link)
        assert contents(dest) == dict(db)


def test_a_backup_equals_the_model(tmp_path: Path) -> None:
    """Whatever was put, deleted, cleared and compacted before, and however often it was reopened."""
    numbers = random.Random(7)
    model: dict[bytes, bytes] = {}
    for round_number in range(8):
        with pykv.open(tmp_path / "db", segment_bytes=SEGMENT) as db:
            for _ in range(150):
                key = b"%d" % numbers.randrange(40)
                if numbers.random() < 0.3:
                    db.delete(key)
                    model.pop(key, None)
                else:
                    db[key] = model[key] = numbers.randbytes(numbers.randrange(3000))
            if numbers.random() < 0.3:
                db.compact()
            if round_number == 4:
                db.clear()
                model.clear()
                db[b"left"] = model[b"left"] = b"over"
            db.backup(tmp_path / "linked")
            db.backup(tmp_path / "copied", link=False)
        assert contents(tmp_path / "linked") == contents(tmp_path / "copied") == model
        (tmp_path / "db" / "keydir").unlink()


def test_it_keeps_expiries(tmp_path: Path) -> None:
    """What expires in the store expires in its copies, at the same moment."""
    with pykv.open(tmp_path / "db") as db:
        db.put(b"k", b"v", ttl=1000)
        db[b"forever"] = b"v"
        db.backup(tmp_path / "copy")
    pykv.repair(tmp_path / "copy", tmp_path / "repaired")
    for name in "db", "copy", "repaired":
        lines = CliRunner().invoke(cli, ["dump", str(tmp_path / name)]).output.splitlines()
        rows = {row.get("key"): row.get("expires_ms") for row in map(json.loads, lines)}
        assert rows["forever"] is None
        assert rows["k"] == rows.setdefault("k", None) and rows["k"] > 0


def test_progress_is_told(db: pykv.Store, tmp_path: Path) -> None:
    """Up to the end; what it raises ends the backup, and the next one begins anew."""
    told: list[tuple[int, int]] = []
    made = db.backup(tmp_path / "copy", progress=lambda *now: told.append(now))
    assert told[-1] == (made.linked + made.copied,) * 2
    assert told == sorted(told)

    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        db.backup(tmp_path / "other", progress=interrupt)
    with pytest.raises(pykv.CorruptError, match="never finished"):
        pykv.open(tmp_path / "other")
    assert db.stats().snapshots == 0
    db.backup(tmp_path / "other")
    assert contents(tmp_path / "other") == dict(db)


def test_what_is_refused(db: pykv.Store, tmp_path: Path) -> None:
    """And nothing is touched there."""
    with pykv.open(tmp_path / "another") as another:
        another[b"k"] = b"v"
        another.backup(tmp_path / "copy of another")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    before = {name: files(tmp_path / name) for name in ("another", "copy of another", "foreign")}
    with pytest.raises(pykv.InvalidError, match="holds a store"):
        db.backup(tmp_path / "another")
    with pytest.raises(pykv.InvalidError, match="of another store"):
        db.backup(tmp_path / "copy of another")
    with pytest.raises(pykv.NotAStoreError, match=r"notes\.txt"):
        db.backup(foreign)
    for place in (tmp_path / "db", tmp_path / "db" / "inside", tmp_path / "x" / ".." / "db"):
        with pytest.raises(pykv.InvalidError, match="lies in it"):
            db.backup(place)
    with pytest.raises(pykv.MissingError):
        db.backup(tmp_path / "no" / "where")
    with pytest.raises(pykv.NotAStoreError):
        db.backup(foreign / "notes.txt")
    with pytest.raises(pykv.InvalidError):
        pykv.restore(tmp_path / "copy of another", tmp_path / "another")
    assert before == {name: files(tmp_path / name) for name in before}
    db.close()
    with pytest.raises(pykv.ClosedError):
        db.backup(tmp_path / "late")


def test_a_store_opened_for_reading_can_be_backed_up(db: pykv.Store, tmp_path: Path) -> None:
    """Beside one that writes."""
    with pykv.open(tmp_path / "db", "r") as reader:
        reader.backup(tmp_path / "copy")
    assert contents(tmp_path / "copy") == dict(db)


def test_modes_are_those_of_the_store(tmp_path: Path) -> None:
    """Of all files, in a backup, a restored and a repaired store."""
    with pykv.open(tmp_path / "db", mode=0o640) as db:
        db[b"k"] = b"v"
        db.backup(tmp_path / "copy")
    pykv.restore(tmp_path / "copy", tmp_path / "restored")
    pykv.repair(tmp_path / "copy", tmp_path / "repaired")
    for name in "copy", "restored", "repaired":
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o750
        assert {path.stat().st_mode & 0o777 for path in (tmp_path / name).iterdir()} == {0o640}


# ---- restore ----


def test_restore_copies_and_checks(db: pykv.Store, tmp_path: Path) -> None:
    """The restored store shares nothing, and goes on with the backup it came from."""
    db.backup(tmp_path / "copy")
    before, then = files(tmp_path / "copy"), dict(db)
    report = pykv.restore(tmp_path / "copy", tmp_path / "restored")
    assert report.ok and report.records > 0
    assert files(tmp_path / "copy") == before
    assert {path.stat().st_nlink for path in (tmp_path / "restored").iterdir()} == {1}
    with pykv.open(tmp_path / "restored", "w") as restored:
        assert dict(restored) == then
        restored[b"more"] = b"here"
        assert restored.backup(tmp_path / "copy").kept > 0
        with pytest.raises(pykv.InvalidError, match="Back up to another directory"):
            db[b"else"] = b"where"
            db.backup(tmp_path / "copy")
        assert contents(tmp_path / "copy") == dict(restored)


def test_what_restore_refuses(db: pykv.Store, tmp_path: Path) -> None:
    """A directory that holds anything, and the message speaks of restoring."""
    db.backup(tmp_path / "backup")
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "letter").touch()
    pykv.open(tmp_path / "store").close()
    for dest, kind in (
        ("others", pykv.NotAStoreError),
        ("backup", pykv.InvalidError),
        ("store", pykv.InvalidError),
    ):
        with pytest.raises(kind, match=r"holds .*: restore to a new directory$"):
            pykv.restore(db.path, tmp_path / dest)


def test_restore_finds_damage(db: pykv.Store, tmp_path: Path) -> None:
    """In what it copies; a repair of the same then saves the rest."""
    dest = tmp_path / "copy"
    db.backup(dest, link=False)
    damage(dest, 1)
    with pytest.raises(pykv.CorruptError):
        pykv.restore(dest, tmp_path / "restored")
    result = pykv.repair(dest, tmp_path / "repaired")
    assert not result.ok and result.keys > 0


# ---- repair ----


def segments(path: Path) -> list[Path]:
    """Return the segments, the oldest first."""
    return sorted(path.glob("segment-*"))


def damage(path: Path, number: int, offset: int = 5000, size: int = 40) -> Path:
    """Write over some bytes of a segment, behind its header by default."""
    victim = segments(path)[number]
    with victim.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xa5" * size)
    return victim


@pytest.fixture
def plain(tmp_path: Path) -> tuple[Path, dict[bytes, bytes]]:
    """A closed store whose keys were written once, in order, and its contents."""
    path = tmp_path / "db"
    with pykv.open(path, segment_bytes=SEGMENT) as db:
        for n in range(400):
            db[b"%03d" % n] = b"%d " % n + b"v" * 1000
        model = dict(db)
    (path / "keydir").unlink()
    return path, model


def repaired(path: Path, dest: Path) -> tuple[pykv.Repair, dict[bytes, bytes]]:
    """Repair, check that the original was not touched, and return the new contents."""
    before = files(path)
    result = pykv.repair(path, dest)
    assert files(path) == before
    left = contents(dest)
    assert len(left) == result.keys
    return result, left


def test_repair_of_a_whole_store(plain: Any, tmp_path: Path) -> None:
    """It is a copy, with nothing to tell."""
    path, model = plain
    result, left = repaired(path, tmp_path / "new")
    assert result.ok and left == model


def test_repair_leaves_out_damaged_records(plain: Any, tmp_path: Path) -> None:
    """All others are there, and the places are named."""
    path, model = plain
    victims = [damage(path, number).name for number in (0, 2, 3)]
    result, left = repaired(path, tmp_path / "new")
    assert [place.path for place in result.damage] == victims
    assert all(place.offset <= 5000 < place.offset + place.size for place in result.damage)
    assert len(model) - len(left) == 3 and left.items() <= model.items()


def test_repair_names_every_place(plain: Any, tmp_path: Path) -> None:
    """However many there are; so does verify()."""
    path, model = plain
    size = segments(path)[0].stat().st_size
    for offset in range(4096, size - 4096, 4096):
        for number in range(3):
            damage(path, number, offset)
    result, left = repaired(path, tmp_path / "new")
    assert len(result.damage) > 30 and left.items() <= model.items()
    assert len(model) - len(left) == sum(place.size for place in result.damage) // RECORD


def test_repair_without_a_segment(plain: Any, tmp_path: Path) -> None:
    """What the others hold is saved; the missing one is named."""
    path, model = plain
    victim = segments(path)[1]
    victim.unlink()
    result, left = repaired(path, tmp_path / "new")
    assert [(place.path, place.offset) for place in result.damage] == [(victim.name, 0)]
    assert SEGMENT - 2 * RECORD < result.damage[0].size <= SEGMENT
    assert 250 < len(left) < len(model) and left.items() <= model.items()


def test_repair_of_a_segment_without_its_header(plain: Any, tmp_path: Path) -> None:
    """Its records tell by themselves whether they are whole."""
    path, model = plain
    victim = damage(path, 1, 0, 64)
    result, left = repaired(path, tmp_path / "new")
    assert left == model
    assert [place.path for place in result.damage] == [victim.name]


def test_repair_of_a_segment_that_was_cut(plain: Any, tmp_path: Path) -> None:
    """What is left of it is saved, and the records that were cut off are named."""
    path, model = plain
    victim = segments(path)[1]
    os.truncate(victim, 30000)
    result, left = repaired(path, tmp_path / "new")
    assert {place.path for place in result.damage} == {victim.name}
    assert len(model) - 40 < len(left) < len(model) and left.items() <= model.items()


@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_repair_without_a_manifest(plain: Any, tmp_path: Path, how: str) -> None:
    """The segments alone tell everything."""
    path, model = plain
    manifest = path / "manifest"
    if how == "missing":
        manifest.unlink()
    else:
        manifest.write_bytes(b"x" * 200)
    result, left = repaired(path, tmp_path / "new")
    assert left == model
    assert [place.path for place in result.damage] == ([] if how == "missing" else ["manifest"])


def test_repair_of_a_backup_that_was_not_finished(db: pykv.Store, tmp_path: Path) -> None:
    """What had been copied is saved."""

    def interrupt(done: int, _total: int) -> None:
        if done > SEGMENT:
            raise KeyboardInterrupt

    db.pause_compaction()
    with pytest.raises(KeyboardInterrupt):
        db.backup(tmp_path / "copy", progress=interrupt)
    result, left = repaired(tmp_path / "copy", tmp_path / "new")
    assert not result.ok and left


def test_what_repair_refuses(plain: Any, tmp_path: Path) -> None:
    """And a failure leaves no half of a store behind."""
    path, _ = plain
    with pytest.raises(pykv.MissingError):
        pykv.repair(tmp_path / "nowhere", tmp_path / "new")
    with pytest.raises(pykv.MissingError, match=r"directory above .*new does not exist"):
        pykv.repair(path, tmp_path / "nowhere" / "new")
    with pytest.raises(pykv.InvalidError, match="there already"):
        pykv.repair(path, tmp_path)
    with pytest.raises(pykv.InvalidError, match="lies in it"):
        pykv.repair(path, path / "new")
    with pykv.open(path), pytest.raises(pykv.BusyError):
        pykv.repair(path, tmp_path / "new")

    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pykv.repair(path, tmp_path / "new", progress=interrupt)
    assert [each.name for each in tmp_path.iterdir()] == ["db"]
    (tmp_path / "new").mkdir()
    assert pykv.repair(path, tmp_path / "new").ok


def test_verify_lists_all_damage(plain: Any) -> None:
    """More than the engine's own report has room for."""
    path, _ = plain
    with pykv.open(path, segment_bytes=SEGMENT) as db:
        for n in range(1000, 4000):
            db[b"%d" % n] = b"v" * 100
        db.sync()
        for number, segment in enumerate(segments(path)[:-1]):
            for offset in range(4096, segment.stat().st_size - 4096, 4096):
                damage(path, number, offset)
        report = db.verify()
        assert len(report.damage) == report.damage_count > 100
        assert len({(place.path, place.offset) for place in report.damage}) == report.damage_count


# ---- Other faces ----


def test_the_command_line(db: pykv.Store, tmp_path: Path) -> None:
    """backup, restore, repair: in words, and as JSON."""

    def run(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(cli, [*arguments])
        assert done.exit_code == code, done.output
        return done.output

    store, copy = str(tmp_path / "db"), str(tmp_path / "copy")
    assert "linked" in run("backup", store, copy)
    assert json.loads(run("backup", store, copy, "--json"))["keys"] == len(db)
    assert "copied" in run("backup", "--copy", store, str(tmp_path / "all"))
    assert "all is whole" in run("restore", copy, str(tmp_path / "restored"))
    assert json.loads(run("restore", "--json", copy, str(tmp_path / "r2")))["damage_count"] == 0
    assert "all is whole" in run("repair", copy, str(tmp_path / "repaired"))
    shutil.copytree(tmp_path / "all", tmp_path / "bad")
    damage(tmp_path / "bad", 0)
    assert "damaged: segment-" in run("repair", str(tmp_path / "bad"), str(tmp_path / "r3"))
    told = json.loads(run("repair", str(tmp_path / "bad"), str(tmp_path / "r4"), "--json"))
    assert not told["ok"] and len(told["damage"]) == 1
    assert "all is whole" in run("verify", copy)
    assert "holds a store" in run("backup", store, str(tmp_path / "restored"), code=2)


def test_asyncio(db: pykv.Store, tmp_path: Path) -> None:
    """The same, awaited."""

    async def main() -> pykv.Backup:
        async with await pykv.aio.open(tmp_path / "db") as store:
            return await store.backup(tmp_path / "copy")

    assert asyncio.run(main()).keys == len(db)
    assert contents(tmp_path / "copy") == dict(db)
