"""Transactions are serializable: what they do is what they would do one after the other."""

from __future__ import annotations

import collections.abc
import gc
import itertools
import os
import pickle
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import pykv


def conflicts(
    db: pykv.Store,
    read: Callable[[pykv.Transaction], object],
    between: Callable[[pykv.Store], object],
) -> bytes | None:
    """The key of the conflict of one that reads and writes, while another comes between, or None."""
    before = db.get(b"mark")
    try:
        with db.transaction() as t:
            read(t)
            t[b"mark"] = b"%d" % (int(before or b"0") + 1)
            between(db)
    except pykv.ConflictError as error:
        assert db.get(b"mark") == before
        return error.key
    assert db[b"mark"] == b"%d" % (int(before or b"0") + 1)
    return None


# ---- What a transaction sees ----


def test_it_reads_its_own_writes(db: pykv.Store) -> None:
    """Every read shows the instant of the beginning with the transaction's own writes on top."""
    db.update({b"a": b"1", b"ab": b"2", b"b": b"3"})
    with db.transaction() as t:
        db[b"a"] = b"other"
        assert t[b"a"] == b"1"
        t[b"ab"] = b"mine"
        t[b"ac"] = b"new"
        del t[b"b"]
        assert t.get(b"ab") == t[b"ab"] == b"mine"
        assert b"b" not in t
        assert b"ac" in t
        with pytest.raises(KeyError):
            t[b"b"]
        with pytest.raises(KeyError):
            del t[b"b"]
        assert t.get(b"b", 0) == 0
        assert t.get_many([b"a", b"b", b"ac", b"none", b"a"]) == [b"1", None, b"new", None, b"1"]
        assert t.get_many([b"none"], b"-") == [b"-"]
        expected = {b"a": b"1", b"ab": b"mine", b"ac": b"new"}
        assert dict(t) == dict(t.items()) == expected == t
        assert len(t) == 3
        assert sorted(t) == sorted(t.keys()) == sorted(expected)
        assert sorted(t.values()) == sorted(expected.values())
        assert dict(t.items(prefix=b"ab")) == {b"ab": b"mine"}
        assert len(t.keys(prefix=b"a")) == 3
        assert list(t.values(prefix=b"b")) == []
        for key in t:
            t[key + b"!"] = b""  # writes meanwhile are not met
        assert len(t) == 6
        t.clear()
        assert dict(t) == {}
        assert len(t) == 0
        raise_away = pytest.raises(ZeroDivisionError)
        with raise_away, db.transaction() as inner:
            inner[b"x"] = b""
            raise ZeroDivisionError
        t.update({b"only": b"this"})
        with pytest.raises(pykv.ConflictError):
            t.__exit__(None, None, None)
    assert dict(db) == {b"a": b"other", b"ab": b"2", b"b": b"3"}


def test_all_is_applied_as_one_batch(db: pykv.Store) -> None:
    """At the end all writes appear at once, under one version; before, none."""
    db.update({b"old": b"1", b"gone": b"1"})
    with db.transaction() as t:
        t[b"old"] = b"2"
        t.put(b"short", b"3", ttl=3_600)
        t.put_many([(b"x", b"4"), (b"y", b"5")])
        assert t.delete(b"gone")
        assert not t.delete(b"gone")
        assert not t.delete(b"never")
        assert dict(db) == {b"old": b"1", b"gone": b"1"}
        assert t.version is None
    assert dict(db) == {b"old": b"2", b"short": b"3", b"x": b"4", b"y": b"5"}
    for key in db:
        found = db.get_with_version(key)
        assert found is not None
        assert found[1] == t.version


def test_an_exception_rolls_back(db: pykv.Store) -> None:
    """An exception in the block drops the writes, and goes on."""
    db[b"a"] = b"1"
    version = db.stats().version
    with pytest.raises(ZeroDivisionError), db.transaction() as t:
        t[b"a"] = b"2"
        t.clear()
        raise ZeroDivisionError
    assert dict(db) == {b"a": b"1"}
    assert db.stats().version == version
    assert db.stats().snapshots == 0


@pytest.mark.skipif(sys.maxsize < 1 << 32, reason="so long a value fits into no such process")
def test_a_commit_that_does_not_reach_the_engine(db: pykv.Store) -> None:
    """A commit that fails holds no snapshot, however early that is."""
    db[b"a"] = b"1"
    with pytest.raises(pykv.ValueSizeError), db.transaction() as t:
        t[b"a"] = bytes(1 << 32)  # zeros that nobody looks at
    assert db.stats().snapshots == 0
    assert dict(db) == {b"a": b"1"}


def test_a_mutable_mapping(db: pykv.Store) -> None:
    """What a dict can do, a transaction can: pop, popitem, setdefault, update, comparison."""
    with db.transaction() as t:
        assert isinstance(t, collections.abc.MutableMapping)
        assert t.setdefault(b"a", b"1") == b"1"
        assert t.setdefault(b"a", b"2") == b"1"
        assert t.pop(b"a") == b"1"
        assert t.pop(b"a", None) is None
        t.update([(bytearray(b"b"), memoryview(b"2"))])
        assert t.popitem() == (b"b", b"2")
        with pytest.raises(KeyError):
            t.popitem()
        with pytest.raises(pykv.NotBytesError):
            t["a"] = b""  # type: ignore[index]
        with pytest.raises(pykv.NotBytesError):
            t[b"a"] = "b"  # type: ignore[assignment]
        with pytest.raises(pykv.KeySizeError):
            t[b"k" * 65_536] = b""
        with pytest.raises(TypeError):
            pickle.dumps(t)
    assert len(db) == 0


def test_buffers_are_copied(db: pykv.Store) -> None:
    """A buffer that changes after it was written does not change the transaction."""
    key, value = bytearray(b"key"), bytearray(b"value")
    with db.transaction() as t:
        t[key] = value
        key[:] = b"xxx"
        value[:] = b"yyyyy"
    assert dict(db) == {b"key": b"value"}


def test_counters_and_expiry(db: pykv.Store) -> None:
    """incr() in a transaction does what it does in a store, the time to live included."""
    db.incr(b"n", 41)
    db.put(b"short", b"1", ttl=0.3)
    db[b"text"] = b"text"
    db[b"most"] = b"9223372036854775807"
    with db.transaction() as t:
        assert t.incr(b"n") == 42
        assert t.incr(b"new", -5) == -5
        assert t.incr(b"short") == 2
        assert t.incr(b"short") == 3
        assert t.incr(b"timed", ttl=0.3) == 1
        for key in (b"text", b"most"):
            with pytest.raises(pykv.NotANumberError):
                t.incr(key)
        t.put(b"again", b"1", ttl=0.3)
        t[b"again"] = b"2"
        t.put(b"dropped", b"1", ttl=0.3)
        t.delete(b"dropped")
        assert t.incr(b"dropped") == 1
    kept = {b"n": b"42", b"new": b"-5", b"text": b"text", b"again": b"2", b"dropped": b"1"}
    kept[b"most"] = b"9223372036854775807"
    assert dict(db) == kept | {b"short": b"3", b"timed": b"1"}
    time.sleep(0.4)
    assert dict(db) == kept


def test_large_values_and_many_keys(db: pykv.Store) -> None:
    """A transaction may read and write what is larger than a buffer, a segment, and the small cases."""
    value = os.urandom(2 << 20)
    with db.transaction() as t:
        t[b"large"] = value
        t.update((b"%d" % n, b"v") for n in range(1_000))
    with db.transaction() as t:
        assert t[b"large"] == t.get(b"large") == value
        for n in range(1_000):
            t[b"%d" % n] = t[b"%d" % n] * 2
    assert db[b"large"] == value
    assert all(found == b"vv" for found in db.get_many(b"%d" % n for n in range(1_000)))
    assert conflicts(db, lambda t: t[b"large"], lambda db: db.put(b"large", b"")) == b"large"


# ---- Conflicts ----


@pytest.mark.parametrize(
    ("read", "between", "key"),
    [
        (lambda t: t[b"k"], lambda db: db.put(b"k", b"w"), b"k"),
        (lambda t: t[b"k"], lambda db: db.put(b"k", b"v"), b"k"),  # an equal value
        (lambda t: t.get(b"k"), lambda db: db.delete(b"k"), b"k"),
        (lambda t: t[b"k"], lambda db: (db.delete(b"k"), db.put(b"k", b"v")), b"k"),
        (lambda t: b"k" in t, lambda db: db.put(b"k", b"w"), b"k"),
        (lambda t: t.get_many([b"a", b"k"]), lambda db: db.put(b"k", b"w"), b"k"),
        (lambda t: t.get_many([b"a", b"no"]), lambda db: db.put(b"no", b"w"), b"no"),
        (lambda t: t.get(b"no"), lambda db: db.put(b"no", b""), b"no"),
        (lambda t: b"no" in t, lambda db: db.put(b"no", b""), b"no"),
        (lambda t: t.delete(b"no"), lambda db: db.put(b"no", b""), b"no"),
        (lambda t: t.delete(b"k"), lambda db: db.delete(b"k"), b"k"),
        (lambda t: t.pop(b"k"), lambda db: db.put(b"k", b"w"), b"k"),
        (lambda t: t.incr(b"n"), lambda db: db.incr(b"n"), b"n"),
        (lambda t: t.setdefault(b"no", b"1"), lambda db: db.put(b"no", b"2"), b"no"),
        (lambda t: t.get(b"k"), lambda db: db.clear(), b"k"),
        (lambda t: list(t.keys(prefix=b"u:")), lambda db: db.put(b"u:3", b""), b"u:"),
        (lambda t: list(t.items(prefix=b"u:")), lambda db: db.put(b"u:1", b""), b"u:"),
        (lambda t: list(t.values(prefix=b"u:")), lambda db: db.delete(b"u:1"), b"u:"),
        (lambda t: len(t.keys(prefix=b"u:")), lambda db: db.put_many({b"u:": b""}), b"u:"),
        (lambda t: list(t.keys(prefix=b"none:")), lambda db: db.put(b"none:1", b""), b"none:"),
        (lambda t: iter(t.keys(prefix=b"u:")), lambda db: db.put(b"u:3", b""), b"u:"),
        (list, lambda db: db.put(b"anything", b""), b""),
        (len, lambda db: db.delete(b"u:1"), b""),
        (bool, lambda db: db.put(b"anything", b""), b""),
        (lambda t: t.popitem(), lambda db: db.put(b"anything", b""), b""),
        (lambda t: t.clear(), lambda db: db.put(b"anything", b""), b""),
    ],
)
def test_what_was_read_has_changed(
    db: pykv.Store,
    read: Callable[[pykv.Transaction], object],
    between: Callable[[pykv.Store], object],
    key: bytes,
) -> None:
    """Whatever way a key was read, found or missing, alone or by prefix, its change is a conflict."""
    db.update({b"k": b"v", b"n": b"1", b"u:1": b"", b"u:2": b"", b"a": b""})
    assert conflicts(db, read, between) == key
    assert conflicts(db, read, lambda db: None) is None


@pytest.mark.parametrize(
    ("read", "between"),
    [
        (lambda t: None, lambda db: db.put(b"k", b"w")),
        (lambda t: t.put(b"k", b"x"), lambda db: db.put(b"k", b"w")),  # a blind write
        (lambda t: t[b"k"], lambda db: db.put(b"k2", b"w")),
        (lambda t: t[b"k"], lambda db: db.delete(b"no")),
        (lambda t: t.get(b"no"), lambda db: (db.put(b"no", b""), db.delete(b"no"))),
        (lambda t: list(t.items(prefix=b"u:")), lambda db: db.put(b"u", b"")),
        (lambda t: list(t.items(prefix=b"u:")), lambda db: db.put(b"v:1", b"")),
        (lambda t: list(t.items(prefix=b"u:")), lambda db: db.delete(b"u:none")),
        (lambda t: list(t), lambda db: db.sync()),
        (lambda t: (t.put(b"own", b""), t[b"own"]), lambda db: db.put(b"own", b"")),
    ],
)
def test_what_is_no_conflict(
    db: pykv.Store,
    read: Callable[[pykv.Transaction], object],
    between: Callable[[pykv.Store], object],
) -> None:
    """Changes of what was not read are no conflict."""
    db.update({b"k": b"v", b"u:1": b"", b"u:2": b""})
    assert conflicts(db, read, between) is None


def test_a_conflict_says_what(db: pykv.Store) -> None:
    """ConflictError names the key, or the prefix, and nothing was written."""
    with pytest.raises(pykv.ConflictError, match="key b'k' was") as caught, db.transaction() as t:
        t.get(b"k")
        db[b"k"] = b"other"
        t[b"k"] = b"mine"
    assert caught.value.key == b"k"
    with pytest.raises(pykv.ConflictError, match="with b'u:' was") as caught, db.transaction() as t:
        list(t.keys(prefix=b"u:"))
        db[b"u:1"] = b"other"
        t[b"k"] = b"mine"
    assert caught.value.key == b"u:"
    assert dict(db) == {b"k": b"other", b"u:1": b"other"}
    assert db.stats().snapshots == 0


def test_one_that_only_reads_commits_always(db: pykv.Store) -> None:
    """What a transaction without writes has read was one instant: there is nothing to check."""
    db.update({b"a": b"1", b"b": b"1"})
    version = db.stats().version
    with db.transaction() as t:
        first = t[b"a"]
        db.update({b"a": b"2", b"b": b"2"})
        assert t[b"b"] == first
        assert dict(t) == {b"a": b"1", b"b": b"1"}
    assert t.version is None
    assert db.stats().version == version + 1


def test_many_segments_since(db: pykv.Store) -> None:
    """A prefix is watched over segment ends, marks, batches and long records, whatever comes between."""

    def much(db: pykv.Store) -> None:
        for n in range(60):
            db[b"other%d" % n] = b"x" * 50_000
            db.update({b"a%d" % n: b"", b"b%d" % n: b"y" * 10_000})
            if n % 20 == 0:
                db.sync()
        db[b"long"] = b"z" * (3 << 20)

    assert conflicts(db, lambda t: list(t.keys(prefix=b"u:")), much) is None
    assert conflicts(db, lambda t: list(t.keys(prefix=b"b5")), much) == b"b5"
    assert conflicts(db, lambda t: list(t.keys(prefix=b"lo")), much) == b"lo"

    def last(db: pykv.Store) -> None:
        much(db)
        db[b"u:1"] = b""

    assert conflicts(db, lambda t: list(t.keys(prefix=b"u:")), last) == b"u:"


def test_expiry_is_a_conflict_of_a_key(db: pykv.Store) -> None:
    """A key that was read and has expired by the end is a conflict; one that had expired is absent."""
    db.put(b"short", b"1", ttl=0.2)
    assert conflicts(db, lambda t: t[b"short"], lambda db: time.sleep(0.3)) == b"short"
    assert conflicts(db, lambda t: t.get(b"short"), lambda db: None) is None


# ---- What snapshot isolation does not give ----


def test_lost_update(db: pykv.Store) -> None:
    """Two that read a counter and write it: the second does not overwrite the first."""
    db[b"n"] = b"10"
    first = db.transaction()
    second = db.transaction()
    for t in (first, second):
        t[b"n"] = b"%d" % (int(t[b"n"]) + 1)
    first.__exit__(None, None, None)
    with pytest.raises(pykv.ConflictError):
        second.__exit__(None, None, None)
    assert db[b"n"] == b"11"


def test_write_skew(db: pykv.Store) -> None:
    """Two doctors who each see the other on call cannot both leave: their writes do not overlap."""
    db.update({b"call:ada": b"yes", b"call:bob": b"yes"})
    transactions = []
    for name in (b"ada", b"bob"):
        t = db.transaction()
        if t.get_many([b"call:ada", b"call:bob"]).count(b"yes") == 2:
            t[b"call:" + name] = b"no"
        transactions.append(t)
    transactions[0].__exit__(None, None, None)
    with pytest.raises(pykv.ConflictError) as caught:
        transactions[1].__exit__(None, None, None)
    assert caught.value.key == b"call:ada"
    assert list(db.values()).count(b"yes") == 1


def test_phantoms(db: pykv.Store) -> None:
    """Two that each count the bookings of a room and add one cannot both find the last seat."""
    db[b"room:1"] = b""
    transactions = []
    for name in (b"room:ada", b"room:bob"):
        t = db.transaction()
        if len(t.keys(prefix=b"room:")) < 2:
            t[name] = b""
        transactions.append(t)
    transactions[0].__exit__(None, None, None)
    with pytest.raises(pykv.ConflictError) as caught:
        transactions[1].__exit__(None, None, None)
    assert caught.value.key == b"room:"
    assert sorted(db) == [b"room:1", b"room:ada"]


def test_read_only_anomaly(db: pykv.Store) -> None:
    """The anomaly of a reader between two writers (Fekete, O'Neil, O'Neil 2004) cannot be."""
    db.update({b"x": b"0", b"y": b"0"})
    withdraw = db.transaction()
    balance = int(withdraw[b"x"]) + int(withdraw[b"y"])
    with db.transaction() as deposit:
        deposit[b"y"] = b"%d" % (int(deposit[b"y"]) + 20)
    with db.transaction() as report:
        assert (report[b"x"], report[b"y"]) == (b"0", b"20")
    withdraw[b"x"] = b"%d" % (balance - 10 - 1)  # with a fee, as the deposit was not seen
    with pytest.raises(pykv.ConflictError):
        withdraw.__exit__(None, None, None)


def test_any_interleaving_is_serial(db: pykv.Store) -> None:
    """Random transactions, steps interleaved: those that commit, replayed in turn, read the same."""
    chance = random.Random(7)
    keys = [b"%d:%d" % (group, n) for group in range(3) for n in range(3)]
    prefixes = [b"", b"0:", b"1:", b"2:"]
    committed = refused = 0
    for _ in range(300):
        db.clear()
        model: dict[bytes, bytes] = {}
        running: list[tuple[pykv.Transaction, list[tuple[str, bytes, object]]]] = [
            (db.transaction(), []) for _ in range(3)
        ]
        counter = itertools.count()
        while running:
            which = chance.randrange(len(running))
            t, steps = running[which]
            key, prefix = chance.choice(keys), chance.choice(prefixes)
            kind = chance.choice(["get", "get", "put", "put", "delete", "scan", "end"])
            if kind == "get":
                steps.append((kind, key, t.get(key)))
            elif kind == "put":
                t[key] = value = b"%d" % next(counter)
                steps.append((kind, key, value))
            elif kind == "delete":
                steps.append((kind, key, t.delete(key)))
            elif kind == "scan":
                steps.append((kind, prefix, dict(t.items(prefix=prefix))))
            else:
                del running[which]
                writes = any(kind == "put" or (kind == "delete" and x) for kind, _, x in steps)
                try:
                    t.__exit__(None, None, None)
                except pykv.ConflictError:
                    refused += 1
                    assert dict(db) == model
                    continue
                committed += 1
                if not writes:
                    continue  # it counts as of its beginning
                for kind, key, result in steps:
                    if kind == "get":
                        assert model.get(key) == result
                    elif kind == "put":
                        assert isinstance(result, bytes)
                        model[key] = result
                    elif kind == "delete":
                        assert (model.pop(key, None) is not None) == result
                    else:
                        assert {k: v for k, v in model.items() if k.startswith(key)} == result
                assert dict(db) == model
    assert committed > 300
    assert refused > 50


# ---- transact() ----


def test_transact_returns_and_retries(db: pykv.Store) -> None:
    """transact() calls again after a conflict, and returns what the committed call returned."""
    calls = 0

    def function(t: pykv.Transaction) -> int:
        nonlocal calls
        calls += 1
        t.incr(b"n")
        if calls < 4:
            db.incr(b"n", 10)
        return calls

    assert db.transact(function) == 4
    assert db[b"n"] == b"31"


def test_transact_gives_up(db: pykv.Store) -> None:
    """After so many retries the last conflict is raised; another exception is raised at once."""
    calls = 0

    def function(t: pykv.Transaction) -> None:
        nonlocal calls
        calls += 1
        t.incr(b"n")
        db.incr(b"n")

    with pytest.raises(pykv.ConflictError) as caught:
        db.transact(function, retries=2)
    assert caught.value.key == b"n"
    assert calls == 3
    with pytest.raises(pykv.ConflictError):
        db.transact(function, retries=0)
    assert calls == 4
    with pytest.raises(ZeroDivisionError):
        db.transact(lambda t: 1 // 0)
    with pytest.raises(pykv.InvalidError):
        db.transact(function, retries=-1)
    assert db.stats().snapshots == 0


def test_threads_that_transact(db: pykv.Store) -> None:
    """Of threads that move money between accounts, none creates or loses any."""
    db.update({b"account:%d" % n: b"100" for n in range(5)})
    failures: list[BaseException] = []

    def move(seed: int) -> None:
        chance = random.Random(seed)

        def function(t: pykv.Transaction) -> None:
            source, target = chance.sample(range(5), 2)
            amount = min(chance.randrange(50), int(t[b"account:%d" % source]))
            t.incr(b"account:%d" % source, -amount)
            t.incr(b"account:%d" % target, amount)

        try:
            for _ in range(150):
                db.transact(function, retries=1_000)
                with db.transaction() as t:
                    assert sum(map(int, t.values(prefix=b"account:"))) == 500
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=move, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sum(map(int, db.values())) == 500
    assert min(map(int, db.values())) >= 0


# ---- Ends ----


def test_an_ended_transaction_refuses_use(db: pykv.Store) -> None:
    """After its end each use raises ClosedError, however it ended, and sees no other's instant."""
    db[b"k"] = b"v"
    with db.transaction() as t:
        t[b"own"] = b"1"
    with pytest.raises(ZeroDivisionError), db.transaction() as dropped:
        raise ZeroDivisionError
    with db.transaction() as read:
        list(read)
    with db.transaction() as later:  # which may have the handle of one before it
        for ended in (t, dropped, read):
            for call in (
                lambda ended=ended: ended[b"k"],
                lambda ended=ended: ended.get(b"own"),
                lambda ended=ended: b"k" in ended,
                lambda ended=ended: ended.get_many([b"k"]),
                lambda ended=ended: ended.get_many([]),
                lambda ended=ended: len(ended),
                lambda ended=ended: list(ended),
                lambda ended=ended: list(ended.items(prefix=b"k")),
                lambda ended=ended: ended.__setitem__(b"k", b""),
                lambda ended=ended: ended.put(b"k", b"", ttl=1),
                lambda ended=ended: ended.put_many({b"k": b""}),
                lambda ended=ended: ended.delete(b"k"),
                lambda ended=ended: ended.incr(b"n"),
                lambda ended=ended: ended.clear(),
                lambda ended=ended: ended.__enter__(),
            ):
                with pytest.raises(pykv.ClosedError, match="the transaction has ended"):
                    call()
            ended.__exit__(None, None, None)
            assert repr(ended) == "<pykv.Transaction, ended, writes: 0>"
        later[b"k"] = b"w"
        assert repr(later) == "<pykv.Transaction, open, writes: 1>"
    assert dict(db) == {b"k": b"w", b"own": b"1"}


def test_iterations_outlive_a_transaction(db: pykv.Store) -> None:
    """An iteration that has begun goes on after the end, over what it began with."""
    expected = {b"%d" % n: b"v" for n in range(3_000)}
    db.put_many(expected)
    with db.transaction() as t:
        begun = iter(t.items())
        next(begun)
        t[b"k"] = b"v"
    db.clear()
    with db.transaction() as t:
        t[b"other"] = b""
    assert len(list(begun)) == 2_999


def test_dropped_transactions(db: pykv.Store) -> None:
    """A transaction that is never ended writes nothing, and is released when it is collected."""
    for _ in range(3_000):
        db.transaction()[b"k"] = b"v"
    circle: list[object] = [db.transaction()]
    circle.append(circle)
    assert db.stats().snapshots == 1
    del circle
    gc.collect()
    assert db.stats().snapshots == 0
    assert len(db) == 0


def test_a_closed_store(path: Path) -> None:
    """A transaction on a store that was closed refuses to read and to commit."""
    db = pykv.open(path)
    with pytest.raises(pykv.ClosedError), db.transaction() as t:
        t[b"k"] = b"v"
        db.close()
        with pytest.raises(pykv.ClosedError):
            t[b"other"]
    with pytest.raises(pykv.ClosedError):
        db.transaction()
    with pykv.open(path) as db:
        assert len(db) == 0


def test_read_only(path: Path) -> None:
    """A store opened for reading has transactions that read; one that writes fails at its end."""
    with pykv.open(path) as db:
        db[b"k"] = b"v"
    with pykv.open(path, "r") as db:
        with db.transaction() as t:
            assert t[b"k"] == b"v"
        with pytest.raises(pykv.ReadOnlyError), db.transaction() as t:
            t[b"k"] = b"w"
        assert dict(db) == {b"k": b"v"}
        assert dict(db.snapshot()) == {b"k": b"v"}


def test_durable(db: pykv.Store) -> None:
    """A durable transaction is on disk when it ends."""
    with db.transaction(durable=True) as t:
        t[b"k"] = b"v"
    assert db.stats().unsynced_bytes == 0
    db.transact(lambda t: t.incr(b"n"), durable=True)
    assert db.stats().unsynced_bytes == 0
    with pytest.raises(TypeError):
        db.transaction(durable="yes")  # type: ignore[arg-type]


def test_batches_watch_prefixes_no_snapshot_had(db: pykv.Store) -> None:
    """The engine refuses a position that is none, by a clear error."""
    from pykv._batch import EXPECT_PREFIX_UNCHANGED, PUT

    db[b"k"] = b"v"
    for position in (0, 1, 5 << 30, 1 << 63, (1 << 30) + (1 << 20)):
        with pytest.raises(pykv.InvalidError):
            db._write([EXPECT_PREFIX_UNCHANGED, PUT], [b"", b"k"], [b"", b"w"], [position, 0])
    with pytest.raises(pykv.CorruptError):
        db._write([EXPECT_PREFIX_UNCHANGED, PUT], [b"", b"k"], [b"", b"w"], [(1 << 30) + 9, 0])
    position = db.snapshot()._instant().position
    assert db._write(
        [EXPECT_PREFIX_UNCHANGED, PUT], [b"", b"k"], [b"", b"w"], [position, 0]
    ).applied
    again = db._write([PUT, EXPECT_PREFIX_UNCHANGED], [b"k", b""], [b"x", b""], [0, position])
    assert not again.applied
    assert again.failed == 1


def test_a_great_number_of_retries(db: pykv.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pause before another try grows to its limit, however many tries there are."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)

    def conflict(_t: pykv.Transaction) -> None:
        raise pykv.ConflictError("again")

    with pytest.raises(pykv.ConflictError):
        db.transact(conflict, retries=2000)
    assert len(pauses) == 2000
    assert max(pauses) <= 0.1
    assert max(pauses[:3]) <= 0.004
