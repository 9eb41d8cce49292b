"""The store under asyncio: the same answers, and a loop that never waits for a thread."""

from __future__ import annotations

import asyncio
import gc
import inspect
import re
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pykv
import pykv.aio
from pykv._open import Options

Main = Callable[[pykv.aio.AsyncStore], Awaitable[Any]]


def run(path: Path, main: Main, **options: Any) -> Any:
    """Run main(db) in a loop of its own."""

    async def opened() -> Any:
        async with await pykv.aio.open(path, **options) as db:
            return await main(db)

    return asyncio.run(opened())


@pytest.fixture(params=["process", "commit"])
def durability(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_each_call_answers_as_the_store_does(path: Path, durability: str) -> None:
    async def main(db: pykv.aio.AsyncStore) -> None:
        await db.put(b"k", b"v", ttl=60, durable=True)
        assert await db.get(b"k") == await db[b"k"] == b"v"
        assert await db.get(b"absent") is None
        assert await db.get(b"absent", 7) == 7
        with pytest.raises(KeyError):
            await db[b"absent"]
        assert await db.contains(b"k")
        assert await db.delete(b"k")
        assert not await db.delete(b"k")
        await db.put_many({b"a": b"1", b"b": b"2"}, durable=False)
        assert await db.get_many([b"b", b"x", b"a"], 0) == [b"2", 0, b"1"]
        assert await db.contains_many([b"a", b"x"]) == [True, False]
        assert await db.count() == 2
        assert await db.put_if_absent(b"c", b"3")
        assert await db.compare_and_set(b"c", b"3", b"4")
        assert await db.incr(b"n", 5) == 5
        assert await db.setdefault(b"d", b"5") == b"5"
        assert await db.pop(b"d") == b"5"
        assert await db.pop(b"d", None) is None
        assert await db.pop(b"d", default=7) == 7
        found = await db.get_with_version(b"c")
        assert found is not None
        assert found[0] == b"4"
        assert await db.delete_many([b"c", b"n", b"x"]) == 2
        assert sorted([key async for key in db]) == [b"a", b"b"]
        assert sorted([value async for value in db.values()]) == [b"1", b"2"]
        assert [pair async for pair in db.items(prefix=b"b")] == [(b"b", b"2")]
        assert (await db.stats()).keys == 2
        assert (await db.verify()).ok
        await db.sync()
        await db.clear()
        assert await db.count() == 0
        assert "AsyncStore" in repr(db)
        with pytest.raises(pykv.NotBytesError):
            await db.put("k", b"v")  # type: ignore[arg-type]

    run(path, main, durability=durability)


def test_transact_takes_no_coroutines(path: Path) -> None:
    """It would commit nothing, and return a coroutine that nobody awaits."""

    async def visit(t: pykv.Transaction) -> int:
        return t.incr(b"visits")

    async def main(db: pykv.aio.AsyncStore) -> None:
        with pytest.raises(TypeError, match="an ordinary function"):
            await db.transact(visit)
        assert await db.transact(lambda t: t.incr(b"visits")) == 1

    run(path, main)


def test_a_closed_store_is_named(path: Path) -> None:
    async def main(db: pykv.aio.AsyncStore) -> None:
        await db.close()
        with pytest.raises(pykv.ClosedError, match=f"the store {re.escape(str(path))} is closed"):
            await db.get(b"k")

    run(path, main)


def test_what_would_go_round_for_ever_is_refused(path: Path) -> None:
    """`in` and `for` do not fall back on [0], [1], [2], ..., each of which is a future."""

    async def main(db: pykv.aio.AsyncStore) -> None:
        async with db.snapshot() as snapshot, db.transaction() as transaction:
            for readable in (db, snapshot, transaction):
                with pytest.raises(TypeError, match="not iterable"):
                    iter(readable)  # type: ignore[call-overload]
                with pytest.raises(TypeError, match="not a container"):
                    assert b"k" in readable  # type: ignore[operator]

    run(path, main)


def test_calls_of_one_turn_go_over_together(path: Path) -> None:
    async def main(db: pykv.aio.AsyncStore) -> None:
        threads: list[int] = []
        target = db._target

        class Noting:
            def get(self, key: bytes, default: Any, *part: Any) -> Any:
                threads.append(threading.get_ident())
                return target.get(key, default, *part)

        db._target = Noting()  # type: ignore[assignment]
        try:
            await asyncio.gather(*(db.get(b"%d" % n) for n in range(100)))
        finally:
            db._target = target
        assert len(threads) == 100
        assert set(threads) != {threading.get_ident()}
        assert len(set(threads)) == 1

    run(path, main)


def test_many_tasks_write_and_lose_nothing(path: Path, durability: str) -> None:
    async def work(db: pykv.aio.AsyncStore, worker: int) -> None:
        for n in range(20):
            await db.put(b"%d:%d" % (worker, n), b"v")
            await db.incr(b"count")

    async def main(db: pykv.aio.AsyncStore) -> None:
        await asyncio.gather(*(work(db, worker) for worker in range(50)))
        assert await db[b"count"] == b"1000"
        assert await db.count() == 1001
        if durability == "commit":  # and those that waited at once shared their syncs
            assert (await db.stats()).syncs < 2000

    run(path, main, durability=durability)


def test_batches_snapshots_and_transactions(path: Path) -> None:
    async def main(db: pykv.aio.AsyncStore) -> None:
        async with db.batch() as batch:
            batch[b"ada"] = b"100"
            batch[b"bob"] = b"0"
        assert batch.version is not None
        with pytest.raises(pykv.ConflictError):
            async with db.batch() as batch:
                batch.expect_absent(b"ada")
        async with db.snapshot() as then:
            async with db.transaction() as t:
                await t.put(b"ada", b"%d" % (int(await t[b"ada"]) - 30))
                assert await t.incr(b"bob", 30) == 30
                assert await t.get(b"ada") == b"70"
            assert await then.get_many([b"ada", b"bob"]) == [b"100", b"0"]
            assert await then.contains_many([b"ada"]) == [True]
            assert [key async for key in then.keys(prefix=b"a")] == [b"ada"]
            assert then.version < (await db.stats()).version
        with pytest.raises(pykv.ClosedError):
            await then.get(b"ada")
        assert await db.get_many([b"ada", b"bob"]) == [b"70", b"30"]
        with pytest.raises(ZeroDivisionError):
            async with db.transaction() as t:
                await t.put_many({b"ada": b"0"})
                await t.delete(b"bob")
                raise ZeroDivisionError
        with pytest.raises(pykv.ConflictError):
            async with db.transaction() as t:
                await t.put(b"ada", await t[b"bob"])
                await db.put(b"bob", b"other")
        assert await db.get_many([b"ada", b"bob"]) == [b"70", b"other"]
        assert await db.transact(lambda t: t.incr(b"ada")) == 71

    run(path, main)


def test_arguments_are_taken_as_they_are_now(path: Path) -> None:
    """What the caller changes while a call is on its way changes nothing; generators stay here."""

    async def main(db: pykv.aio.AsyncStore) -> None:
        here = threading.get_ident()

        def each() -> Iterator[bytes]:
            assert threading.get_ident() == here
            yield from keys

        keys, pairs = [b"a", b"b"], {b"a": b"1", b"b": b"2"}
        writing = asyncio.ensure_future(db.put_many(pairs))
        await asyncio.sleep(0)
        pairs.clear()
        await writing
        for call, right in (
            (db.get_many(each()), [b"1", b"2"]),
            (db.contains_many(each()), [True, True]),
            (db.delete_many(each()), 2),
        ):
            assert await call == right

    run(path, main)


def test_the_loop_goes_on_while_a_call_waits(path: Path) -> None:
    async def main(db: pykv.aio.AsyncStore) -> None:
        begun, go_on = threading.Event(), threading.Event()

        def slow(t: pykv.Transaction) -> bytes:
            begun.set()
            assert go_on.wait(60)
            return b"slow"

        waiting = asyncio.ensure_future(db.transact(slow))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        await db.put(b"k", b"v")  # by another thread
        assert not waiting.done()
        go_on.set()
        assert await waiting == b"slow"

    run(path, main)


def test_a_cancelled_call_is_done_or_not(path: Path) -> None:
    async def main(db: pykv.aio.AsyncStore) -> None:
        for n in range(200):
            write = asyncio.ensure_future(db.put_many({b"%d:a" % n: b"1", b"%d:b" % n: b"2"}))
            for _ in range(n % 4):
                await asyncio.sleep(0)
            write.cancel()
        for n in range(200):
            both = await db.contains_many([b"%d:a" % n, b"%d:b" % n])
            assert both in ([True, True], [False, False])
        begun = asyncio.ensure_future(db.get(b"0:a"))
        await asyncio.sleep(0)
        begun.cancel()
        with pytest.raises(asyncio.CancelledError):
            await begun
        assert await db.count() % 2 == 0

    run(path, main)


def test_close_finishes_what_was_asked_for(path: Path, durability: str) -> None:
    async def main() -> None:
        db = await pykv.aio.open(path, durability=durability)
        writes = [asyncio.ensure_future(db.put(b"%d" % n, b"v")) for n in range(500)]
        await asyncio.sleep(0)
        await asyncio.gather(db.close(), db.close())
        await asyncio.gather(*writes)
        assert db.closed
        with pytest.raises(pykv.ClosedError):
            await db.get(b"0")
        await db.close()

    asyncio.run(main())
    with pykv.open(path, "r") as db:
        assert len(db) == 500


def test_a_close_that_nobody_waits_for_any_more_closes_all_the_same(path: Path) -> None:
    async def main() -> None:
        db = await pykv.aio.open(path)
        closing = asyncio.ensure_future(db.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await db.close()
        assert db.closed

    asyncio.run(main())


def test_an_iteration_sees_one_instant_and_may_be_left(path: Path) -> None:
    async def main(db: pykv.aio.AsyncStore) -> None:
        await db.put_many({b"%d" % n: b"v" for n in range(5000)})
        seen = []
        async for key in db.keys():
            if not seen:
                await db.clear()
            seen.append(key)
        assert len(seen) == len(set(seen)) == 5000
        await db.put_many({b"%d" % n: b"v" for n in range(5000)})
        async for _key in db:
            break
        gc.collect()
        assert await db.count() == 5000

    run(path, main)


def test_another_loop_is_refused(path: Path) -> None:
    async def begin() -> pykv.aio.AsyncStore:
        return await pykv.aio.open(path)

    loop = asyncio.new_event_loop()
    db = loop.run_until_complete(begin())
    with pytest.raises(RuntimeError, match="another event loop"):
        asyncio.run(db.get(b"k"))  # type: ignore[arg-type]
    loop.run_until_complete(db.close())
    loop.close()


def test_what_cannot_be_opened(path: Path) -> None:
    async def main() -> None:
        with pytest.raises(pykv.MissingError):
            await pykv.aio.open(path, "w")
        with pytest.raises(pykv.InvalidError):
            await pykv.aio.open(path, durability="forever")

    asyncio.run(main())


def test_the_options_are_those_of_open() -> None:
    """What type checkers know of aio.open() is what open() takes."""
    by_name = [
        parameter.name
        for parameter in inspect.signature(pykv.open).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    assert [*Options.__annotations__] == by_name
