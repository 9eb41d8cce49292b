"""Times to live: told, set, taken away; and keys that leave the store when theirs is over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pykv
import pykv.aio

DEADLINE = 30.0  # seconds, for what happens by itself


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what happens in the background."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def wait_over(db: pykv.Store, key: bytes) -> None:
    """Wait until *key* has expired."""
    wait_until(lambda: key not in db)


def near(ttl: float | None, expected: float) -> bool:
    """Whether a time to live was *expected* when it was set, up to half a minute ago."""
    return ttl is not None and expected - DEADLINE < ttl <= expected


# ---- What is told ----


def test_what_is_left(db: pykv.Store) -> None:
    """ttl() tells the seconds that are left, and None for ever; an absent key is a KeyError."""
    db[b"ever"] = b"v"
    db.put(b"hour", b"v", ttl=3_600)
    db.put_many({b"many": b"v"}, ttl=7_200.5)
    db.incr(b"count", ttl=100)
    with db.batch() as batch:
        batch.put(b"batch", b"v", ttl=200)
    assert db.ttl(b"ever") is None
    assert near(db.ttl(b"hour"), 3_600)
    assert near(db.ttl(bytearray(b"many")), 7_200.5)
    assert near(db.ttl(b"count"), 100)
    assert near(db.ttl(b"batch"), 200)
    with pytest.raises(KeyError):
        db.ttl(b"absent")


def test_it_grows_less_until_the_key_is_gone(db: pykv.Store) -> None:
    """ttl() agrees with the reads: from positive to a KeyError, never 0 or negative in between."""
    db.put(b"k", b"v", ttl=0.2)
    told = []
    try:
        while True:
            told.append(db.ttl(b"k"))
    except KeyError:
        assert b"k" not in db
    assert told == sorted(told, reverse=True)
    assert 0.2 >= told[0] > told[-1] >= 0.0


def test_expire_touch_persist(db: pykv.Store) -> None:
    """expire() sets any time, touch() a later one, persist() none; each tells whether the key is there."""
    for absent in (db.expire(b"k", 10), db.touch(b"k", 10), db.persist(b"k")):
        assert absent is False
    assert b"k" not in db
    db[b"k"] = b"value"
    assert db.touch(b"k", 10) is True
    assert db.ttl(b"k") is None  # it lives longer than that already
    assert db.expire(b"k", 1_000) is True
    assert near(db.ttl(b"k"), 1_000)
    assert db.touch(b"k", 100) is True
    assert near(db.ttl(b"k"), 1_000)
    assert db.touch(b"k", 3_000) is True
    assert near(db.ttl(b"k"), 3_000)
    assert db.expire(b"k", 500) is True
    assert near(db.ttl(b"k"), 500)
    assert db.persist(bytearray(b"k")) is True
    assert db.ttl(b"k") is None
    version = db.stats().version
    assert db.persist(b"k") is True
    assert db.stats().version == version  # nothing to write
    assert db[b"k"] == b"value"


def test_expire_ends_a_key(db: pykv.Store) -> None:
    """A key whose new time is over is gone; and one that was persisted in time is not."""
    db.update({b"short": b"1", b"kept": b"2"})
    assert db.expire(b"short", 0.1)
    assert db.expire(b"kept", 0.1)
    if not db.persist(b"kept"):
        pytest.skip("the machine was too slow")
    wait_over(db, b"short")
    assert dict(db) == {b"kept": b"2"}
    assert not db.expire(b"short", 10)
    assert not db.persist(b"short")
    assert b"short" not in db


@pytest.mark.parametrize("size", [0, 1, 5_000, 1 << 20, (3 << 20) + 7])
def test_values_stay(db: pykv.Store, size: int) -> None:
    """Values of any size come through a new time to live, and the version says that they were written."""
    value = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    db[b"k"] = value
    _, before = db.get_with_version(b"k") or (b"", 0)
    for ttl in (100, 200):
        assert db.expire(b"k", ttl)
        assert db.get(b"k") == value
    assert db.persist(b"k")
    found, version = db.get_with_version(b"k") or (b"", 0)
    assert found == value
    assert version == before + 3


def test_arguments(db: pykv.Store) -> None:
    """What is no number of seconds above 0, or no key, is refused, and nothing happens."""
    db[b"k"] = b"v"
    with db.transaction() as t:
        for call in (db.expire, db.touch, t.expire, t.touch):
            for ttl in (0, -1, float("nan"), float("inf"), 10**12):
                with pytest.raises(pykv.InvalidError, match="ttl"):
                    call(b"k", ttl)
            for wrong in (None, "60", b"1"):
                with pytest.raises(TypeError, match="ttl"):
                    call(b"k", wrong)  # type: ignore[arg-type]
            with pytest.raises(pykv.NotBytesError):
                call("k", 60)  # type: ignore[arg-type]
        for call in (db.ttl, db.persist, t.ttl, t.persist):
            with pytest.raises(pykv.NotBytesError):
                call("k")  # type: ignore[arg-type]
    with pytest.raises(pykv.KeySizeError):
        db.expire(b"k" * 65_536, 60)
    with pytest.raises(pykv.KeySizeError):
        db.ttl(b"k" * 65_536)
    assert db.ttl(b"k") is None


def test_read_only_and_closed(path: Path) -> None:
    """A store opened for reading tells the time and refuses to set it; a closed one refuses all."""
    with pykv.open(path) as db:
        db.put(b"k", b"v", ttl=3_600)
    with pykv.open(path, "r") as db:
        assert near(db.ttl(b"k"), 3_600)
        for write in (
            lambda: db.expire(b"k", 1),
            lambda: db.touch(b"k", 1),
            lambda: db.persist(b"k"),
        ):
            with pytest.raises(pykv.ReadOnlyError):
                write()
    for call in (lambda: db.ttl(b"k"), lambda: db.expire(b"k", 1), lambda: db.persist(b"k")):
        with pytest.raises(pykv.ClosedError):
            call()


def test_another_open_has_the_same_times(path: Path) -> None:
    """Times to live outlive a close, and the loss of all but the segments."""
    with pykv.open(path) as db:
        db.update({b"a": b"1", b"b": b"2", b"c": b"3"})
        db.expire(b"a", 3_600)
        db.expire(b"b", 0.05)
        db.expire(b"c", 60)
        db.persist(b"c")
        wait_over(db, b"b")
    for lose in ((), ("keydir",), ("keydir", "manifest")):
        for name in lose:
            (path / name).unlink()
        with pykv.open(path) as db:
            assert sorted(db) == [b"a", b"c"]
            assert near(db.ttl(b"a"), 3_600)
            assert db.ttl(b"c") is None


# ---- Snapshots, transactions, asyncio ----


def test_a_snapshot_tells_from_now(db: pykv.Store) -> None:
    """A snapshot has the times of its instant, told from now; what has expired since is there, with 0."""
    db.put(b"short", b"v", ttl=0.2)
    db.put(b"long", b"v", ttl=3_600)
    with db.snapshot() as snapshot:
        if b"short" not in snapshot:
            pytest.skip("the machine was too slow")
        db.persist(b"long")
        wait_until(lambda: len(db) == 1)
        assert near(snapshot.ttl(b"long"), 3_600)
        assert snapshot.ttl(b"short") == 0.0
        assert snapshot[b"short"] == b"v"
        assert db.ttl(b"long") is None
        with pytest.raises(KeyError):
            snapshot.ttl(b"absent")
    with pytest.raises(pykv.ClosedError):
        snapshot.ttl(b"long")


def test_in_a_transaction(db: pykv.Store) -> None:
    """A transaction tells and sets times as the store does, its own writes included."""
    db.update({b"a": b"1", b"b": b"2"})
    db.put(b"c", b"3", ttl=1_000)
    with db.transaction() as t:
        assert t.ttl(b"a") is None
        assert t.expire(b"a", 100)
        assert near(t.ttl(b"a"), 100)
        assert t.touch(b"a", 50)
        assert near(t.ttl(b"a"), 100)
        assert t.touch(b"b", 50)
        assert t.ttl(b"b") is None
        assert near(t.ttl(b"c"), 1_000)
        assert t.touch(b"c", 2_000)
        assert not t.expire(b"absent", 10)
        assert not t.touch(b"absent", 10)
        assert not t.persist(b"absent")
        with pytest.raises(KeyError):
            t.ttl(b"absent")
        t.put(b"new", b"4", ttl=10)
        assert t.persist(b"new")
        assert db.ttl(b"a") is None  # not yet
    assert near(db.ttl(b"a"), 100)
    assert near(db.ttl(b"c"), 2_000)
    assert db.ttl(b"b") is None
    assert db.ttl(b"new") is None
    assert dict(db) == {b"a": b"1", b"b": b"2", b"c": b"3", b"new": b"4"}
    with pytest.raises(pykv.ClosedError):
        t.ttl(b"a")
    with db.transaction() as t:
        t.persist(b"b")
        t.touch(b"b", 10)
    assert t.version is None  # nothing to write


@pytest.mark.parametrize(
    "between",
    [
        lambda db: db.expire(b"k", 10),
        lambda db: db.touch(b"k", 2_000),
        lambda db: db.persist(b"k"),
        lambda db: db.delete(b"k"),
    ],
)
@pytest.mark.parametrize("read", [lambda t: t.ttl(b"k"), lambda t: t[b"k"], lambda t: list(t)])
def test_a_new_time_is_a_conflict(
    db: pykv.Store, read: Callable[[pykv.Transaction], Any], between: Callable[[pykv.Store], Any]
) -> None:
    """A time to live is part of what a transaction read: if it was set since, there is a conflict."""
    db.put(b"k", b"v", ttl=1_000)
    with pytest.raises(pykv.ConflictError), db.transaction() as t:
        read(t)
        between(db)
        t[b"other"] = b""
    assert b"other" not in db


def test_a_transaction_counts_a_key_once(db: pykv.Store) -> None:
    """Also one that it writes while the expired one is not yet removed."""
    db[b"ever"] = b"v"
    for _ in range(5):
        db.put(b"k", b"v", ttl=0.001)
        wait_over(db, b"k")
        with db.transaction() as t:
            t[b"k"] = b"w"
            assert len(t) == 2


def test_a_counter_that_had_expired_begins_anew(db: pykv.Store) -> None:
    """Its time is not that of the record before, which may not be removed yet."""
    for _ in range(5):
        db.put(b"n", b"41", ttl=0.001)
        wait_over(db, b"n")
        with db.transaction() as t:
            assert t.incr(b"n") == 1
        assert db.pop(b"n") == b"1"


def test_removing_disturbs_no_transaction(db: pykv.Store) -> None:
    """That expired keys are removed meanwhile is no conflict with who had read that they are absent."""
    db[b"ever"] = b""
    db.put_many(((b"e%d" % n, b"") for n in range(1_000)), ttl=0.05)
    wait_over(db, b"e999")
    with db.transaction() as t:
        assert list(t) == [b"ever"]
        assert t.get(b"e1") is None
        t[b"sum"] = b"1"
        wait_until(lambda: len(db) == 1)
    assert db[b"sum"] == b"1"


def test_under_asyncio(path: Path) -> None:
    """The same calls, awaited."""

    async def main() -> None:
        async with await pykv.aio.open(path) as db:
            await db.put(b"k", b"v", ttl=100)
            assert near(await db.ttl(b"k"), 100)
            assert await db.expire(b"k", 200)
            assert await db.touch(b"k", 300)
            assert near(await db.ttl(b"k"), 300)
            assert await db.persist(b"k")
            assert await db.ttl(b"k") is None
            assert not await db.persist(b"absent")
            with pytest.raises(KeyError):
                await db.ttl(b"absent")
            async with db.transaction() as t:
                assert await t.expire(b"k", 50)
                assert await t.touch(b"k", 60)
                assert near(await t.ttl(b"k"), 60)
                assert await t.persist(b"k")
                assert await t.expire(b"k", 70)
            async with db.snapshot() as snapshot:
                assert near(await snapshot.ttl(b"k"), 70)

    asyncio.run(main())


# ---- By itself ----


def test_expired_keys_leave_by_themselves(db: pykv.Store) -> None:
    """They leave len() and the disk, while those that live, and those written again, stay."""
    ever = {b"ever%d" % n: b"v" * 100 for n in range(1_000)}
    db.update(ever)
    for _ in range(3):
        db.put_many(((b"short%d" % n, b"v" * 1_000) for n in range(3_000)), ttl=1.0)
    db.put_many({b"long": b"v"}, ttl=3_600)
    db[b"short7"] = b"saved"
    db.persist(b"short8")
    saved = {key: db[key] for key in (b"short7", b"short8") if key in db}
    wait_until(lambda: len(db) == len(ever) + 1 + len(saved))
    assert dict(db) == ever | {b"long": b"v"} | saved
    wait_until(lambda: db.stats().log_bytes < 3 << 20)  # of more than 9 MB
    assert dict(db) == ever | {b"long": b"v"} | saved
    assert db.verify().ok


@pytest.mark.parametrize("lose", [(), ("keydir",), ("keydir", "manifest", "checkpoint")])
def test_after_a_rebuild(path: Path, lose: tuple[str, ...]) -> None:
    """Keys that expired while the store was closed leave too, whatever the open had to read."""
    with pykv.open(path, segment_bytes=1 << 20) as db:
        db.put_many(((b"%d" % n, b"v" * 100) for n in range(20_000)), ttl=2.0)
        db.put_many(((b"again%d" % n, b"v" * 100) for n in range(20_000)), ttl=2.0)
        db[b"ever"] = b""
        wait_until(lambda: db.stats().checkpoint_version > 0)
    for file in path.iterdir():
        if file.name.startswith(lose or ("?",)):
            file.unlink()
    with pykv.open(path, segment_bytes=1 << 20) as db:
        wait_until(lambda: len(db) == 1)
        assert list(db) == [b"ever"]


def test_after_compact(db: pykv.Store) -> None:
    """What compaction has moved leaves when its time is over."""
    for _ in range(3):
        db.put_many(((b"%d" % n, b"v" * 500) for n in range(4_000)), ttl=2.0)
    db.compact()
    db[b"ever"] = b""
    wait_until(lambda: len(db) == 1)
    assert list(db) == [b"ever"]


def test_two_handles(path: Path) -> None:
    """Whoever of several has the lease removes; the others see it."""
    with pykv.open(path) as one, pykv.open(path) as two:
        one.put_many(((b"1%d" % n, b"") for n in range(1_000)), ttl=0.1)
        two.put_many(((b"2%d" % n, b"") for n in range(1_000)), ttl=0.1)
        wait_until(lambda: len(one) == len(two) == 0)
        one.put_many(((b"1%d" % n, b"") for n in range(1_000)), ttl=0.1)
        one.close()
        wait_until(lambda: len(two) == 0)
