"""Snapshots, transactions, preconditions and expiry: each beside the plain call that it is made of."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import VALUE, fill

import pykv

COUNT = 10_000  # operations in a round, at most


@pytest.fixture
def db(tmp_path: Path, keys: list[bytes]) -> Iterator[pykv.Store]:
    with pykv.open(tmp_path / "store.kv") as opened:
        fill(opened, keys)
        yield opened


@pytest.fixture
def some(shuffled: list[bytes]) -> list[bytes]:
    return shuffled[:COUNT]


def get_all(reader: Any, keys: list[bytes]) -> bytes:
    get = reader.get
    for key in keys:
        value = get(key)
    return value


@pytest.mark.benchmark(group="get")
@pytest.mark.parametrize(
    "by", ["store", "snapshot", "snapshot, each key written 10 times since", "transaction"]
)
def test_get(db: pykv.Store, some: list[bytes], measure: Callable[..., Any], by: str) -> None:
    if by == "store":
        assert measure(lambda: get_all(db, some), len(some)) == VALUE
    elif by == "transaction":
        with db.transaction() as transaction:
            assert measure(lambda: get_all(transaction, some), len(some)) == VALUE
    else:
        with db.snapshot() as snapshot:
            for _ in range(0 if by == "snapshot" else 10):
                db.put_many(dict.fromkeys(some, b"newer"))
            assert measure(lambda: get_all(snapshot, some), len(some)) == VALUE


@pytest.mark.benchmark(group="snapshot taken and released")
def test_snapshot(db: pykv.Store, measure: Callable[..., Any]) -> None:
    def run() -> None:
        for _ in range(COUNT):
            db.snapshot().close()

    measure(run, COUNT)


@pytest.mark.benchmark(group="iteration over all pairs")
@pytest.mark.parametrize("what", ["items", "keys", "snapshot items"])
def test_iteration(
    db: pykv.Store, keys: list[bytes], measure: Callable[..., Any], what: str
) -> None:
    with db.snapshot() as snapshot:
        view = {"items": db.items, "keys": db.keys, "snapshot items": snapshot.items}[what]
        assert measure(lambda: sum(1 for _ in view()), len(keys)) == len(keys)


@pytest.mark.benchmark(group="read two keys, write two")
@pytest.mark.parametrize("how", ["plain", "batch", "transaction"])
def test_transaction(
    db: pykv.Store, some: list[bytes], measure: Callable[..., Any], how: str
) -> None:
    """Uncontended. Plain: four calls; batch: two gets and one write; transaction: checked, too."""

    def plain() -> None:
        for one, other in zip(some[::2], some[1::2], strict=False):
            db[one], db[other] = db[other], db[one]

    def batch() -> None:
        for one, other in zip(some[::2], some[1::2], strict=False):
            with db.batch() as both:
                both[one], both[other] = db[other], db[one]

    def transaction() -> None:
        for one, other in zip(some[::2], some[1::2], strict=False):
            with db.transaction() as both:
                both[one], both[other] = both[other], both[one]

    run = {"plain": plain, "batch": batch, "transaction": transaction}[how]
    measure(run, len(some) // 2)
    assert db[some[0]] == VALUE


@pytest.mark.benchmark(group="write that looks first")
@pytest.mark.parametrize("what", ["put", "put_if_absent", "compare_and_set", "incr"])
def test_conditions(
    db: pykv.Store, some: list[bytes], measure: Callable[..., Any], what: str
) -> None:
    def put() -> None:
        for key in some:
            db.put(key, VALUE)

    def put_if_absent() -> None:
        for key in some:
            db.put_if_absent(key, VALUE)

    def compare_and_set() -> None:
        for key in some:
            db.compare_and_set(key, VALUE, VALUE)

    def incr() -> None:
        for key in some:
            db.incr(key[:8])

    measure(locals()[what], len(some))


@pytest.mark.benchmark(group="put and get of keys that expire")
@pytest.mark.parametrize("what", ["put", "put, ttl", "get", "get, ttl", "ttl", "expire", "touch"])
def test_expiry(db: pykv.Store, some: list[bytes], measure: Callable[..., Any], what: str) -> None:
    """put and get: of keys that never expire, the baseline."""
    if "ttl" in what or what in ("expire", "touch"):
        db.put_many(dict.fromkeys(some, VALUE), ttl=3600)
    call: Callable[[bytes], object] = {
        "put": lambda key: db.put(key, VALUE),
        "put, ttl": lambda key: db.put(key, VALUE, ttl=3600),
        "get": db.get,
        "get, ttl": db.get,
        "ttl": db.ttl,
        "expire": lambda key: db.expire(key, 3600),
        "touch": lambda key: db.touch(key, 60),
    }[what]

    def run() -> None:
        for key in some:
            call(key)

    measure(run, len(some))


@pytest.mark.benchmark(group="expired keys leave")
def test_expired_keys_leave(tmp_path: Path, keys: list[bytes], measure: Callable[..., Any]) -> None:
    """From the put of keys that live a tenth of a second until the store holds none of them."""
    with pykv.open(tmp_path / "store.kv") as db:

        def run() -> None:
            for start in range(0, len(keys), 1000):
                db.put_many(dict.fromkeys(keys[start : start + 1000], VALUE), ttl=0.1)
            while len(db):
                time.sleep(0.001)

        measure(run, len(keys), rounds=1)
