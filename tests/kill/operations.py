"""
operations.py -- what processes do until they are killed, and what must then be there.

A worker's operations follow from its seed and from what it finds of its own keys, which nobody else
writes. So a dict beside the store knows the result of each call and the content after it, in the
worker as in the one who kills it. The exception is `clear`, which anybody may call, at any moment:
each worker keeps a key `alive`, and where that is gone, so was all that it had before.
"""

from __future__ import annotations

import mmap
import random
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import pykv

Operation = tuple[Any, ...]
Model = dict[bytes, bytes]

NOTHING, AFTER, BEFORE = 0, 1, 2  # what cleared the store: nobody, or somebody around the operation
ALIVE = b"alive"
MARKS = 6


# ---- Which operations ----


def operations(seed: int, prefix: bytes = b"", clears: bool = True) -> Iterator[Operation]:
    """Yield what a worker does, without end."""
    choose = random.Random(seed)
    sizes = [0, 5, 100, 100, 100, 900, 3_000]

    def key() -> bytes:
        return prefix + b"key:%d" % choose.randrange(200)

    def value() -> bytes:
        size = choose.choice(sizes)
        if choose.random() < 0.004:
            size = choose.choice([70_000, 200_000, 1_300_000])  # more than a segment, than a map
        return b"%016x" % choose.getrandbits(64) * (size // 16) + b"." * (size % 16)

    def changes(most: int) -> dict[bytes, bytes | None]:
        return {
            key(): None if choose.random() < 0.4 else value()
            for _ in range(choose.randrange(1, most))
        }

    while True:
        kind = choose.random()
        if kind < 0.25:
            yield "put", key(), value(), choose.random() < 0.02
        elif kind < 0.30:
            yield "put_many", {key(): value() for _ in range(choose.randrange(1, 20))}
        elif kind < 0.38:
            yield "delete", key()
        elif kind < 0.40:
            yield "delete_many", [key() for _ in range(20)]
        elif kind < 0.50:
            # Marks: one batch writes the same token under all keys of a group.
            group, token = choose.randrange(5), b"%016x" % choose.getrandbits(64)
            marks = {prefix + b"mark:%d:%d" % (group, n): token for n in range(MARKS)}
            yield "batch", marks, choose.random() < 0.02
        elif kind < 0.56:
            yield "batch", changes(40), choose.random() < 0.02
        elif kind < 0.60:
            yield "batch_if", key(), choose.random() < 0.7, changes(10)
        elif kind < 0.68:
            yield "incr", prefix + b"count:%d" % choose.randrange(3), choose.randrange(-5, 100)
        elif kind < 0.74:
            new = None if choose.random() < 0.3 else value()
            yield "compare_and_set", key(), choose.random() < 0.7, new
        elif kind < 0.79:
            yield "put_if_absent", key(), value()
        elif kind < 0.86:
            yield "transaction", prefix, [key() for _ in range(3)], changes(5)
        elif kind < 0.97:
            name = choose.choice(["get", "view", "get_many", "contains_many", "version"])
            yield name, [key() for _ in range(5)]
        elif kind < 0.985:
            yield choose.choice(["snapshot", "scan"]), prefix
        elif kind < 0.997:
            yield ("sync",)
        elif kind < 0.998 or not clears:
            yield ("verify",)
        else:
            yield ("clear",)


def resolve(operation: Operation, model: Model) -> Operation:
    """Fill in the value that it shall expect: that of the model, or another."""
    if operation[0] in ("batch_if", "compare_and_set"):
        name, key, right, what = operation
        return name, key, model.get(key) if right else b"never written", what
    return operation


# ---- Done to a store, and to a dict ----


def apply(db: pykv.Store, operation: Operation) -> Any:
    """Do it to the store, and return its result."""
    match operation:
        case "put", key, value, durable:
            db.put(key, value, durable=durable or None)
        case "put_many", pairs:
            db.put_many(pairs)
        case "delete", key:
            return db.delete(key)
        case "delete_many", keys:
            return db.delete_many(keys)
        case "batch", changes, durable:
            with db.batch(durable=durable or None) as batch:
                note(batch, changes)
        case "batch_if", key, expected, changes:
            found = db.get_with_version(key)
            try:
                with db.batch() as batch:
                    if expected is None:
                        batch.expect_absent(key)
                    else:
                        batch.expect_value(key, expected)
                    batch.expect_version(key, 0 if found is None else found[1])
                    note(batch, changes)
            except pykv.ConflictError:
                return False
            return True
        case "incr", key, by:
            return db.incr(key, by)
        case "compare_and_set", key, expected, new:
            return db.compare_and_set(key, expected, new)
        case "put_if_absent", key, value:
            return db.put_if_absent(key, value)
        case "transaction", prefix, keys, changes:

            def function(t: pykv.Transaction) -> Any:
                seen = [t.get(key) for key in keys], dict(t.items(prefix=prefix + b"mark:0"))
                note(t, changes)
                return seen

            return db.transact(function, retries=1_000)
        case "get", keys:
            return [db.get(key) for key in keys[:1]]
        case "view", keys:
            try:
                with db.view(keys[0]) as view:
                    return [bytes(view)]
            except KeyError:
                return [None]
        case "get_many", keys:
            return db.get_many(keys)
        case "contains_many", keys:
            return db.contains_many(keys)
        case "version", keys:
            return [found and found[0] for found in map(db.get_with_version, keys[:1])]
        case ("sync",):
            db.sync()
        case ("clear",):
            db.clear()
        case ("verify",):
            report = db.verify()
            assert report.ok, report
        case _:
            raise AssertionError(operation)
    return None


def note(target: Any, changes: Mapping[bytes, bytes | None]) -> None:
    """Put and delete in a batch or transaction."""
    for key, value in changes.items():
        if value is None:
            target.delete(key)
        else:
            target[key] = value


def apply_model(model: Model, operation: Operation) -> Any:
    """Do the same to a dict, and return the same result."""
    match operation:
        case "put", key, value, _durable:
            model[key] = value
        case "put_many", pairs:
            model.update(pairs)
        case "delete", key:
            return model.pop(key, None) is not None
        case "delete_many", keys:
            return sum(model.pop(key, None) is not None for key in keys)
        case "batch", changes, _durable:
            change(model, changes)
        case "batch_if", key, expected, changes:
            if model.get(key) != expected:
                return False
            change(model, changes)
            return True
        case "incr", key, by:
            total = int(model.get(key, b"0")) + by
            model[key] = b"%d" % total
            return total
        case "compare_and_set", key, expected, new:
            if model.get(key) != expected:
                return False
            change(model, {key: new})
            return True
        case "put_if_absent", key, value:
            if key in model:
                return False
            model[key] = value
            return True
        case "transaction", prefix, keys, changes:
            mark = prefix + b"mark:0"
            marks = {key: value for key, value in model.items() if key.startswith(mark)}
            seen = [model.get(key) for key in keys], marks
            change(model, changes)
            return seen
        case "get_many", keys:
            return [model.get(key) for key in keys]
        case (("get" | "view" | "version"), keys):
            return [model.get(key) for key in keys[:1]]
        case "contains_many", keys:
            return [key in model for key in keys]
        case ("clear",):
            model.clear()
    return None


def change(model: Model, changes: Mapping[bytes, bytes | None]) -> None:
    for key, value in changes.items():
        if value is None:
            model.pop(key, None)
        else:
            model[key] = value


# ---- Clears, which are everybody's ----


class Clears:
    """How many clears each process has begun, and how many of them are over: in shared memory."""

    def __init__(self, processes: int) -> None:
        self._counts = memoryview(mmap.mmap(-1, 16 * processes)).cast("Q")
        self._processes = processes

    def call(self, process: int, clear: Callable[[], Any]) -> None:
        self._counts[process] += 1
        clear()
        self._counts[self._processes + process] += 1

    @property
    def begun(self) -> int:
        return sum(self._counts[: self._processes])

    @property
    def over(self) -> int:
        return sum(self._counts[self._processes :])

    def settle(self, process: int) -> None:
        """The process is dead and the store repaired: its clear is done, or never will be."""
        self._counts[self._processes + process] = self._counts[process]


# ---- A worker's life, and what it leaves ----


class Session:
    """
    One worker's use of the store: each operation is done to the store and to the model, and both must
    say the same. Snapshots and iterations are left open on the way, as a killed reader leaves them,
    and must show what was there when they were taken.
    """

    def __init__(
        self, db: pykv.Store, prefix: bytes, model: Model, clears: Clears, process: int = 0
    ) -> None:
        self.db = db
        self.prefix = prefix
        self.model = model
        self.clears = clears
        self.process = process
        self.over = 0  # clears that were over at the last look
        self._held: list[tuple[Any, list[tuple[bytes, bytes]], Model]] = []
        self._alive = prefix + ALIVE

    def begin(self) -> int:
        """Look whether what the one before has left is there. Returns what became of it."""
        self.over = self.clears.over
        found = self._own()
        if self._alive in found:
            assert found == self.model, explain([self.model], found)
            return NOTHING
        if self._alive not in self.model:  # the one before died before it could say that it was
            return self._begin_anew([{}, dict(self.model)])
        assert self.clears.begun, "all is gone, and nobody has cleared it"
        return self._begin_anew([{}])

    def step(self, operation: Operation) -> int:
        """Do an operation and check its result. Returns whether the store was cleared around it."""
        operation = resolve(operation, self.model)
        held: tuple[Any, list[tuple[bytes, bytes]]] | None = None
        result: Any = None
        match operation:
            case ("clear",):
                self.clears.call(self.process, lambda: apply(self.db, operation))
            case "snapshot", _:
                held = self.db.snapshot(), []
            case "scan", _:
                scan = iter(self.db.items(prefix=self.prefix))
                held = scan, list(islice(scan, 1))
            case _:
                result = apply(self.db, operation)
        without: Model = {}
        wanted = apply_model(self.model, operation)
        self.over = self.clears.over
        if self._alive in self.db:
            assert result == wanted, (operation, result, wanted)
            if held is not None:
                self._hold(*held)
            return NOTHING
        with_it: Model = {}
        wanted_then = apply_model(with_it, operation)
        if operation[0] in ("get_many", "contains_many"):  # of which each looks for itself
            possible = zip(result, wanted, wanted_then, strict=True)
            assert all(got in want for got, *want in possible), (operation, result)
        else:
            assert result in (wanted, wanted_then), (operation, result, wanted, wanted_then)
        return self._begin_anew([without, with_it])

    def _begin_anew(self, candidates: list[Model]) -> int:
        """The store was cleared: be alive again, and see what else there is."""
        while True:
            self.db[self._alive] = b""
            self.over = self.clears.over
            found = self._own()
            if self._alive in found:
                break
        for model in candidates:
            model[self._alive] = b""
        assert found in candidates or found == {self._alive: b""}, explain(candidates, found)
        self.model.clear()
        self.model.update(found)
        return BEFORE if found != {self._alive: b""} else AFTER

    def _own(self) -> Model:
        return dict(self.db.items(prefix=self.prefix))

    def _hold(self, what: Any, begun: list[tuple[bytes, bytes]]) -> None:
        self._held.append((what, begun, dict(self.model)))
        if len(self._held) > 3:
            self.release()

    def release(self) -> None:
        """Look through the oldest snapshot or iteration that is held, and let it go."""
        what, begun, expected = self._held.pop(0)
        if isinstance(what, pykv.Snapshot):
            found = dict(what.items(prefix=self.prefix))
            keys = [*expected, self.prefix + b"absent"]
            assert what.get_many(keys) == [expected.get(key) for key in keys]
            what.close()
        else:
            found = dict([*begun, *what])
        assert found == expected, explain([expected], found)


def settle(
    model: Model,
    found: Model,
    seed: int,
    done: int,
    events: Mapping[int, int],
    prefix: bytes = b"",
    clears: bool = True,
    cleared: bool = False,
) -> None:
    """
    Bring *model* up to what a dead worker must have left, and hold it against what was found.

    The operation that was under way may be there, wholly, or not.

    Args:
        events: What the worker told of clears, by the number of its operation; 0: its beginning.
        cleared: Whether there may have been a clear that it did not live to tell of.
    """
    alive = prefix + ALIVE
    work = operations(seed, prefix, clears)
    if events.get(0) == AFTER:
        model.clear()
    if events.get(0):
        model[alive] = b""
    for number in range(1, done + 1):
        operation = resolve(next(work), model)
        event = events.get(number, NOTHING)
        if event != NOTHING:
            model.clear()
        if event != AFTER:
            apply_model(model, operation)
        if event != NOTHING:
            model[alive] = b""
    last = resolve(next(work), model)
    cleared = cleared or last[0] == "clear" or (not done and alive not in model)
    allowed = [model]
    if cleared:
        allowed += [{}, {alive: b""}]
    for state in [*allowed]:
        with_last = dict(state)
        apply_model(with_last, last)
        allowed.append(with_last)
    if cleared:
        allowed += [{**state, alive: b""} for state in allowed]
    assert found in allowed, f"{last[0]}: " + explain(allowed, found)
    model.clear()
    model.update(found)


def explain(allowed: list[Model], found: Model) -> str:
    """Say how what was found differs from each of the states that were allowed."""
    lines = ["not one of the states that may be"]
    for number, expected in enumerate(allowed):
        differing = [
            key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)
        ]
        lines.append(f" state {number}: {len(differing)} keys differ")
        for key in sorted(differing)[:6]:
            want, got = expected.get(key), found.get(key)
            lines.append(f"  {key!r} is {got and got[:40]!r}, not {want and want[:40]!r}")
    return "\n".join(lines)


def work(
    session: Session,
    seed: int,
    clears: bool,
    report: Callable[..., None],
    between: Callable[[int], bool] = lambda count: False,
) -> None:
    """What a worker does until it is killed, or between() says that it is enough."""
    report(0, 0, session.begin(), session.over)
    for count, operation in enumerate(operations(seed, session.prefix, clears), 1):
        start = time.monotonic_ns()
        event = session.step(operation)
        took_ns = time.monotonic_ns() - start
        enough = between(count)
        simple = operation[0] in ("put", "delete", "get", "incr", "put_if_absent")
        report(count, took_ns if simple else 0, event, session.over)
        if enough:
            break
