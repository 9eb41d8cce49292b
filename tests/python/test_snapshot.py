"""A snapshot is one instant of a store, whatever happens behind it."""

from __future__ import annotations

import collections.abc
import copy
import gc
import os
import pickle
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import pykv


def everything(snapshot: pykv.Snapshot, keys: list[bytes]) -> dict[bytes, bytes]:
    """What a snapshot holds, read in every way there is; all ways must agree."""
    pairs = dict(snapshot.items())
    assert pairs == {key: value for key in keys if (value := snapshot.get(key)) is not None}
    assert snapshot.get_many(keys) == [pairs.get(key) for key in keys]
    assert snapshot.contains_many(keys) == [key in pairs for key in keys]
    assert [key in snapshot for key in keys] == [key in pairs for key in keys]
    assert set(snapshot) == set(snapshot.keys()) == pairs.keys()
    assert sorted(snapshot.values()) == sorted(pairs.values())
    for key in keys:
        found = snapshot.get_with_version(key)
        assert (found and found[0]) == pairs.get(key)
        if found is None:
            with pytest.raises(KeyError):
                snapshot[key]
            with pytest.raises(KeyError):
                snapshot.view(key)
        else:
            assert found[1] <= snapshot.version
            assert snapshot[key] == found[0]
            assert bytes(snapshot.view(key)) == found[0]
            room = bytearray(len(found[0]))
            assert snapshot.get_into(key, room) == len(room)
            assert room == found[0]
    return pairs


def test_writes_do_not_change_a_snapshot(db: pykv.Store) -> None:
    """Puts, deletes, batches, counters and clear() leave a snapshot as it was."""
    keys = [b"", b"kept", b"written", b"deleted", b"back", b"counter", b"new", b"k" * 300]
    before = {key: b"before " + key for key in keys if key != b"new"} | {b"counter": b"1"}
    db.update(before)
    with db.snapshot() as snapshot:
        version = snapshot.version
        db[b"written"] = b"after"
        for n in range(1_000):
            db[b"written"] = b"%d" % n
        del db[b"deleted"]
        del db[b"back"]
        db[b"back"] = b"again"
        db[b"new"] = b"new"
        db.incr(b"counter")
        with db.batch() as batch:
            batch[b""] = b"batch"
            del batch[b"k" * 300]
        assert everything(snapshot, keys) == before
        db.clear()
        db[b"new"] = b"newer"
        assert everything(snapshot, keys) == before
        assert len(snapshot) == len(before)
        assert snapshot.version == version < db.stats().version
    assert dict(db) == {b"new": b"newer"}


def test_snapshots_of_many_instants(db: pykv.Store) -> None:
    """Each of many snapshots shows its own instant, in whatever order they are closed."""
    chance = random.Random(1)
    keys = [b"%d" % n for n in range(30)]
    model: dict[bytes, bytes] = {}
    taken: list[tuple[pykv.Snapshot, dict[bytes, bytes]]] = []
    for step in range(400):
        for _ in range(chance.randrange(5)):
            key = chance.choice(keys)
            if chance.random() < 0.5:
                db.delete(key)
                model.pop(key, None)
            else:
                db[key] = model[key] = b"%d" % step * chance.randrange(100)
        if chance.random() < 0.2:
            taken.append((db.snapshot(), dict(model)))
        if len(taken) > 10:
            taken.pop(chance.randrange(len(taken)))[0].close()
        if step % 20 == 0:
            for snapshot, expected in taken:
                assert everything(snapshot, keys) == expected
    assert dict(db) == model


def test_expiry_is_as_of_the_instant(db: pykv.Store) -> None:
    """What expires after a snapshot was taken stays in it; what had expired before is absent."""
    db.put(b"early", b"1", ttl=0.05)
    db.put(b"late", b"2", ttl=1.0)
    time.sleep(0.1)
    with db.snapshot() as snapshot:
        time.sleep(1.0)
        assert b"late" not in db
        assert everything(snapshot, [b"early", b"late"]) == {b"late": b"2"}


def test_a_mapping_that_cannot_be_written(db: pykv.Store) -> None:
    """A snapshot is a Mapping, equal to a dict of its content, and has nothing that writes."""
    db.update({b"a": b"1", b"ab": b"2", b"b": b"3"})
    snapshot = db.snapshot()
    assert isinstance(snapshot, collections.abc.Mapping)
    assert not isinstance(snapshot, collections.abc.MutableMapping)
    assert snapshot == {b"a": b"1", b"ab": b"2", b"b": b"3"}
    assert sorted(snapshot.keys(prefix=b"a")) == [b"a", b"ab"]
    assert dict(snapshot.items(prefix=b"b")) == {b"b": b"3"}
    assert sorted(snapshot.values(prefix=b"a")) == [b"1", b"2"]
    assert len(snapshot.keys(prefix=b"a")) == 2
    assert snapshot.get(bytearray(b"a")) == b"1"
    assert snapshot.get(b"absent", 0) == 0
    for name in ("__setitem__", "__delitem__", "put", "delete", "pop", "clear", "sync"):
        assert not hasattr(snapshot, name)
    with pytest.raises(pykv.NotBytesError):
        snapshot.get("a")  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        pickle.dumps(snapshot)
    with pytest.raises(TypeError):
        copy.copy(snapshot)


def test_repr(db: pykv.Store) -> None:
    """The repr tells of what and of which version, and prints no content."""
    db[b"secret"] = b"secret"
    snapshot = db.snapshot()
    assert repr(snapshot) == f"<pykv.Snapshot of {db.path!r}, version: 1, keys: 1>"
    snapshot.close()
    assert repr(snapshot) == f"<pykv.Snapshot of {db.path!r}, version: 1, closed>"


def test_large_values(db: pykv.Store) -> None:
    """Values larger than a pooled buffer, and than a segment, are read as they were."""
    value = os.urandom(2 << 20)
    db[b"large"] = value
    snapshot = db.snapshot()
    db[b"large"] = b"small"
    assert snapshot[b"large"] == snapshot.get(b"large") == value
    assert dict(snapshot) == {b"large": value}


@pytest.mark.parametrize("deletes", [False, True])
def test_the_table_grows_meanwhile(path: Path, deletes: bool) -> None:
    """While a snapshot is iterated the keydir splits many times, and each key comes once."""
    with pykv.open(path) as db:
        expected = {b"%d" % n: b"v%d" % n for n in range(20_000)}
        db.put_many(expected)
        snapshot = db.snapshot()
        seen: dict[bytes, bytes] = {}
        for n, (key, value) in enumerate(snapshot.items()):
            assert key not in seen
            seen[key] = value
            if n % 1_000 == 0:
                db.put_many((b"new%d" % m, b"") for m in range(n * 10, n * 10 + 10_000))
                if deletes:
                    db.delete_many(b"%d" % m for m in range(n, n + 1_000))
        assert seen == expected
        assert snapshot.get_many(expected) == list(expected.values())
        assert dict(snapshot) == expected


def test_close(db: pykv.Store) -> None:
    """A closed snapshot refuses use; what was begun before goes on; closing repeats."""
    db.update({b"k": b"v", b"large": b"x" * 100_000})
    db.put_many((b"%d" % n, b"v") for n in range(3_000))
    snapshot = db.snapshot()
    expected = dict(snapshot)
    begun, view, views = iter(snapshot.items()), snapshot.view(b"large"), snapshot.keys()
    assert not snapshot.closed
    snapshot.close()
    snapshot.close()
    db.clear()
    assert snapshot.closed
    assert dict(begun) == expected
    assert view == b"x" * 100_000
    for call in (
        lambda: snapshot[b"k"],
        lambda: snapshot.get(b"absent"),
        lambda: b"k" in snapshot,
        lambda: snapshot.get_many([b"k"]),
        lambda: snapshot.contains_many([b"k"]),
        lambda: snapshot.get_with_version(b"k"),
        lambda: snapshot.get_into(b"k", bytearray(9)),
        lambda: snapshot.view(b"k"),
        lambda: len(snapshot),
        lambda: list(snapshot),
        lambda: list(views),
    ):
        with pytest.raises(pykv.ClosedError):
            call()


def test_a_closed_store(path: Path) -> None:
    """A snapshot of a store that was closed refuses use, and can be closed and dropped."""
    db = pykv.open(path)
    db[b"k"] = b"v"
    snapshot, other = db.snapshot(), db.snapshot()
    db.close()
    assert snapshot.closed
    for call in (
        lambda: snapshot[b"k"],
        lambda: list(snapshot),
        lambda: len(snapshot),
        db.snapshot,
    ):
        with pytest.raises(pykv.ClosedError):
            call()
    snapshot.close()
    del db, snapshot
    gc.collect()
    assert other.version == 1
    other.close()


def test_a_snapshot_keeps_its_store_open(path: Path) -> None:
    """A snapshot of a store that nobody else refers to goes on; both go together."""
    pykv.open(path).close()
    snapshot = open_and_take(path)
    gc.collect()
    assert snapshot[b"k"] == b"v"
    snapshot._store.close()


def open_and_take(path: Path) -> pykv.Snapshot:
    db = pykv.open(path)
    db[b"k"] = b"v"
    return db.snapshot()


def test_collection_releases(db: pykv.Store) -> None:
    """A snapshot that is dropped, also in a circle, is released when it is collected."""
    db[b"k"] = b"v"
    for _ in range(5_000):  # more than there are pins
        db.snapshot()
    circle: list[object] = [db.snapshot()]
    circle.append(circle)
    assert db.stats().snapshots == 1
    del circle
    gc.collect()
    assert db.stats().snapshots == 0


def test_pins_run_out(db: pykv.Store) -> None:
    """There can be 1,024 snapshots; one more is refused, until one is closed."""
    db[b"k"] = b"v"
    taken = [db.snapshot() for _ in range(1_024)]
    with pytest.raises(pykv.BusyError):
        db.snapshot()
    with pytest.raises(pykv.BusyError):
        db.transaction()
    with pytest.raises(pykv.BusyError):
        list(db)
    taken.pop().close()
    assert db.snapshot()[b"k"] == b"v"
    assert all(snapshot[b"k"] == b"v" for snapshot in taken)


def test_stats_tell_of_the_oldest(db: pykv.Store) -> None:
    """stats() tells how many are open, and the age and the cost of the oldest one."""
    figures = db.stats()
    assert figures.snapshots == figures.snapshot_versions == figures.snapshot_bytes == 0
    assert figures.snapshot_ms == 0
    oldest = db.snapshot()
    time.sleep(0.05)
    before = db.stats().log_bytes
    for n in range(100):
        db[b"%d" % n] = b"x" * 50_000  # several segments
    newer = db.snapshot()
    figures = db.stats()
    assert figures.snapshots == 2
    assert figures.snapshot_versions == 100
    assert figures.snapshot_bytes > 100 * 50_000
    assert abs(figures.snapshot_bytes - (figures.log_bytes - before)) < 128 * figures.segments
    assert 50 <= figures.snapshot_ms < 60_000
    oldest.close()
    assert db.stats().snapshot_versions == 0
    newer.close()
    assert db.stats().snapshots == 0


def test_threads_share_one(db: pykv.Store) -> None:
    """Threads that read one snapshot, while others write, all see what it holds."""
    expected = {b"%d" % n: b"v%d" % n for n in range(200)}
    db.put_many(expected)
    snapshot = db.snapshot()
    failures: list[BaseException] = []
    over = threading.Event()

    def read() -> None:
        try:
            while not over.is_set():
                assert dict(snapshot) == expected
                assert all(snapshot[key] == value for key, value in expected.items())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for n in range(2_000):
        key = b"%d" % (n % 200)
        if n % 3:
            db[key] = b"other"
        else:
            db.delete(key)
    over.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_closing_while_others_read(db: pykv.Store) -> None:
    """A reader whose snapshot is closed by another thread gets an exception, never a wrong answer."""
    expected = {b"%d" % n: b"v%d" % n for n in range(100)}
    for _ in range(20):
        db.put_many(expected)
        snapshot = db.snapshot()
        failures: list[BaseException] = []
        thread = threading.Thread(target=read_until_failure, args=(snapshot, expected, failures))
        thread.start()
        db.delete_many(expected)
        snapshot.close()
        db.snapshot().close()
        db.clear()
        thread.join()
        assert [type(error) for error in failures] == [pykv.ClosedError]


def read_until_failure(
    snapshot: pykv.Snapshot, expected: dict[bytes, bytes], failures: list[BaseException]
) -> None:
    try:
        while True:
            for key, value in expected.items():
                assert snapshot[key] == value
    except BaseException as error:
        failures.append(error)


WRITER = """
import sys, pykv
with pykv.open(sys.argv[1]) as db:
    for n in range(2_000):
        db[b"%d" % (n % 100)] = b"new"
        db.delete(b"%d" % (n * 7 % 100))
    db.clear()
"""


def test_another_process_writes(path: Path) -> None:
    """A snapshot holds what another process overwrites, deletes and clears."""
    expected = {b"%d" % n: b"old" for n in range(100)}
    with pykv.open(path) as db:
        db.put_many(expected)
        snapshot = db.snapshot()
        where = str(Path(pykv.__file__).parents[1])
        subprocess.run(
            [sys.executable, "-c", WRITER, str(path)],
            env={**os.environ, "PYTHONPATH": where},
            check=True,
            timeout=60,
        )
        assert len(db) == 0
        assert everything(snapshot, list(expected)) == expected


@pytest.mark.skipif(os.getuid() != 0, reason="needs to become another user")
def test_who_cannot_write_is_told(path: Path) -> None:
    """A process that may not write cannot hold deleted keys: it is told, and never sees less."""
    expected = {b"%d" % n: b"v" for n in range(2_000)}
    with pykv.open(path, mode=0o644) as db:
        db.put_many(expected)
        for parent in [path, *path.parents]:
            if parent.stat().st_uid == os.getuid() and not parent.stat().st_mode & 0o005:
                parent.chmod(parent.stat().st_mode | 0o055)
        ready, go = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.setgroups([])
                os.setgid(65_534)
                os.setuid(65_534)
                with pykv.open(path, "r") as reader:
                    snapshot = reader.snapshot()
                    begun, later = iter(snapshot), iter(reader.items())
                    next(begun)
                    reader[b"0"]
                    os.write(ready[1], b".")
                    os.read(go[0], 1)
                    # Overwritten and new ones are no loss.
                    assert snapshot[b"1"] == b"v"
                    assert snapshot.get(b"new") is None
                    os.write(ready[1], b".")
                    os.read(go[0], 1)
                    assert snapshot[b"1"] == b"v"
                    for call in (
                        lambda: snapshot.get(b"7"),
                        lambda: list(begun),
                        lambda: list(later),
                        lambda: b"7" in snapshot,
                        lambda: snapshot.get_many([b"7"]),
                    ):
                        with pytest.raises(pykv.SnapshotLostError):
                            call()
                    assert b"7" not in reader
                    again = reader.snapshot()
                    assert len(list(again)) == 2_000
                status = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(status)
        os.read(ready[0], 1)
        db[b"1"] = b"w"
        db[b"new"] = b""
        os.write(go[1], b".")
        os.read(ready[0], 1)
        del db[b"7"]
        os.write(go[1], b".")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
