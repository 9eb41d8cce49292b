"""A store is a dict that stays: the whole of MutableMapping[bytes, bytes]."""

from __future__ import annotations

from collections.abc import ItemsView, KeysView, MutableMapping, ValuesView
from pathlib import Path

import pytest

import pykv


def test_it_is_a_mutable_mapping(db: pykv.Store) -> None:
    """isinstance() agrees that a store is a MutableMapping."""
    assert isinstance(db, MutableMapping)


def test_item_access(db: pykv.Store) -> None:
    """[], del, in, len and truth work as on a dict."""
    assert not db
    db[b"k"] = b"v"
    assert db
    assert db[b"k"] == b"v"
    assert b"k" in db
    assert b"other" not in db
    assert len(db) == 1
    db[b"k"] = b"w"
    assert db[b"k"] == b"w"
    assert len(db) == 1
    del db[b"k"]
    assert b"k" not in db
    assert len(db) == 0


def test_missing_keys_raise_key_error(db: pykv.Store) -> None:
    """A missing key is a KeyError that carries the key as bytes, and no pykv.Error."""
    with pytest.raises(KeyError) as caught:
        db[bytearray(b"k")]
    assert caught.value.args == (b"k",)
    assert not isinstance(caught.value, pykv.Error)
    with pytest.raises(KeyError):
        del db[b"k"]
    with pytest.raises(KeyError):
        db.pop(b"k")
    with pytest.raises(KeyError):
        db.popitem()
    with pytest.raises(KeyError):
        db.view(b"k")


def test_get(db: pykv.Store) -> None:
    """get() answers None, or the default, for a missing key."""
    db[b"k"] = b""
    assert db.get(b"k") == b""
    assert db.get(b"k", b"default") == b""
    assert db.get(b"other") is None
    assert db.get(b"other", b"default") == b"default"


def test_values_keep_their_type_and_content(db: pykv.Store) -> None:
    """Values come back as bytes, each byte as it was, and empty keys and values are allowed."""
    every = bytes(range(256))
    db[every] = every
    db[b""] = b""
    assert db[every] == every
    assert type(db[every]) is bytes
    assert db[b""] == b""
    assert b"" in db


@pytest.mark.parametrize("size", [1, 4095, 65_535, 65_536, 65_537, 1_000_000, 3_500_000])
def test_values_of_all_sizes(db: pykv.Store, size: int) -> None:
    """A value larger than the pooled buffer, and than a segment, comes back whole."""
    value = bytes(range(251)) * (size // 251 + 1)
    value = value[:size]
    db[b"k"] = value
    assert db[b"k"] == value
    assert db.get(b"k") == value
    assert db.get_many([b"k"]) == [value]
    found = db.get_with_version(b"k")
    assert found is not None
    assert found[0] == value
    assert dict(db.items()) == {b"k": value}
    assert db.pop(b"k") == value


def test_longest_keys(db: pykv.Store) -> None:
    """Keys up to 65,535 bytes are stored, and told apart at their last byte."""
    one, two = b"k" * 65_534 + b"1", b"k" * 65_534 + b"2"
    db[one] = b"1"
    db.put_many({two: b"2"})
    assert db[one] == b"1"
    assert db.get_many([two, one]) == [b"2", b"1"]
    assert set(db) == {one, two}


def test_views(db: pykv.Store) -> None:
    """keys(), values() and items() are views: iterable, with len, in, and set operators."""
    db.update({b"a": b"1", b"b": b"2", b"c": b"2"})
    keys, values, items = db.keys(), db.values(), db.items()
    assert isinstance(keys, KeysView)
    assert isinstance(values, ValuesView)
    assert isinstance(items, ItemsView)
    assert sorted(keys) == sorted(db) == [b"a", b"b", b"c"]
    assert sorted(values) == [b"1", b"2", b"2"]
    assert sorted(items) == [(b"a", b"1"), (b"b", b"2"), (b"c", b"2")]
    assert len(keys) == len(values) == len(items) == 3
    assert b"a" in keys
    assert b"z" not in keys
    assert b"2" in values
    assert b"3" not in values
    assert (b"a", b"1") in items
    assert (b"a", b"2") not in items
    assert keys & {b"a", b"z"} == {b"a"}
    assert keys | {b"z"} == {b"a", b"b", b"c", b"z"}
    assert items - {(b"a", b"1")} == {(b"b", b"2"), (b"c", b"2")}
    db[b"d"] = b"4"
    assert len(keys) == 4
    assert b"d" in set(keys)


def test_views_with_a_prefix(db: pykv.Store) -> None:
    """A prefix narrows a view to the keys that begin with it, its len and `in` too."""
    db.put_many([(b"a:1", b"x"), (b"a:2", b"y"), (b"a", b"z"), (b"b:1", b"x")])
    assert sorted(db.keys(prefix=b"a:")) == [b"a:1", b"a:2"]
    assert sorted(db.values(prefix=b"a:")) == [b"x", b"y"]
    assert sorted(db.items(prefix=b"a:")) == [(b"a:1", b"x"), (b"a:2", b"y")]
    assert len(db.keys(prefix=b"a:")) == len(db.items(prefix=memoryview(b"a:"))) == 2
    assert len(db.values(prefix=b"nothing")) == 0
    assert b"a:1" in db.keys(prefix=b"a:")
    assert b"b:1" not in db.keys(prefix=b"a:")
    assert (b"b:1", b"x") not in db.items(prefix=b"a:")
    assert b"z" not in db.values(prefix=b"a:")


def test_views_tell_what_they_are(db: pykv.Store) -> None:
    """The repr of a view names its store and prefix, and prints no content."""
    db[b"secret"] = b"secret"
    assert repr(db.keys()) == f"{db!r}.keys()"
    assert repr(db.values(prefix=b"a")) == f"{db!r}.values(prefix=b'a')"
    assert repr(db.items(prefix=b"a")) == f"{db!r}.items(prefix=b'a')"


def test_iteration_over_many(db: pykv.Store) -> None:
    """Iteration gives each key once, however many blocks it takes and however sizes vary."""
    expected = {b"%d" % n: b"v" * (n % 97) for n in range(20_000)}
    db.put_many(expected)
    keys = list(db)
    assert len(keys) == len(expected)
    assert set(keys) == set(expected)
    assert dict(db.items()) == expected
    assert sorted(db.values()) == sorted(expected.values())
    assert len(db.keys(prefix=b"1")) == sum(key.startswith(b"1") for key in expected)


def test_iteration_shows_one_instant(db: pykv.Store) -> None:
    """An iteration shows the store as it was when it began, whatever is written meanwhile."""
    before = {b"%d" % n: b"old" for n in range(5_000)}
    db.put_many(before)
    iteration = iter(db.items())
    seen = dict([next(iteration)])
    db.put_many((key, b"new") for key in before)
    db.put_many((b"new:%d" % n, b"new") for n in range(5_000))
    db.delete_many(list(before)[:1000])
    seen.update(iteration)
    assert seen == before


def test_iteration_begins_with_iter(db: pykv.Store) -> None:
    """The instant of an iteration is that of iter(), not that of the first next()."""
    db[b"a"] = b"1"
    iteration = iter(db)
    db[b"b"] = b"2"
    assert list(iteration) == [b"a"]


def test_deleting_while_iterating(db: pykv.Store) -> None:
    """Unlike a dict, a store may be changed while it is iterated over."""
    db.put_many((b"%d" % n, b"") for n in range(3_000))
    for key in db:
        del db[key]
    assert len(db) == 0


def test_pop(db: pykv.Store) -> None:
    """pop() removes and returns, and falls back on its default."""
    db[b"k"] = b"v"
    assert db.pop(b"k") == b"v"
    assert db.pop(b"k", None) is None
    assert db.pop(b"k", b"default") == b"default"


def test_popitem_empties_the_store(db: pykv.Store) -> None:
    """popitem() hands out each pair once, until the store is empty."""
    expected = {b"%d" % n: b"v%d" % n for n in range(5_000)}
    db.put_many(expected)
    seen = {}
    while db:
        key, value = db.popitem()
        assert key not in seen
        seen[key] = value
    assert seen == expected


def test_popitem_sees_newer_values_and_deletions(db: pykv.Store) -> None:
    """A key that popitem() noted earlier is given with its newest value, or not at all."""
    db.put_many((b"%d" % n, b"old") for n in range(10))
    gone, _ = db.popitem()
    rest = [b"%d" % n for n in range(10) if b"%d" % n != gone]
    db.delete_many(rest[:5])
    db.put_many((key, b"new") for key in rest[5:])
    seen = [db.popitem() for _ in range(4)]
    assert sorted(seen) == sorted((key, b"new") for key in rest[5:])
    with pytest.raises(KeyError):
        db.popitem()


def test_setdefault(db: pykv.Store) -> None:
    """setdefault() stores once and returns what is there, as bytes."""
    assert db.setdefault(b"k", bytearray(b"first")) == b"first"
    assert db.setdefault(b"k", b"second") == b"first"
    assert db[b"k"] == b"first"


def test_update(db: pykv.Store) -> None:
    """update() takes mappings, another store, pairs, and anything with keys() and []."""

    class Keyed:
        def keys(self) -> list[bytes]:
            return [b"4"]

        def __getitem__(self, key: bytes) -> bytes:
            return b"four"

    db.update({b"1": b"one"})
    db.update([(b"2", b"two")])
    db.update((key, b"three") for key in [b"3"])
    db.update(Keyed())
    db.update()
    db.update({})
    db.update(db)
    assert dict(db) == {b"1": b"one", b"2": b"two", b"3": b"three", b"4": b"four"}


def test_update_refuses_keywords(db: pykv.Store) -> None:
    """Keyword arguments would be str keys, so update() has none."""
    with pytest.raises(TypeError):
        db.update(key=b"value")  # type: ignore[call-arg]


def test_clear(db: pykv.Store) -> None:
    """clear() removes every key, and the store goes on working."""
    db.put_many((b"%d" % n, b"") for n in range(1_000))
    db.clear()
    assert len(db) == 0
    assert list(db) == []
    assert db.get(b"1") is None
    db[b"1"] = b"again"
    assert dict(db) == {b"1": b"again"}


def test_equality_is_that_of_mappings(db: pykv.Store) -> None:
    """A store equals a mapping with the same items."""
    db.update({b"a": b"1"})
    assert db == {b"a": b"1"}
    assert db != {b"a": b"2"}


def test_it_stays(path: Path) -> None:
    """What was written is there when the store is opened again."""
    with pykv.open(path) as db:
        db[b"k"] = b"v"
        db.put_many((b"%d" % n, b"v%d" % n) for n in range(1_000))
        del db[b"7"]
    with pykv.open(path, "r") as db:
        assert len(db) == 1_000
        assert db[b"k"] == b"v"
        assert db[b"999"] == b"v999"
        assert b"7" not in db
