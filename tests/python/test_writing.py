"""The ways of writing beyond those of a dict: each of them one batch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import pykv


def test_put_and_delete(db: pykv.Store) -> None:
    """put() stores, delete() tells whether there was something to remove."""
    db.put(b"k", b"v")
    assert db[b"k"] == b"v"
    assert db.delete(b"k") is True
    assert db.delete(b"k") is False


@pytest.mark.parametrize("durable", [None, True, False])
def test_durability_of_one_write(db: pykv.Store, durable: bool | None) -> None:
    """Every way of writing takes a durability of its own where it has the argument."""
    db.put(b"a", b"1", durable=durable)
    db.put_many({b"b": b"2"}, durable=durable)
    with db.batch(durable) as batch:
        batch[b"c"] = b"3"
    assert dict(db) == {b"a": b"1", b"b": b"2", b"c": b"3"}


def test_durable_writes_leave_nothing_unsynced(db: pykv.Store) -> None:
    """After a durable write, and after sync(), a power cut could take nothing."""
    db.put(b"a", b"1", durable=True)
    assert db.stats().unsynced_bytes == 0
    db.put(b"a", b"2")
    db.sync()
    assert db.stats().unsynced_bytes == 0


@pytest.mark.parametrize("durability", ["process", "interval", "commit"])
def test_durability_of_a_store(path: Path, durability: str) -> None:
    """A store works alike under each durability, and keeps its content."""
    with pykv.open(path, durability=durability, interval_ms=10) as db:  # type: ignore[arg-type]
        db[b"a"] = b"1"
        db.put_many((b"%d" % n, b"") for n in range(100))
        del db[b"7"]
        db.sync()
    with pykv.open(path) as db:
        assert len(db) == 100


def test_put_many(db: pykv.Store) -> None:
    """put_many() takes mappings and pairs of any iterable; of equal keys the last wins."""
    db.put_many({b"a": b"1", b"b": b"2"})
    db.put_many([[b"b", b"22"], (b"c", b"3")])  # type: ignore[list-item]
    db.put_many((b"d", b"%d" % n) for n in range(5))
    db.put_many([])
    db.put_many({})
    assert dict(db) == {b"a": b"1", b"b": b"22", b"c": b"3", b"d": b"4"}


@pytest.mark.parametrize(
    "pairs", [[b"ab"], [(b"a",)], [(b"a", b"b", b"c")], [None], 5, [(b"a", 1)]]
)
def test_put_many_refuses_other_shapes(db: pykv.Store, pairs: object) -> None:
    """put_many() refuses what is no iterable of pairs of buffers, and writes nothing."""
    with pytest.raises((TypeError, ValueError)):
        db.put_many(pairs)  # type: ignore[arg-type]
    with pytest.raises((TypeError, ValueError)):
        db.put_many([(b"first", b""), *pairs])  # type: ignore[misc]
    assert len(db) == 0


def test_put_many_is_one_batch(db: pykv.Store) -> None:
    """All that put_many() wrote carries one version."""
    db.put_many((b"%d" % n, b"") for n in range(1_000))
    found = [db.get_with_version(b"%d" % n) for n in range(1_000)]
    assert len({item[1] for item in found if item is not None}) == 1


def test_delete_many(db: pykv.Store) -> None:
    """delete_many() counts the keys that were there."""
    db.put_many((b"%d" % n, b"") for n in range(100))
    assert db.delete_many(b"%d" % n for n in range(50, 150)) == 50
    assert db.delete_many([b"1", b"1"]) == 1
    assert db.delete_many([]) == 0
    assert len(db) == 49


def test_put_if_absent(db: pykv.Store) -> None:
    """put_if_absent() stores only where nothing is."""
    assert db.put_if_absent(b"k", b"first")
    assert not db.put_if_absent(b"k", b"second")
    assert db[b"k"] == b"first"
    del db[b"k"]
    assert db.put_if_absent(b"k", bytearray(b"third"))
    assert db[b"k"] == b"third"


def test_compare_and_set(db: pykv.Store) -> None:
    """compare_and_set() writes only over what is expected; None stands for absence."""
    assert not db.compare_and_set(b"k", b"", b"v")
    assert db.compare_and_set(b"k", None, b"v")
    assert not db.compare_and_set(b"k", None, b"w")
    assert not db.compare_and_set(b"k", b"vv", b"w")
    assert db.compare_and_set(b"k", memoryview(b"v"), bytearray(b"w"))
    assert db[b"k"] == b"w"
    assert not db.compare_and_set(b"k", b"v", None)
    assert db.compare_and_set(b"k", b"w", None)
    assert b"k" not in db
    assert db.compare_and_set(b"k", None, None)
    assert len(db) == 0


def test_incr(db: pykv.Store) -> None:
    """incr() counts from 0 in both directions, as decimal text."""
    assert db.incr(b"n") == 1
    assert db.incr(b"n", 41) == 42
    assert db.incr(b"n", -50) == -8
    assert db[b"n"] == b"-8"
    db[b"n"] = b"100"
    assert db.incr(b"n", 0) == 100


@pytest.mark.parametrize(
    "value", [b"", b"x", b"1.5", b"12x", b" 1", b"--1", b"9223372036854775808"]
)
def test_incr_of_what_is_no_number(db: pykv.Store, value: bytes) -> None:
    """incr() refuses what is no decimal integer of 64 bits, and leaves it alone."""
    db[b"n"] = value
    with pytest.raises(pykv.NotANumberError) as caught:
        db.incr(b"n")
    assert isinstance(caught.value, ValueError)
    assert db[b"n"] == value


def test_incr_does_not_wrap(db: pykv.Store) -> None:
    """A sum that needs more than 64 bits is an error, and the counter stays."""
    for start, by in ((2**63 - 1, 1), (-(2**63), -1)):
        db[b"n"] = b"%d" % start
        with pytest.raises(pykv.NotANumberError):
            db.incr(b"n", by)
        assert db[b"n"] == b"%d" % start


@pytest.mark.parametrize("by", [1.5, "1", b"1", None])
def test_incr_by_what_is_no_int(db: pykv.Store, by: Any) -> None:
    """The message names the argument and its type, in a transaction too."""
    with db.transaction() as t:
        for counter in (db, t):
            with pytest.raises(TypeError, match=f"by is an int, not {type(by).__name__}"):
                counter.incr(b"n", by)
            with pytest.raises(pykv.InvalidError, match="by is an integer of 64 bits"):
                counter.incr(b"n", 2**63)


def test_ttl(db: pykv.Store) -> None:
    """A key with a ttl is gone afterwards, from every way of reading."""
    db.put(b"short", b"v", ttl=0.15)
    db.put_many({b"many": b"v"}, ttl=0.15)
    db.incr(b"count", ttl=0.15)
    with db.batch() as batch:
        batch.put(b"batch", b"v", ttl=0.15)
    db.put(b"long", b"v", ttl=3_600)
    db[b"ever"] = b"v"
    short = [b"short", b"many", b"count", b"batch"]
    assert db.contains_many(short) == [True] * 4
    assert len(list(db)) == 6
    time.sleep(0.2)
    assert sorted(db) == [b"ever", b"long"]
    assert db.contains_many(short) == [False] * 4
    assert db.get_many(short) == [None] * 4
    assert db.get(b"short") is None
    assert b"short" not in db
    assert not db.delete(b"short")
    assert db.put_if_absent(b"short", b"again")
    assert db.incr(b"count") == 1


def test_a_put_ends_a_ttl(db: pykv.Store) -> None:
    """A put without ttl replaces one with it; incr() without ttl keeps the expiry."""
    db.put(b"k", b"1", ttl=0.15)
    db.put(b"k", b"2")
    db.put(b"n", b"1", ttl=0.15)
    db.incr(b"n")
    time.sleep(0.2)
    assert db[b"k"] == b"2"
    assert b"n" not in db


def test_ttl_outlives_a_reopen(path: Path) -> None:
    """The expiry of a key is kept on disk."""
    with pykv.open(path) as db:
        db.put(b"short", b"", ttl=0.15)
        db.put(b"long", b"", ttl=3_600)
    time.sleep(0.2)
    with pykv.open(path) as db:
        assert list(db) == [b"long"]
