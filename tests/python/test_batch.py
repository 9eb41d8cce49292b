"""A batch is applied wholly or not at all."""

from __future__ import annotations

import pytest

import pykv


def test_a_batch_is_applied_at_its_end(db: pykv.Store) -> None:
    """Nothing is written before the block ends; then all is, under one version."""
    db[b"old"] = b"x"
    with db.batch() as batch:
        batch[b"a"] = b"1"
        batch.put(b"b", b"2", ttl=3_600)
        del batch[b"old"]
        batch.delete(b"absent")
        assert dict(db) == {b"old": b"x"}
        assert batch.version is None
        assert len(batch) == 4
    assert dict(db) == {b"a": b"1", b"b": b"2"}
    assert db.get_with_version(b"a") == (b"1", batch.version)
    assert db.get_with_version(b"b") == (b"2", batch.version)


def test_an_exception_drops_a_batch(db: pykv.Store) -> None:
    """A batch whose block raises writes nothing, and the exception goes on."""
    with pytest.raises(ZeroDivisionError), db.batch() as batch:
        batch[b"a"] = b"1"
        raise ZeroDivisionError
    assert len(db) == 0
    assert batch.version is None


def test_the_last_operation_wins(db: pykv.Store) -> None:
    """Of several operations on one key in a batch, the last one counts."""
    with db.batch() as batch:
        batch[b"a"] = b"1"
        batch[b"a"] = b"2"
        batch[b"b"] = b"1"
        del batch[b"b"]
        del batch[b"c"]
        batch[b"c"] = b"1"
    assert dict(db) == {b"a": b"2", b"c": b"1"}


def test_an_empty_batch_does_nothing(db: pykv.Store) -> None:
    """A batch without operations writes nothing and gets no version."""
    before = db.stats().version
    with db.batch() as batch:
        pass
    assert batch.version is None
    assert db.stats().version == before


def test_buffers_are_copied_when_noted(db: pykv.Store) -> None:
    """A buffer that changes after it was noted does not change the batch."""
    key, value = bytearray(b"key"), bytearray(b"value")
    with db.batch() as batch:
        batch[key] = value
        key[:] = b"xxx"
        value[:] = b"yyyyy"
        value.append(0)
    assert dict(db) == {b"key": b"value"}


def test_preconditions_that_hold(db: pykv.Store) -> None:
    """A batch whose preconditions hold is applied; preconditions write nothing."""
    db[b"k"] = b"v"
    found = db.get_with_version(b"k")
    assert found is not None
    with db.batch() as batch:
        batch.expect_present(b"k")
        batch.expect_absent(b"other")
        batch.expect_value(b"k", bytearray(b"v"))
        batch.expect_version(b"k", found[1])
        batch.expect_version(b"other", 0)
        batch[b"done"] = b"1"
    assert dict(db) == {b"k": b"v", b"done": b"1"}


@pytest.mark.parametrize(
    ("expectation", "key", "arguments"),
    [
        ("expect_present", b"absent", ()),
        ("expect_absent", b"k", ()),
        ("expect_value", b"k", (b"w",)),
        ("expect_value", b"k", (b"v ",)),
        ("expect_value", b"absent", (b"",)),
        ("expect_version", b"k", (0,)),
        ("expect_version", b"k", (2**40,)),
        ("expect_version", b"absent", (1,)),
    ],
)
def test_preconditions_that_do_not_hold(
    db: pykv.Store, expectation: str, key: bytes, arguments: tuple[object, ...]
) -> None:
    """A batch with a precondition that does not hold writes nothing, and names the key."""
    db[b"k"] = b"v"
    with pytest.raises(pykv.ConflictError) as caught, db.batch() as batch:
        batch.expect_present(b"k")
        batch[b"a"] = b"1"
        getattr(batch, expectation)(key, *arguments)
        batch[b"b"] = b"2"
    assert caught.value.key == key
    assert repr(key) in str(caught.value)
    assert isinstance(caught.value, RuntimeError)
    assert dict(db) == {b"k": b"v"}


def test_preconditions_see_the_store_before_the_batch(db: pykv.Store) -> None:
    """Preconditions are judged before all writes of the batch, wherever they stand."""
    with db.batch() as batch:
        batch[b"k"] = b"v"
        batch.expect_absent(b"k")
    assert db[b"k"] == b"v"
    with pytest.raises(pykv.ConflictError), db.batch() as batch:
        del batch[b"k"]
        batch.expect_absent(b"k")
    assert db[b"k"] == b"v"


def test_versions_tell_of_any_write(db: pykv.Store) -> None:
    """expect_version() notices a write of an equal value, where expect_value() does not."""
    db[b"k"] = b"v"
    found = db.get_with_version(b"k")
    assert found is not None
    db[b"k"] = b"v"
    with db.batch() as batch:
        batch.expect_value(b"k", b"v")
    with pytest.raises(pykv.ConflictError), db.batch() as batch:
        batch.expect_version(b"k", found[1])


def test_a_batch_ends_once(db: pykv.Store) -> None:
    """A batch that has ended takes no more notes, and is not applied again."""
    with db.batch() as batch:
        batch[b"a"] = b"1"
    for act in (
        lambda: batch.__setitem__(b"b", b"2"),
        lambda: batch.delete(b"b"),
        lambda: batch.expect_absent(b"b"),
    ):
        with pytest.raises(pykv.ClosedError):
            act()
    db.clear()
    with batch:
        pass
    assert len(db) == 0


def test_a_wrong_argument_drops_the_batch(db: pykv.Store) -> None:
    """A refused argument raises where it stands, and so drops the batch."""
    with pytest.raises(pykv.NotBytesError), db.batch() as batch:
        batch[b"a"] = b"1"
        batch["b"] = b"2"  # type: ignore[index]
    with pytest.raises(pykv.KeySizeError), db.batch() as batch:
        batch[b"k" * 65_536] = b""
    with pytest.raises(pykv.InvalidError), db.batch() as batch:
        batch.expect_version(b"a", -1)
    assert len(db) == 0


def test_large_batches(db: pykv.Store) -> None:
    """A batch may be larger than a segment."""
    with db.batch() as batch:
        for n in range(300):
            batch[b"%d" % n] = bytes([n % 256]) * 10_000
    assert len(db) == 300
    assert db[b"299"] == bytes([43]) * 10_000


def test_batches_tell_what_they_are(db: pykv.Store) -> None:
    """The repr of a batch tells its state and size, and prints no content."""
    with db.batch() as batch:
        batch[b"secret"] = b"secret"
        assert repr(batch) == "<pykv.Batch, open, operations: 1>"
    assert repr(batch) == "<pykv.Batch, ended, operations: 1>"
