"""
test_model.py -- a store beside a plain dict, under any sequence of operations.

Hypothesis chooses operations, runs them on both, and compares after each. Reopening is a move like
any other, and so are compaction, a copy of the directory, the loss of all files but the segments, and a process
that writes and then dies by SIGKILL. Snapshots stay beside copies of the dict of their instants;
transactions run with and without somebody who comes between.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import pykv
from pykv._records import Record, load_batch

# Few keys, so that operations meet; among them the empty, the longest, and prefixes of each other.
KEYS = [b"", b"a", b"ab", b"abc", b"b", b"\0", b"\xff" * 300, b"k" * 65_535]
KEYS += [b"key:%d" % n for n in range(8)]
SIZES = [0, 1, 15, 16, 17, 100, 4_000, 65_536, 70_000, 200_000]

PREFIXES = [b"", b"a", b"ab", b"key:", b"\xff", b"k" * 65_535, b"none"]
keys = st.integers(0, len(KEYS) - 1).map(lambda n: KEYS[n])
prefixes = st.integers(0, len(PREFIXES) - 1).map(lambda n: PREFIXES[n])
values = st.one_of(
    st.binary(max_size=40),
    st.builds(lambda size, byte: bytes([byte]) * size, st.sampled_from(SIZES), st.integers(0, 255)),
)
numbers = st.integers(-(2**40), 2**40)
pairs = st.lists(st.tuples(keys, values), max_size=12)
durables = st.sampled_from([None, None, None, False, True])
ttls = st.sampled_from([None, None, 3_600, 86_400.5])


class Model(RuleBasedStateMachine):
    """The store and the dict; each rule does the same to both."""

    @initialize(
        io=st.sampled_from(["mmap", "pread"]),
        durability=st.sampled_from(["process", "interval", "commit"]),
        segment_bytes=st.sampled_from([None, 1 << 16, 1 << 20]),
    )
    def begin(
        self,
        io: Literal["mmap", "pread"],
        durability: Literal["process", "interval", "commit"],
        segment_bytes: int | None,
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="pykv-model-"))
        self.options: dict[str, Any] = {
            "io": io,
            "durability": durability,
            "segment_bytes": segment_bytes,
        }
        self.path = self.directory / "store.kv"
        self.db = pykv.open(self.path, **self.options)
        self.model: dict[bytes, bytes] = {}
        self.expired: set[bytes] = set()  # keys that did: they may still count
        self.copies = 0
        self.snapshots: list[tuple[pykv.Snapshot, dict[bytes, bytes]]] = []

    def teardown(self) -> None:
        if hasattr(self, "db"):
            try:
                assert self.db.verify().ok
                self.db.close()
            finally:
                shutil.rmtree(self.directory)

    # ---- Writes ----

    @rule(key=keys, value=values)
    def set_item(self, key: bytes, value: bytes) -> None:
        self.db[key] = value
        self.model[key] = value

    @rule(key=keys, value=values, ttl=ttls, durable=durables)
    def put(self, key: bytes, value: bytes, ttl: float | None, durable: bool | None) -> None:
        self.db.put(bytearray(key), memoryview(value), ttl=ttl, durable=durable)
        self.model[key] = value

    @rule(pairs=pairs, ttl=ttls, durable=durables)
    def put_many(
        self, pairs: list[tuple[bytes, bytes]], ttl: float | None, durable: bool | None
    ) -> None:
        self.db.put_many(pairs, ttl=ttl, durable=durable)
        self.model.update(pairs)

    @rule(pairs=pairs.filter(bool), ahead=st.integers(0, 5))
    def load(self, pairs: list[tuple[bytes, bytes]], ahead: int) -> None:
        version = (self.db.stats().version + ahead) or 1
        if load_batch(self.db, version, [Record(key, value, 0, version) for key, value in pairs]):
            assert ahead > 0 or version == 1
            self.model.update(pairs)
            last = self.db.get_with_version(pairs[-1][0])
            assert last == (pairs[-1][1], version)
        else:  # refused, since it is taken; maybe by the removal of what has just expired
            assert self.db.stats().version >= version

    @rule(key=keys)
    def delete(self, key: bytes) -> None:
        assert self.db.delete(key) == (self.model.pop(key, None) is not None)

    @rule(some=st.lists(keys, max_size=10))
    def delete_many(self, some: list[bytes]) -> None:
        expected = len(self.model.keys() & set(some))
        assert self.db.delete_many(some) == expected
        for key in some:
            self.model.pop(key, None)

    @rule(key=keys, default=st.none() | values)
    def pop(self, key: bytes, default: bytes | None) -> None:
        assert self.db.pop(key, default) == self.model.pop(key, default)

    @rule()
    def popitem(self) -> None:
        if self.model:
            key, value = self.db.popitem()
            assert self.model.pop(key) == value
        else:
            with pytest.raises(KeyError):
                self.db.popitem()

    @rule(key=keys, value=values)
    def put_if_absent(self, key: bytes, value: bytes) -> None:
        assert self.db.put_if_absent(key, value) == (key not in self.model)
        self.model.setdefault(key, value)

    @rule(key=keys, value=values)
    def setdefault(self, key: bytes, value: bytes) -> None:
        assert self.db.setdefault(key, value) == self.model.setdefault(key, value)

    @rule(key=keys, expected=st.none() | values, new=st.none() | values, right=st.booleans())
    def compare_and_set(
        self, key: bytes, expected: bytes | None, new: bytes | None, right: bool
    ) -> None:
        if right:
            expected = self.model.get(key)
        held = self.model.get(key) == expected
        assert self.db.compare_and_set(key, expected, new) == held
        if held:
            self._set(key, new)

    @rule(key=keys, by=numbers, ttl=ttls)
    def incr(self, key: bytes, by: int, ttl: float | None) -> None:
        before = self.model.get(key, b"0")
        digits = before.removeprefix(b"-")
        if digits.isdigit() and len(digits) < 18 and digits == b"%d" % int(digits):
            total = self.db.incr(key, by, ttl=ttl)
            assert total == int(before) + by
            self.model[key] = b"%d" % total
        elif not digits.isdigit():
            with pytest.raises(pykv.NotANumberError):
                self.db.incr(key, by, ttl=ttl)

    @rule(key=keys, number=numbers)
    def set_number(self, key: bytes, number: int) -> None:
        self.db[key] = b"%d" % number
        self.model[key] = b"%d" % number

    @rule(key=keys, value=values)
    def put_expired(self, key: bytes, value: bytes) -> None:
        """Write what has expired already: absent at once, and removed some time later."""
        self.db._write(None, [key], [value], [1])
        self.model.pop(key, None)
        self.expired.add(key)

    @rule(
        key=keys,
        how=st.sampled_from(["expire", "touch", "persist"]),
        ttl=st.sampled_from([3_600, 99_999.5]),
    )
    def set_ttl(self, key: bytes, how: str, ttl: float) -> None:
        present = key in self.model
        before = self.db.ttl(key) if present else None
        if how == "persist":
            assert self.db.persist(key) == present
        elif how == "touch":
            assert self.db.touch(key, ttl) == present
        else:
            assert self.db.expire(key, ttl) == present
        if not present:
            with pytest.raises(KeyError):
                self.db.ttl(key)
            return
        after = self.db.ttl(key)
        if how == "persist" or (how == "touch" and before is None):
            assert after is None
        else:
            expected = max(ttl, before or 0) if how == "touch" else ttl
            assert after is not None
            assert expected - 60 < after <= expected

    @rule(
        operations=st.lists(st.tuples(keys, st.none() | values), max_size=12),
        expectations=st.lists(st.tuples(keys, st.integers(0, 3), st.booleans()), max_size=2),
        durable=durables,
    )
    def batch(
        self,
        operations: list[tuple[bytes, bytes | None]],
        expectations: list[tuple[bytes, int, bool]],
        durable: bool | None,
    ) -> None:
        conflict: bytes | None = None
        try:
            with self.db.batch(durable) as batch:
                for key, value in operations:
                    if value is None:
                        del batch[key]
                    else:
                        batch[key] = value
                for key, kind, right in expectations:
                    if not self._expect(batch, key, kind, right) and conflict is None:
                        conflict = key
        except pykv.ConflictError as error:
            assert error.key == conflict
            return
        assert conflict is None
        for key, value in operations:
            self._set(key, value)

    def _expect(self, batch: pykv.Batch, key: bytes, kind: int, right: bool) -> bool:
        """Add a precondition; return whether it holds."""
        present = self.model.get(key)
        found = self.db.get_with_version(key)
        version = 0 if found is None else found[1]
        if kind == 0:
            batch.expect_present(key)
            return present is not None
        if kind == 1:
            batch.expect_absent(key)
            return present is None
        if kind == 2:
            batch.expect_value(key, (present or b"") + b"" if right else b"wrong value")
            return right and present is not None
        batch.expect_version(key, version if right else version + 1)
        return right

    @rule()
    def dropped_batch(self) -> None:
        with pytest.raises(ZeroDivisionError), self.db.batch() as batch:
            batch[b"a"] = b"dropped"
            raise ZeroDivisionError

    @rule()
    def clear(self) -> None:
        self.db.clear()
        self.model.clear()

    @rule()
    def sync(self) -> None:
        self.db.sync()

    def _counts(self, count: int, model: dict[bytes, bytes]) -> bool:
        """Whether *count* can be that of the keys of *model*, and of some that have expired."""
        return len(model) <= count <= len(model.keys() | self.expired)

    def _set(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self.model.pop(key, None)
        else:
            self.model[key] = value

    # ---- Reads ----

    @rule(key=keys)
    def get(self, key: bytes) -> None:
        expected = self.model.get(key)
        assert self.db.get(key) == expected
        assert (key in self.db) == (expected is not None)
        found = self.db.get_with_version(key)
        assert (found and found[0]) == expected
        if expected is None:
            with pytest.raises(KeyError):
                self.db.view(key)
            assert self.db.get_into(key, bytearray()) is None
        else:
            with self.db.view(key) as view:
                assert view == expected
            room = bytearray(len(expected))
            assert self.db.get_into(key, room) == len(expected)
            assert room == expected

    @rule(some=st.lists(keys, max_size=20))
    def get_many(self, some: list[bytes]) -> None:
        assert self.db.get_many(some) == [self.model.get(key) for key in some]
        assert self.db.contains_many(some) == [key in self.model for key in some]

    @rule(prefix=prefixes)
    def scan(self, prefix: bytes) -> None:
        expected = {key: value for key, value in self.model.items() if key.startswith(prefix)}
        pairs = list(self.db.items(prefix=prefix))
        assert len(pairs) == len(expected)
        assert dict(pairs) == expected
        assert sorted(self.db.keys(prefix=prefix)) == sorted(expected)
        assert sorted(self.db.values(prefix=prefix)) == sorted(expected.values())

    @rule(pairs=pairs)
    def scan_during_writes(self, pairs: list[tuple[bytes, bytes]]) -> None:
        iteration = iter(self.db.items())
        expected = dict(self.model)
        self.db.put_many(pairs)
        self.model.update(pairs)
        assert dict(iteration) == expected

    # ---- Snapshots and transactions ----

    @rule()
    def take_snapshot(self) -> None:
        self.snapshots.append((self.db.snapshot(), dict(self.model)))
        if len(self.snapshots) > 4:
            self.snapshots.pop(0)[0].close()

    @rule(number=st.integers(0, 3))
    def close_snapshot(self, number: int) -> None:
        if number < len(self.snapshots):
            snapshot, _ = self.snapshots.pop(number)
            snapshot.close()
            with pytest.raises(pykv.ClosedError):
                len(snapshot)

    @rule(number=st.integers(0, 3), some=st.lists(keys, max_size=8), prefix=prefixes)
    def read_snapshot(self, number: int, some: list[bytes], prefix: bytes) -> None:
        if number < len(self.snapshots):
            snapshot, model = self.snapshots[number]
            assert self._counts(len(snapshot), model)
            assert snapshot.get_many(some) == [model.get(key) for key in some]
            assert [snapshot.get(key) for key in some] == [model.get(key) for key in some]
            pairs = list(snapshot.items(prefix=prefix))
            expected = {key: value for key, value in model.items() if key.startswith(prefix)}
            assert len(pairs) == len(expected)
            assert dict(pairs) == expected

    @rule(
        steps=st.lists(
            st.tuples(
                st.sampled_from(["get", "put", "delete", "scan", "count", "many", "incr"]),
                keys,
                values,
                prefixes,
            ),
            max_size=8,
        ),
        between=st.lists(st.tuples(keys, st.none() | values), max_size=2),
        fails=st.booleans(),
    )
    def transaction(
        self,
        steps: list[tuple[str, bytes, bytes, bytes]],
        between: list[tuple[bytes, bytes | None]],
        fails: bool,
    ) -> None:
        """Steps on the instant of the beginning; it commits if nothing that they read has changed."""
        model, seen = dict(self.model), dict(self.model)
        read: set[bytes] = set()
        scanned: set[bytes] = set()
        written: set[bytes] = set()
        changed: set[bytes] = set()
        try:
            with self.db.transaction() as t:
                for key, value in between:  # comes between: all reads are of before
                    found = self.db.get(key)
                    if value is not None or found is not None:
                        changed.add(key)
                    if value is None:
                        self.db.delete(key)
                    else:
                        self.db[key] = value
                    self._set(key, value)
                for kind, key, value, prefix in steps:
                    if kind == "incr" and seen.get(key, b"0") != b"0":
                        continue
                    if kind in ("get", "delete", "many", "incr") and key not in written:
                        read.add(key)
                    if kind == "get":
                        assert t.get(key) == seen.get(key)
                    elif kind == "many":
                        assert t.get_many([key, key]) == [seen.get(key)] * 2
                    elif kind == "put":
                        t[key] = seen[key] = value
                        written.add(key)
                    elif kind == "delete":
                        if t.delete(key):
                            written.add(key)
                        seen.pop(key, None)
                    elif kind == "incr":
                        assert t.incr(key) == 1
                        seen[key] = b"1"
                        written.add(key)
                    elif kind == "scan":
                        scanned.add(prefix)
                        assert dict(t.items(prefix=prefix)) == {
                            key: value for key, value in seen.items() if key.startswith(prefix)
                        }
                    elif kind == "count":
                        scanned.add(b"")
                        assert self._counts(len(t), seen)
                if fails:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            return
        except pykv.ConflictError as error:
            assert written
            assert error.key in scanned | read
            assert any(
                key in read or any(key.startswith(prefix) for prefix in scanned) for key in changed
            )
            return
        if written:
            for key in changed:
                assert key not in read or self._same_absence(key, model)
                assert not any(key.startswith(prefix) for prefix in scanned)
            for key in written:
                self._set(key, seen.get(key))

    def _same_absence(self, key: bytes, before: dict[bytes, bytes]) -> bool:
        """Whether a key was absent before somebody came between, and is again."""
        return key not in before and key not in self.model

    @rule()
    def verify(self) -> None:
        assert self.db.verify().ok

    # ---- Compaction ----

    @rule()
    def compact(self) -> None:
        self.db.compact()

    @rule(paused=st.booleans())
    def pause_compaction(self, paused: bool) -> None:
        if paused:
            self.db.pause_compaction()
        else:
            self.db.resume_compaction()

    # ---- Ends ----

    @rule()
    def reopen(self) -> None:
        self._close()
        self.db = pykv.open(self.path, "w", **self.options)

    @rule()
    def reopen_read_only(self) -> None:
        self._close()
        with pykv.open(self.path, "r", **self.options) as db:
            assert dict(db.items()) == self.model
            with pytest.raises(pykv.ReadOnlyError):
                db[b"a"] = b""
        self.db = pykv.open(self.path, "w", **self.options)

    @rule()
    def reopen_from_segments(self) -> None:
        self._close()
        only_segments(self.path)
        self.db = pykv.open(self.path, "w", **self.options)

    @rule()
    def reopen_from_checkpoint(self) -> None:
        self._close()
        (self.path / "keydir").unlink()
        self.db = pykv.open(self.path, "w", **self.options)

    @rule(segments=st.booleans())
    def reopen_a_copy(self, segments: bool) -> None:
        self._close()
        self.copies += 1
        copy = self.directory / f"copy{self.copies}.kv"
        shutil.copytree(self.path, copy)
        shutil.rmtree(self.path)
        self.path = copy
        if segments:
            only_segments(self.path)
        self.db = pykv.open(self.path, "w", **self.options)

    @rule(
        operations=st.lists(st.tuples(keys, st.none() | values), max_size=12),
        as_batch=st.booleans(),
        compacts=st.booleans(),
        segments=st.booleans(),
    )
    def kill(
        self,
        operations: list[tuple[bytes, bytes | None]],
        as_batch: bool,
        compacts: bool,
        segments: bool,
    ) -> None:
        """Another process writes and dies at once; all it had acknowledged is there."""
        self._close()
        child = os.fork()
        if child == 0:
            try:
                write_and_die(self.path, self.options, operations, as_batch, compacts)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
        for key, value in operations:
            self._set(key, value)
        if segments:
            only_segments(self.path)
        self.db = pykv.open(self.path, "w", **self.options)

    def _close(self) -> None:
        """Close the store, and with it the snapshots, which then refuse use."""
        self.db.close()
        for snapshot, _ in self.snapshots:
            with pytest.raises(pykv.ClosedError):
                snapshot.get(b"a")
        self.snapshots.clear()

    @invariant()
    def same_size(self) -> None:
        if hasattr(self, "db"):
            assert self._counts(len(self.db), self.model)


def write_and_die(
    path: Path,
    options: dict[str, Any],
    operations: list[tuple[bytes, bytes | None]],
    as_batch: bool,
    compacts: bool,
) -> None:
    """Apply operations, and be killed the moment after the last was acknowledged."""
    db = pykv.open(path, "w", **options)
    if compacts:  # beside what follows
        threading.Thread(target=db.compact, daemon=True).start()
    if as_batch:
        with db.batch() as batch:
            for key, value in operations:
                if value is None:
                    batch.delete(key)
                else:
                    batch.put(key, value)
    else:
        for key, value in operations:
            if value is None:
                db.delete(key)
            else:
                db.put(key, value)
    os.kill(os.getpid(), signal.SIGKILL)


def only_segments(path: Path) -> None:
    """Remove all that can be made again from the segments of the log."""
    for file in path.iterdir():
        if not file.name.startswith("segment-"):
            file.unlink()


TestModel = Model.TestCase
TestModel.settings = settings(
    max_examples=60,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
