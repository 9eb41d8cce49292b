"""The calls that are in C (_module.c): `store[key]`, `get`, `in`, `store[key] = value`, `del`."""

from __future__ import annotations

import gc
import platform
import resource
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

import pykv
from pykv._core import Reads, Writes, ffi

# Around what fits into the room on the stack, into a record that is mapped, into one chunk.
SIZES = [0, 1, 4095, 4096, 4097, 65_536, 65_537, 1 << 20, (1 << 20) + 1]


@pytest.mark.parametrize("size", SIZES)
def test_values_of_each_size(db: pykv.Store, size: int) -> None:
    """A value comes back whole, however it is asked for, from the store and from a snapshot."""
    value = bytes(range(251)) * (size // 251 + 1)
    value = value[:size]
    db[b"k"] = value
    with db.snapshot() as snapshot, db.transaction() as transaction:
        db[b"k"] = b"later"
        for reader in snapshot, transaction:
            assert reader[b"k"] == reader.get(b"k") == value
    assert db[b"k"] == b"later"


def test_a_value_that_changes_its_size_while_it_is_read(db: pykv.Store) -> None:
    """Larger values are asked for twice: what is returned is one of those that were there."""
    values = [bytes([n]) * size for n, size in enumerate([10, 5000, 70_000, 300_000])]
    db[b"k"] = values[0]
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            for value in values:
                db[b"k"] = value
            del db[b"k"]

    writer = threading.Thread(target=change)
    writer.start()
    try:
        for _ in range(3000):
            found = db.get(b"k")
            assert found is None or found in values
    finally:
        stop.set()
        writer.join()


class Other(bytes):
    """A subclass of bytes goes the longer way, to the same key."""


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, Other])
def test_other_buffers_name_the_same_key(db: pykv.Store, kind: Any) -> None:
    """Whatever buffer the key or the value is, the pair is the same."""
    db[kind(b"k")] = kind(b"value")
    assert db[b"k"] == db[kind(b"k")] == db.get(kind(b"k")) == b"value"
    assert kind(b"k") in db
    assert kind(b"absent") not in db
    assert db.get(kind(b"absent"), 5) == 5
    with pytest.raises(KeyError) as caught:
        db[kind(b"absent")]
    assert caught.value.args == (b"absent",)
    del db[kind(b"k")]
    assert b"k" not in db
    with pytest.raises(KeyError):
        del db[kind(b"k")]


def test_a_tuple_is_one_argument(db: pykv.Store) -> None:
    """A default may be anything, a tuple too: it is returned as it is."""
    nothing = (1, 2)
    assert db.get(b"absent", nothing) is nothing
    assert db.get(bytearray(b"absent"), nothing) is nothing


def test_too_long_keys(db: pykv.Store) -> None:
    """A key that is too long is refused by reads and writes alike, with its own exception."""
    key = bytes(65_536)
    for call in (lambda: db[key], lambda: db.get(key), lambda: key in db):
        with pytest.raises(pykv.KeySizeError):
            call()
    with pytest.raises(pykv.KeySizeError):
        db[key] = b""
    with pytest.raises(pykv.KeySizeError):
        del db[key]


def test_closed(path: Path) -> None:
    """After close() each of the calls says so; what an open view of the class is no store does."""
    db = pykv.open(path)
    db[b"k"] = b"v"
    snapshot = db.snapshot()
    db.close()
    for reader in db, snapshot:
        for call in (
            lambda r=reader: r[b"k"],
            lambda r=reader: r.get(b"k"),
            lambda r=reader: b"k" in r,
        ):
            with pytest.raises(pykv.ClosedError):
                call()
    with pytest.raises(pykv.ClosedError):
        db[b"k"] = b"v"
    with pytest.raises(pykv.ClosedError):
        del db[b"k"]


def test_a_snapshot_has_no_way_to_write(db: pykv.Store) -> None:
    """Only a store has the slots for writing."""
    assert isinstance(db, Writes)
    with db.snapshot() as snapshot:
        assert isinstance(snapshot, Reads)
        assert not isinstance(snapshot, Writes)
        with pytest.raises(TypeError):
            snapshot[b"k"] = b"v"  # type: ignore[index]


def test_what_is_attached_to_nothing_is_closed() -> None:
    """The base classes alone read nothing, and crash nobody."""
    for bare in Reads(), Writes(), pykv.Store.__new__(pykv.Store):
        with pytest.raises((AttributeError, pykv.ClosedError)):
            bare[b"k"]
        with pytest.raises((AttributeError, pykv.ClosedError)):
            bare.get(b"k")  # type: ignore[attr-defined]
        with pytest.raises((AttributeError, pykv.ClosedError)):
            b"k" in bare  # noqa: B015


def test_a_class_of_ones_own(path: Path) -> None:
    """Methods of a subclass are called as in any class; the rest stays as it is."""

    class Loud(pykv.Store):
        def __getitem__(self, key: Any) -> bytes:
            return super().__getitem__(key).upper()

        def __setitem__(self, key: Any, value: Any) -> None:
            self.put(key, value + b"!")

    with pykv.open(path) as db:
        loud = Loud(db._handle, "", ())
        loud[b"k"] = b"v"
        loud.put(b"l", b"w")
        assert loud[b"k"] == b"V!"
        assert db[b"k"] == b"v!"
        assert db[b"l"] == b"w"
        del loud[b"k"]
        assert b"k" not in db
        loud._closed = True  # the handle is db's
        loud._attach(ffi.NULL, 0)


@pytest.mark.skipif(not hasattr(resource, "RUSAGE_THREAD"), reason="threads are not told apart")
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the GIL is given away")
@pytest.mark.parametrize("what", ["get", "contains", "snapshot", "put"])
def test_calls_in_memory_do_not_wait_for_a_thread_that_computes(db: pykv.Store, what: str) -> None:
    """
    To give the GIL away is to sleep, call after call, until the other one's time is over.

    Calls that a busy machine makes long do so, too: so one of some tries has to be without.
    """
    calls, stop = 20_000, threading.Event()
    keys = [b"%d" % n for n in range(calls)]
    db.put_many(dict.fromkeys(keys, b"value"))
    snapshot = db.snapshot()

    def compute() -> None:
        while not stop.is_set():
            pass

    def call() -> None:
        if what == "put":
            for key in keys:
                db[key] = b"other"
        elif what == "contains":
            assert all(key in db for key in keys)
        else:
            reader = snapshot if what == "snapshot" else db
            assert all(reader[key] == b"value" for key in keys)

    other = threading.Thread(target=compute)
    other.start()
    slept = calls
    try:
        for _ in range(10):
            before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
            call()
            slept = min(slept, resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before)
            if slept < calls / 20:
                break
    finally:
        stop.set()
        other.join()
        snapshot.close()
    assert slept < calls / 20


def test_no_reference_is_lost_or_kept(db: pykv.Store) -> None:
    """A thousand of each call leave the counts of what they were given as they were."""
    key, value, default = b"a key", b"a value", object()
    absent, odd = b"absent key", bytearray(b"absent key")
    db[key] = value

    def all_calls() -> None:
        db[key] = value
        db.put(key, value)
        assert db.get(absent, default) is default
        assert db.get(odd, default) is default
        assert key in db
        assert absent not in db
        for wrong in absent, odd:
            with pytest.raises(KeyError):
                db[wrong]
        with pytest.raises(pykv.NotBytesError):
            db["k"] = value  # type: ignore[index]
        db.snapshot().close()

    def counts() -> list[int]:
        gc.collect()
        given = key, value, default, absent, odd, pykv.Store, pykv.Snapshot
        return [sys.getrefcount(each) for each in given]

    all_calls()
    before = counts()
    for _ in range(1000):
        all_calls()
    # A lost reference would be one a call; the interpreter itself keeps one here and there.
    assert all(abs(now - then) < 100 for now, then in zip(counts(), before, strict=True))


def test_in_a_circle_of_garbage(path: Path) -> None:
    """A store and a snapshot that only each other hold go; who is finalized with them may use them."""
    seen: list[Any] = []

    class Last:
        def __del__(self) -> None:
            for reader in self.readers:
                try:
                    seen.append(reader.get(b"k"))
                except pykv.ClosedError as error:
                    seen.append(type(error))

        readers: list[Any]

    db = pykv.open(path)
    db[b"k"] = b"v"
    last = Last()
    last.readers = [db, db.snapshot(), last]
    last.readers.pop()
    last.circle = last  # type: ignore[attr-defined]
    gone = weakref.ref(db)
    db.close()
    del db, last
    gc.collect()
    assert gone() is None
    assert seen == [pykv.ClosedError, pykv.ClosedError]


def test_transactions_use_a_snapshot_again_that_nobody_else_has(db: pykv.Store) -> None:
    """What a transaction lent to an iteration still reads the instant after others have begun."""
    db.put_many({b"%d" % n: b"old" for n in range(5000)})
    with db.transaction() as first:
        items = iter(first.items())
        next(items)
    db.put_many({b"%d" % n: b"new" for n in range(5000)})
    with db.transaction() as second:
        assert second[b"1"] == b"new"
    with db.transaction() as third:
        assert third[b"2"] == b"new"
        assert {value for _, value in items} == {b"old"}
    with pytest.raises(pykv.ClosedError):
        second.get(b"1")
