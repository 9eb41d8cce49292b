"""A store serves as the dict under shelve.Shelf."""

from __future__ import annotations

import shelve
from pathlib import Path
from typing import Any

import pytest

import pykv


@pytest.mark.parametrize("writeback", [False, True])
def test_shelf(path: Path, writeback: bool) -> None:
    """A shelf over a store keeps objects, iterates, deletes, and is there after a reopen."""
    with shelve.Shelf[Any](pykv.open(path), writeback=writeback) as shelf:
        shelf["list"] = [1, 2, {"three": 4.0}]
        shelf["ключ"] = None
        shelf["gone"] = 1
        del shelf["gone"]
        assert shelf["list"] == [1, 2, {"three": 4.0}]
        assert "ключ" in shelf
        assert "gone" not in shelf
        assert len(shelf) == 2
        assert sorted(shelf) == ["list", "ключ"]
        shelf.sync()
        if writeback:
            shelf["list"].append(5)
        store = shelf.dict
    assert isinstance(store, pykv.Store)
    assert store.closed
    with shelve.Shelf[Any](pykv.open(path, "r")) as shelf:
        assert shelf["list"] == [1, 2, {"three": 4.0}] + [5] * writeback
        assert shelf.get("other", "default") == "default"
        with pytest.raises(KeyError):
            shelf["other"]
