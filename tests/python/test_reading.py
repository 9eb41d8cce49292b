"""The ways of reading beyond those of a dict."""

from __future__ import annotations

from array import array

import pytest

import pykv


def test_get_many_keeps_order_and_count(db: pykv.Store) -> None:
    """get_many() answers key by key: present, absent, empty, repeated."""
    db.update({b"a": b"1", b"b": b"", b"c": b"333"})
    asked = [b"c", b"absent", b"a", b"b", b"c", b""]
    assert db.get_many(asked) == [b"333", None, b"1", b"", b"333", None]
    assert db.get_many(asked, b"?") == [b"333", b"?", b"1", b"", b"333", b"?"]
    assert db.get_many(iter(asked), 0) == [b"333", 0, b"1", b"", b"333", 0]
    assert db.get_many([]) == []
    assert db.get_many([b"absent"]) == [None]


def test_get_many_of_thousands(db: pykv.Store) -> None:
    """get_many() agrees with get() whatever the sizes, also after very large results."""
    db.put_many((b"%d" % n, b"v" * (n % 300)) for n in range(5_000))
    keys = [b"%d" % n for n in range(0, 10_000, 3)]
    assert db.get_many(keys) == [db.get(key) for key in keys]
    db[b"large"] = b"x" * 2_000_000
    assert db.get_many([b"large", b"299"]) == [b"x" * 2_000_000, b"v" * 299]
    assert db.get_many(keys) == [db.get(key) for key in keys]


def test_contains_many(db: pykv.Store) -> None:
    """contains_many() answers key by key, with bools."""
    db.update({b"a": b"", b"b": b"2"})
    assert db.contains_many([b"a", b"c", b"b", b"a"]) == [True, False, True, True]
    assert db.contains_many([]) == []
    assert type(db.contains_many([b"a"])[0]) is bool


def test_get_into(db: pykv.Store) -> None:
    """get_into() fills the start of a buffer and tells how many bytes it wrote."""
    db.update({b"k": b"value", b"empty": b""})
    room = bytearray(b"." * 8)
    assert db.get_into(b"k", room) == 5
    assert room == b"value..."
    assert db.get_into(b"empty", room) == 0
    assert db.get_into(b"empty", bytearray()) == 0
    assert db.get_into(b"absent", room) is None
    assert room == b"value..."
    window = memoryview(room)[3:]
    assert db.get_into(b"k", window) == 5
    assert room == b"valvalue"
    numbers = array("H", [0, 0, 0])
    assert db.get_into(b"k", numbers) == 5
    assert numbers.tobytes() == b"value\0"


def test_get_into_a_small_buffer(db: pykv.Store) -> None:
    """get_into() copies nothing into a buffer that is too small, and tells the size needed."""
    db[b"k"] = b"value"
    room = bytearray(b"....")
    with pytest.raises(pykv.BufferSizeError, match="5") as caught:
        db.get_into(b"k", room)
    assert isinstance(caught.value, ValueError)
    assert caught.value.size == 5
    assert room == b"...."
    room.append(0)  # the failed call holds the buffer no longer
    assert db.get_into(b"k", room) == 5


def test_get_into_a_read_only_buffer(db: pykv.Store) -> None:
    """get_into() refuses what cannot be written to."""
    db[b"k"] = b"value"
    for buffer in (b"........", memoryview(b"........"), memoryview(bytearray(20))[::2]):
        with pytest.raises(pykv.NotBytesError):
            db.get_into(b"k", buffer)
    with pytest.raises(TypeError):
        db.get_into(b"k", None)  # type: ignore[arg-type]


def test_view(db: pykv.Store) -> None:
    """view() lends the value, read-only, until it is released."""
    value = bytes(range(256)) * 1_000
    db.update({b"k": value, b"empty": b""})
    view = db.view(b"k")
    assert view.readonly
    assert view.format == "B"
    assert view.nbytes == len(value)
    assert view == value
    assert bytes(view[300:310]) == value[300:310]
    view.release()
    with pytest.raises(ValueError, match="released"):
        view[0]
    with db.view(b"empty") as view:
        assert bytes(view) == b""


def test_views_do_not_change(db: pykv.Store) -> None:
    """The bytes of a view stay as they are when the key is overwritten, deleted, cleared."""
    db[b"k"] = b"first"
    with db.view(b"k") as view:
        db[b"k"] = b"other"
        assert view == b"first"
        del db[b"k"]
        assert view == b"first"
        db.clear()
        db.put_many((b"%d" % n, b"x" * 1_000) for n in range(3_000))
        assert view == b"first"


def test_versions_grow(db: pykv.Store) -> None:
    """A version is positive, grows with every write, and is one for a whole batch."""
    assert db.get_with_version(b"a") is None
    db[b"a"] = b"1"
    first = db.get_with_version(b"a")
    db.put_many({b"a": b"2", b"b": b"2"})
    a, b = db.get_with_version(b"a"), db.get_with_version(b"b")
    assert first is not None
    assert a is not None
    assert b is not None
    assert first[0] == b"1"
    assert a[0] == b[0] == b"2"
    assert 0 < first[1] < a[1] == b[1] == db.stats().version


def test_stats(db: pykv.Store) -> None:
    """stats() tells figures that fit together."""
    db.put_many((b"%d" % n, b"x" * 100) for n in range(1_000))
    db.put_many((b"%d" % n, b"y" * 100) for n in range(500))
    stats = db.stats()
    assert stats.keys == len(db) == 1_000
    assert stats.version > 0
    assert stats.segments >= 1
    assert stats.live_bytes >= 1_000 * 103
    assert stats.dead_bytes >= 500 * 103
    assert stats.log_bytes == stats.live_bytes + stats.dead_bytes
    assert stats.disk_bytes >= stats.log_bytes
    assert stats.keydir_bytes >= 8 * stats.keys
    assert stats.processes >= 1
    with pytest.raises(AttributeError):
        stats.keys = 0  # type: ignore[misc]


def test_verify(db: pykv.Store) -> None:
    """verify() of a whole store counts what it read and lists no damage."""
    db.put_many((b"%d" % n, b"x" * 100) for n in range(1_000))
    report = db.verify()
    assert report.ok
    assert report.damage_count == 0
    assert report.damage == ()
    assert report.records >= 1_000
    assert report.segments >= 1
    assert report.bytes >= 1_000 * 103


def test_verify_tells_how_far_it_is(db: pykv.Store) -> None:
    """The last call says that all is done; what the function raises ends the verification."""
    db[b"k"] = b"v"
    told: list[tuple[int, int]] = []
    assert db.verify(lambda done, total: told.append((done, total))).ok
    assert told == sorted(told) and told[-1][0] == told[-1][1] > 0

    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        db.verify(stop)
    assert db.verify().ok
