"""
Stores that releases have written, whole and damaged: this release reads all of them.

Each folder is a release, each folder in it a store, the JSON beside it what must be read from it; see
make_golden.py. If one of these tests fails, a user's store of that release would not open any more.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

import pykv

HERE = Path(__file__).resolve().parent
STORES = sorted(path.with_suffix("") for path in HERE.glob("*/*.json"))
WHOLE = [path for path in STORES if path.name != "damaged"]
DAMAGED = [path for path in STORES if path.name == "damaged"]


def name_of(value: Any) -> str:
    return "-".join(value.parts[-2:]) if isinstance(value, Path) else " ".join(value) or "all"


def expected_of(path: Path) -> dict[str, Any]:
    expected = json.loads(path.with_suffix(".json").read_text())
    pairs = expected["contents"].items()
    expected["contents"] = {bytes.fromhex(key): bytes.fromhex(value) for key, value in pairs}
    return expected


def copy(source: Path, target: Path, without: tuple[str, ...] = ()) -> Path:
    """A copy that can be written to; a store is opened where it lies, and changes by that."""
    shutil.copytree(source, target)
    for pattern in without:
        for file in target.glob(pattern):
            file.unlink()
    return target


def check_contents(db: pykv.Store, expected: dict[str, Any], *, removes: bool = True) -> None:
    contents = expected["contents"]
    assert dict(db.items()) == contents
    assert {key: db.get(key) for key in contents} == contents
    assert db.get_many(list(contents)) == list(contents.values())
    assert set(db.keys(prefix=b"batch")) == {key for key in contents if key.startswith(b"batch")}
    assert b"deleted" not in db
    assert b"expired" not in db
    assert len(db) <= len(contents) + expected["expired"]  # what has expired counts until removed
    end = time.monotonic() + 30
    while removes and len(db) > len(contents) and time.monotonic() < end:
        time.sleep(0.01)
    assert len(db) == len(contents) + (0 if removes else expected["expired"])


def test_there_are_stores() -> None:
    """The fixtures are part of the tests, of the source distribution too."""
    assert WHOLE
    assert DAMAGED


@pytest.mark.parametrize("io", ["mmap", "pread"])
@pytest.mark.parametrize(
    "without", [(), ("checkpoint-*",), ("manifest",), ("checkpoint-*", "manifest")], ids=name_of
)
@pytest.mark.parametrize("source", WHOLE, ids=name_of)
def test_a_store_is_read(source: Path, without: tuple[str, ...], io: Any, tmp_path: Path) -> None:
    """All that was in it is there; also without what an open can do without; and it goes on."""
    expected = expected_of(source)
    path = copy(source, tmp_path / "store", without)
    with pykv.open(path, "r", io=io) as db:
        assert db.stats().version == expected["version"]
        check_contents(db, expected, removes=False)
    with pykv.open(path, io=io) as db:
        check_contents(db, expected)
        version = db.stats().version
        assert expected["version"] <= version <= expected["version"] + expected["expired"]
        assert db.verify().ok
        db[b"new"] = b"written by this release"
        assert db.stats().version == version + 1
    expected["contents"][b"new"] = b"written by this release"
    with pykv.open(path, "w", io=io) as db:  # by the keydir of the open before
        check_contents(db, expected)
    (path / "keydir").unlink()
    with pykv.open(path, "w", io=io) as db:
        check_contents(db, expected)
        assert db.verify().ok


@pytest.mark.parametrize("source", DAMAGED, ids=name_of)
def test_damage_is_told_and_repaired(source: Path, tmp_path: Path) -> None:
    """The damaged record is named; with repair everything but it is there."""
    expected = expected_of(source)
    path = copy(source, tmp_path / "store")
    with pytest.raises(pykv.CorruptError) as caught:
        pykv.open(path)
    assert str(caught.value.path) == expected["damage"]["path"]
    assert caught.value.offset == expected["damage"]["offset"]
    with pykv.open(path, repair=True) as db:
        check_contents(db, expected)


def test_the_stores_hold_every_kind_of_record() -> None:
    """Single, batch, tombstone, expiry, mark and seal, in several segments; a checkpoint, a manifest."""
    flags: set[int] = set()
    store = WHOLE[0]
    for segment in store.glob("segment-*"):
        data, at = segment.read_bytes(), 128
        while at + 32 <= len(data) and any(data[at : at + 32]):
            kind = int.from_bytes(data[at + 6 : at + 8], "little")
            key_size = int.from_bytes(data[at + 4 : at + 6], "little")
            value_size = int.from_bytes(data[at + 8 : at + 12], "little")
            flags.add(kind)
            size = 24 + (8 if kind & 2 else 0) + key_size + value_size
            at += 32 if kind & (4 | 16 | 32) else (size + 15) // 16 * 16
    assert flags >= {0, 1, 2, 4, 8, 8 | 1, 8 | 2, 16, 32}
    assert len(list(store.glob("segment-*"))) >= 4
    assert len(list(store.glob("checkpoint-*"))) >= 1
    assert (store / "manifest").exists()
