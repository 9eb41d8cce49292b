"""What is accepted as key, value, ttl and option, and what is refused with a clear message."""

from __future__ import annotations

import ctypes
import os
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pykv

# Every method that takes a key, by a call with that key alone.
WITH_KEY: dict[str, Callable[[pykv.Store, Any], object]] = {
    "[]": lambda db, key: db[key],
    "[]=": lambda db, key: db.__setitem__(key, b""),
    "del": lambda db, key: db.__delitem__(key),
    "in": lambda db, key: key in db,
    "get": lambda db, key: db.get(key),
    "get_many": lambda db, key: db.get_many([b"first", key]),
    "get_into": lambda db, key: db.get_into(key, bytearray(10)),
    "get_with_version": lambda db, key: db.get_with_version(key),
    "contains_many": lambda db, key: db.contains_many([b"first", key]),
    "view": lambda db, key: db.view(key),
    "put": lambda db, key: db.put(key, b""),
    "put_many": lambda db, key: db.put_many([(b"first", b""), (key, b"")]),
    "put_if_absent": lambda db, key: db.put_if_absent(key, b""),
    "compare_and_set": lambda db, key: db.compare_and_set(key, None, b""),
    "incr": lambda db, key: db.incr(key),
    "delete": lambda db, key: db.delete(key),
    "delete_many": lambda db, key: db.delete_many([b"first", key]),
    "pop": lambda db, key: db.pop(key),
    "setdefault": lambda db, key: db.setdefault(key, b""),
    "update": lambda db, key: db.update([(key, b"")]),
    "keys in": lambda db, key: key in db.keys(),  # noqa: SIM118
    "items in": lambda db, key: (key, b"") in db.items(),
}

# Every method that takes a value.
WITH_VALUE: dict[str, Callable[[pykv.Store, Any], object]] = {
    "[]=": lambda db, value: db.__setitem__(b"k", value),
    "put": lambda db, value: db.put(b"k", value),
    "put_many": lambda db, value: db.put_many([(b"first", b""), (b"k", value)]),
    "put_if_absent": lambda db, value: db.put_if_absent(b"k", value),
    "compare_and_set": lambda db, value: db.compare_and_set(b"k", None, value),
    "setdefault": lambda db, value: db.setdefault(b"k", value),
    "update": lambda db, value: db.update([(b"k", value)]),
}

EIGHT_BYTES = b"\1\0\2\0\3\0\4\0"
BUFFERS: list[Any] = [
    EIGHT_BYTES,
    bytearray(EIGHT_BYTES),
    memoryview(EIGHT_BYTES),
    memoryview(b"--" + EIGHT_BYTES)[2:],
    array("H", [1, 2, 3, 4]),
    memoryview(array("H", [1, 2, 3, 4])),
    memoryview(EIGHT_BYTES).cast("B", (2, 4)),
    (ctypes.c_uint16 * 4)(1, 2, 3, 4),
    type("Bytes", (bytes,), {})(EIGHT_BYTES),
]


@pytest.mark.parametrize("method", WITH_KEY)
@pytest.mark.parametrize("key", [None, 5, 1.5, [107], (107,), {107}, object()])
def test_keys_of_other_types(db: pykv.Store, method: str, key: object) -> None:
    """A key that is no buffer is a TypeError that names its type, and changes nothing."""
    with pytest.raises(pykv.NotBytesError, match=f"key.*{type(key).__name__}") as caught:
        WITH_KEY[method](db, key)
    assert isinstance(caught.value, TypeError)
    assert len(db) == 0


@pytest.mark.parametrize("method", WITH_KEY)
def test_str_keys(db: pykv.Store, method: str) -> None:
    """A str as key is refused with a message that shows the remedy."""
    with pytest.raises(pykv.NotBytesError, match=r"'user:1'\.encode\(\)"):
        WITH_KEY[method](db, "user:1")
    assert len(db) == 0


@pytest.mark.parametrize("method", WITH_VALUE)
def test_str_values(db: pykv.Store, method: str) -> None:
    """A str as value is refused with a message that shows the remedy, shortened if long."""
    with pytest.raises(pykv.NotBytesError, match=r"value.*'text'\.encode\(\)"):
        WITH_VALUE[method](db, "text")
    with pytest.raises(pykv.NotBytesError) as caught:
        WITH_VALUE[method](db, "x" * 1_000_000)
    assert len(str(caught.value)) < 200
    assert len(db) == 0


@pytest.mark.parametrize("method", WITH_VALUE)
@pytest.mark.parametrize("value", [5, 1.5, [118], (118,)])
def test_values_of_other_types(db: pykv.Store, method: str, value: object) -> None:
    """A value that is no buffer is a TypeError that names its type, and changes nothing."""
    with pytest.raises(pykv.NotBytesError, match=f"value.*{type(value).__name__}"):
        WITH_VALUE[method](db, value)
    assert len(db) == 0


def test_none_is_no_value(db: pykv.Store) -> None:
    """None is refused as a value, but for compare_and_set(), where it means absence."""
    for method in WITH_VALUE.keys() - {"compare_and_set"}:
        with pytest.raises(TypeError, match="NoneType"):
            WITH_VALUE[method](db, None)
    assert len(db) == 0


@pytest.mark.parametrize("method", WITH_KEY)
def test_too_long_keys(db: pykv.Store, method: str) -> None:
    """A key of 65,536 bytes is refused with both sizes named, and changes nothing."""
    with pytest.raises(pykv.KeySizeError, match=r"65,535.*65,536") as caught:
        WITH_KEY[method](db, b"k" * 65_536)
    assert isinstance(caught.value, ValueError)
    assert caught.value.size == 65_536
    assert len(db) == 0


@pytest.mark.parametrize("method", WITH_KEY)
def test_keys_that_are_not_contiguous(db: pykv.Store, method: str) -> None:
    """A strided memoryview is refused: it is no C-contiguous buffer."""
    with pytest.raises(pykv.NotBytesError, match="contiguous"):
        WITH_KEY[method](db, memoryview(b"abcdef")[::2])


@pytest.mark.parametrize("buffer", BUFFERS, ids=lambda buffer: type(buffer).__name__)
def test_buffers_as_keys_and_values(db: pykv.Store, buffer: Any) -> None:
    """Any C-contiguous buffer counts by its bytes, whatever its items and shape."""
    db[buffer] = buffer
    assert dict(db) == {EIGHT_BYTES: EIGHT_BYTES}
    assert db[buffer] == db.get(buffer) == db.view(buffer) == EIGHT_BYTES
    assert buffer in db
    assert db.get_many([b"other", buffer, b"x"]) == [None, EIGHT_BYTES, None]
    assert db.contains_many([buffer, b"other"]) == [True, False]
    assert db.get_with_version(buffer) is not None
    assert db.delete(buffer)
    db.put_many([(b"a", b"1"), (buffer, buffer), (b"b", b"2")])
    assert dict(db) == {b"a": b"1", EIGHT_BYTES: EIGHT_BYTES, b"b": b"2"}
    assert db.delete_many([buffer, b"a", b"b"]) == 3
    assert db.put_if_absent(buffer, buffer)
    assert db.compare_and_set(buffer, buffer, b"new")
    assert db.pop(buffer) == b"new"
    with db.batch() as batch:
        batch[buffer] = buffer
    assert dict(db) == {EIGHT_BYTES: EIGHT_BYTES}


def test_lengths_that_lie(db: pykv.Store) -> None:
    """A subclass of bytes with a false len() is taken by its true bytes."""

    class Liar(bytes):
        def __len__(self) -> int:
            return 1_000

    liar = Liar(b"abc")
    db[liar] = liar
    db.put_many([(liar, liar), (b"x", liar)])
    assert dict(db) == {b"abc": b"abc", b"x": b"abc"}
    assert db.get_many([liar]) == [b"abc"]


def test_mutable_buffers_are_left_alone(db: pykv.Store) -> None:
    """A bytearray may be changed and resized after the call; what was stored stays."""
    key, value = bytearray(b"key"), bytearray(b"value" * 20_000)
    db[key] = value
    db.put(b"other", value)
    key.append(33)
    value.clear()
    assert dict(db) == {b"key": b"value" * 20_000, b"other": b"value" * 20_000}


@pytest.mark.parametrize("ttl", [0, -1, -0.5, float("nan"), float("inf"), 1e300, 10**30])
def test_ttl_out_of_range(db: pykv.Store, ttl: float) -> None:
    """A ttl that is not positive, or not finite, or absurd, is a ValueError."""
    for write in (
        lambda: db.put(b"k", b"v", ttl=ttl),
        lambda: db.put_many({b"k": b"v"}, ttl=ttl),
        lambda: db.incr(b"k", ttl=ttl),
        lambda: db.batch().put(b"k", b"v", ttl=ttl),
    ):
        with pytest.raises(pykv.InvalidError, match="ttl"):
            write()
    assert len(db) == 0


def test_ttl_of_another_type(db: pykv.Store) -> None:
    """A ttl that is no number is a TypeError."""
    with pytest.raises(TypeError, match="ttl"):
        db.put(b"k", b"v", ttl="60")  # type: ignore[arg-type]


@pytest.mark.parametrize("durable", ["yes", 2, []])
def test_durable_of_another_type(db: pykv.Store, durable: Any) -> None:
    """A durable that is neither a bool nor None is a TypeError."""
    with pytest.raises(TypeError, match="durable"):
        db.put(b"k", b"v", durable=durable)
    with pytest.raises(TypeError, match="durable"):
        db.put_many({b"k": b"v"}, durable=durable)
    with pytest.raises(TypeError, match="durable"):
        db.batch(durable)
    assert len(db) == 0


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("flag", "x"),
        ("flag", ""),
        ("durability", "always"),
        ("io", "direct"),
        ("interval_ms", 0),
        ("interval_ms", 3_600_001),
        ("segment_bytes", 65_535),
        ("segment_bytes", (1 << 30) + 1),
        ("max_disk_bytes", 0),
        ("max_disk_bytes", -1),
        ("max_disk_bytes", 1 << 64),
        ("expected_keys", -1),
        ("expected_keys", 1 << 64),
        ("mode", 0),
        ("mode", 0o440),
        ("mode", 0o1000),
    ],
)
def test_options_out_of_range(path: Path, option: str, value: Any) -> None:
    """An option out of its range is a ValueError that names it, and nothing is created."""
    with pytest.raises(pykv.InvalidError, match=option) as caught:
        pykv.open(path, **{option: value})
    assert isinstance(caught.value, ValueError)
    assert not path.exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("flag", None),
        ("flag", 2),
        ("durability", 0),
        ("io", b"mmap"),
        ("interval_ms", 1.5),
        ("interval_ms", None),
        ("segment_bytes", "64K"),
        ("max_disk_bytes", 1e9),
        ("expected_keys", "many"),
        ("mode", "600"),
    ],
)
def test_options_of_other_types(path: Path, option: str, value: Any) -> None:
    """An option of another type is a TypeError that names it, and nothing is created."""
    with pytest.raises(TypeError, match=option):
        pykv.open(path, **{option: value})
    assert not path.exists()


def test_modes_are_shown_in_octal(path: Path) -> None:
    """As they are written: who reads of 384 has to look twice."""
    with pytest.raises(pykv.InvalidError, match=r"0o600 to 0o777, .* not 0o440$"):
        pykv.open(path, mode=0o440)


def test_options_in_range(path: Path) -> None:
    """The limits of the options are themselves allowed."""
    least: dict[str, Any] = {"interval_ms": 1, "segment_bytes": 65_536, "expected_keys": 0}
    most: dict[str, Any] = {
        "interval_ms": 3_600_000,
        "max_disk_bytes": (1 << 63) - 1,
        "expected_keys": 100_000,
    }
    for options in (least, most):
        with pykv.open(path, "n", **options) as db:
            db[b"k"] = b"v"
            assert db[b"k"] == b"v"


def test_kinds_of_paths(tmp_path: Path) -> None:
    """A path may be str, bytes or path-like, with any characters; Store.path is a str."""
    for n, path in enumerate([tmp_path / "a", str(tmp_path / "ü b"), os.fsencode(tmp_path / "c")]):
        with pykv.open(path) as db:
            db[b"n"] = b"%d" % n
            assert db.path == os.fsdecode(path)
        with pykv.open(path, "r") as db:
            assert db[b"n"] == b"%d" % n


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(pykv.InvalidError, match="a path has 1 to 511 bytes, not 512"):
        pykv.open("x" * 512)


def test_paths_that_are_none(tmp_path: Path) -> None:
    """What is no path is a TypeError, and a null byte in it a ValueError."""
    with pytest.raises(TypeError):
        pykv.open(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        pykv.open(5)  # type: ignore[arg-type]
    with pytest.raises(pykv.InvalidError, match="null"):
        pykv.open(str(tmp_path / "a\0b"))
