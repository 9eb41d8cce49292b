"""Opening, closing, and what outlives a store: whatever the order, an exception, never a crash."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest

import pykv


def run(
    code: str, *arguments: object, flags: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run *code* in a Python of its own, which finds the same pykv."""
    where = str(Path(pykv.__file__).parents[1])
    return subprocess.run(
        [sys.executable, *flags, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": where},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_context_manager(path: Path) -> None:
    """A with block closes the store, also after an exception."""
    with pykv.open(path) as db:
        assert not db.closed
    assert db.closed
    with pytest.raises(ZeroDivisionError), pykv.open(path) as db:
        raise ZeroDivisionError
    assert db.closed


def test_close_repeats(path: Path) -> None:
    """Closing a closed store does nothing."""
    db = pykv.open(path)
    db.close()
    db.close()
    with db:
        pass
    assert db.closed


def test_use_after_close(path: Path) -> None:
    """Each call on a closed store raises ClosedError, and path, closed and repr go on."""
    with pykv.open(path) as db:
        db[b"k"] = b"v"
        keys, items, batch = db.keys(), db.items(), db.batch()
    batch[b"k"] = b"w"
    for call in (
        lambda: db[b"k"],
        lambda: db.get(b"k"),
        lambda: db.get(b"absent"),
        lambda: b"k" in db,
        lambda: db.get_into(b"k", bytearray(9)),
        lambda: db.view(b"k"),
        lambda: db.get_with_version(b"k"),
        lambda: db.get_many([b"k"]),
        lambda: db.contains_many([b"k"]),
        lambda: len(db),
        lambda: bool(db),
        lambda: iter(db),
        lambda: list(keys),
        lambda: list(items),
        lambda: len(keys),
        lambda: b"k" in keys,
        lambda: db.stats(),
        lambda: db.verify(),
        lambda: db.__setitem__(b"k", b"v"),
        lambda: db.put(b"k", b"v"),
        lambda: db.delete(b"k"),
        lambda: db.put_many({b"k": b"v"}),
        lambda: db.delete_many([b"k"]),
        lambda: db.put_if_absent(b"k", b"v"),
        lambda: db.compare_and_set(b"k", None, b"v"),
        lambda: db.incr(b"k"),
        lambda: db.pop(b"k"),
        lambda: db.popitem(),
        lambda: db.setdefault(b"k", b"v"),
        lambda: db.update({b"k": b"v"}),
        lambda: db.clear(),
        lambda: db.sync(),
        lambda: batch.__exit__(None, None, None),
    ):
        with pytest.raises(pykv.ClosedError) as caught:
            call()
        assert isinstance(caught.value, ValueError)
    assert db.path == str(path)
    assert repr(db) == f"<pykv.Store {str(path)!r}, closed>"


def test_repr(db: pykv.Store) -> None:
    """The repr of a store tells its path and size, and prints no content."""
    assert repr(db) == f"<pykv.Store {db.path!r}, keys: 0>"
    db.put_many((b"secret%d" % n, b"secret") for n in range(1_234))
    assert repr(db) == f"<pykv.Store {db.path!r}, keys: 1,234>"


@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_views_outlive_the_store(path: Path, io: str) -> None:
    """A view is valid after its key is gone, the store is closed, and even collected."""
    value = os.urandom(100_000)
    db = pykv.open(path, io=io, segment_bytes=1 << 16)  # type: ignore[arg-type]
    db[b"k"] = value
    db[b"small"] = b"small"
    views = [db.view(b"k"), db.view(b"small"), db.view(b"k")[10:20]]
    db.clear()
    db.put_many((b"%d" % n, b"x" * 1_000) for n in range(1_000))
    db.close()
    assert views == [value, b"small", value[10:20]]
    gone = weakref.ref(db)
    del db
    gc.collect()
    assert gone() is None
    assert views == [value, b"small", value[10:20]]
    del views[0]
    gc.collect()
    assert views == [b"small", value[10:20]]


def test_values_outlive_the_store(path: Path) -> None:
    """What reads return are private copies."""
    with pykv.open(path) as db:
        db.update({b"k": b"v", b"large": b"x" * 100_000})
        values = [db[b"k"], db[b"large"], *db.get_many([b"k"]), *db.values(prefix=b"k")]
    del db
    gc.collect()
    assert values == [b"v", b"x" * 100_000, b"v", b"v"]


def test_iterators_after_close(path: Path) -> None:
    """An iteration under way when the store is closed raises ClosedError, or ends its block."""
    db = pykv.open(path)
    db.put_many((b"%d" % n, b"x" * 100) for n in range(50_000))
    iterations = [iter(db), iter(db.items()), iter(db.values())]
    for iteration in iterations:
        next(iteration)
    db.close()
    for iteration in iterations:
        with pytest.raises(pykv.ClosedError):
            for _ in iteration:
                pass
    del db
    gc.collect()


def test_abandoned_iterators(path: Path) -> None:
    """Iterations that are dropped half way hold nothing back."""
    with pykv.open(path) as db:
        db.put_many((b"%d" % n, b"x" * 100) for n in range(10_000))
        for _ in range(100):
            next(iter(db))
            next(iter(db.items()))
            iter(db.values())
        gone = weakref.ref(db)
    del db
    gc.collect()
    assert gone() is None


def test_an_unclosed_store_warns(path: Path) -> None:
    """A store that is collected while open says so as files do, and is closed."""
    db = pykv.open(path)
    db[b"k"] = b"v"
    with pytest.warns(ResourceWarning, match="unclosed store"):
        del db
        gc.collect()
    with pykv.open(path) as db:
        assert db[b"k"] == b"v"


def test_an_unclosed_store_at_exit(path: Path) -> None:
    """A program that ends without close() loses nothing, and does not crash."""
    code = "import pykv, sys; db = pykv.open(sys.argv[1]); db[b'k'] = b'v'; view = db.view(b'k')"
    done = run(code, path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with pykv.open(path) as db:
        assert db[b"k"] == b"v"
    done = run(code, path, flags=("-X", "dev"))
    assert done.returncode == 0
    assert "ResourceWarning: unclosed store" in done.stderr
    assert "Exception" not in done.stderr


def test_an_unclosed_store_that_cannot_be_closed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What close() would have raised is told by sys.unraisablehook; after a close(), nothing."""
    told: list[BaseException | None] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: told.append(args.exc_value))
    for close in (True, False):
        db = pykv.open(path)
        db[b"k"] = b"v"
        while path.exists():  # so that no manifest can be written; a helper may yet make a file
            shutil.rmtree(path, ignore_errors=True)
        if close:
            with pytest.raises(pykv.StorageError):
                db.close()
            del db
        else:
            with pytest.warns(ResourceWarning, match="unclosed store"):
                del db
                gc.collect()
    assert [type(error) for error in told] == [pykv.StorageError]


def test_references_in_a_circle(path: Path) -> None:
    """A store, a view and an iteration that refer to each other are collected in any order."""
    for _ in range(20):
        db = pykv.open(path)
        db.put_many((b"%d" % n, b"x" * 100) for n in range(2_000))
        iteration = iter(db.items())
        next(iteration)
        circle = [db, db.view(b"1"), iteration, db.keys()]
        circle.append(circle)
        db.close()
        del db, iteration, circle
        gc.collect()


@pytest.mark.parametrize("flag", ["c", "n", "w", "r"])
def test_a_pickled_store_is_opened_again(
    path: Path, flag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Path and options travel, wherever the copy is opened; it never makes the store anew."""
    with pykv.open(path) as db:
        db[b"k"] = b"v"
    monkeypatch.chdir(path.parent)
    with pykv.open(path.name, flag, durability="commit", segment_bytes=1 << 20) as db:
        if flag != "r":
            db[b"k"] = b"v"
        pickled = pickle.dumps(db)
        monkeypatch.chdir("/")
        with pickle.loads(pickled) as copied:
            assert copied[b"k"] == b"v"
            if flag == "r":
                with pytest.raises(pykv.ReadOnlyError):
                    copied[b"other"] = b"v"
            else:
                before = copied.stats().syncs
                copied[b"other"] = b"v"
                assert copied.stats().syncs > before
                assert db[b"other"] == b"v"
        assert db[b"k"] == b"v"
    with pytest.raises(pykv.ClosedError):
        pickle.dumps(db)
    shutil.rmtree(path)
    with pytest.raises(pykv.MissingError):
        pickle.loads(pickled)


def test_copies_are_handles_of_their_own(db: pykv.Store) -> None:
    """Closing one leaves the others open."""
    copies = [copy.copy(db), copy.deepcopy(db), pykv.open(db.path)]
    db[b"k"] = b"v"
    for copied in copies:
        assert copied[b"k"] == b"v"
        copied.close()
        assert db[b"k"] == b"v"


def test_a_batch_cannot_be_copied(db: pykv.Store) -> None:
    """A copy would write the same once more, through a handle that nobody closes."""
    with db.batch() as batch:
        batch[b"k"] = b"v"
        for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="neither copied nor pickled"):
                duplicate(batch)


def test_a_store_is_not_made_by_hand() -> None:
    """Only open() makes a store."""
    with pytest.raises(TypeError):
        pykv.Store()  # type: ignore[call-arg]
    half = pykv.Store.__new__(pykv.Store)
    del half
    gc.collect()


@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_close_waits_for_calls(path: Path, io: str) -> None:
    """A close among calls of other threads is safe: each call ends well, or with ClosedError."""
    for _ in range(10):
        db = pykv.open(path, io=io, segment_bytes=1 << 16)  # type: ignore[arg-type]
        db.put_many((b"%d" % n, b"x" * 100) for n in range(1_000))
        wrong: list[BaseException] = []
        started = threading.Barrier(5)

        def work(act: object, db: pykv.Store = db, wrong: list[BaseException] = wrong,
                 started: threading.Barrier = started) -> None:  # fmt: skip
            started.wait()
            try:
                while True:
                    act(db)  # type: ignore[operator]
            except pykv.ClosedError:
                pass
            except BaseException as error:
                wrong.append(error)

        acts = [
            lambda db: db[b"7"],
            lambda db: db.put(b"7", b"y" * 100),
            lambda db: sum(1 for _ in db.items()),
            lambda db: db.get_many([b"%d" % n for n in range(100)]),
        ]
        threads = [threading.Thread(target=work, args=(act,)) for act in acts]
        for thread in threads:
            thread.start()
        started.wait()
        time.sleep(0.01)
        db.close()
        for thread in threads:
            thread.join(timeout=30)
            assert not thread.is_alive()
        assert wrong == []
        assert db.closed
