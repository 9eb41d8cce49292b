"""pykv and its peers do the same work, and every answer is checked: what lies is found out."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rich")

from pykv._bench import engines as all_engines
from pykv._bench import operations, summary, worker, ycsb
from pykv._bench.peers import Sqlite

ENGINES = all_engines.engines()
KEYS = 3000


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "IDLE_SECONDS", 0.0)
    monkeypatch.setattr(operations, "THREADS", 4)


def lying(monkeypatch: pytest.MonkeyPatch, module: Any, kind: type[Sqlite]) -> None:
    """Let *module* take *kind* for SQLite; processes that it begins take the true one."""
    monkeypatch.setattr(module, "engines", lambda: {"sqlite3": kind})


@pytest.mark.parametrize("name", ENGINES)
def test_operations(name: str, pairs: Path, tmp_path: Path) -> None:
    """Every engine that is here does all operations, and every answer is right."""
    if why := ENGINES[name].missing():
        pytest.skip(why)
    directory = tmp_path / "stores"
    directory.mkdir()
    result = operations.measure(directory, name, str(pairs), seconds=0.002, first=True)
    assert result["problems"] == []
    assert result["keys"] > 0
    expected = set(summary.OPERATIONS)
    if not ENGINES[name].shared:
        expected -= {"get, 1 process", "get, 2 processes"}
    if not ENGINES[name].durable:
        expected -= {"durable put, 1 thread", "durable put, 16 threads"}
    else:
        expected = expected - {"durable put, 16 threads"} | {"durable put, 4 threads"}
    assert result["rates"].keys() == expected
    assert min(result["rates"].values()) > 0
    if ENGINES[name].persistent and name != "dbm":  # whose modules promise nothing
        assert result["figures"]["killed_lost"] == 0


class WrongValue(Sqlite):
    def _get(self, key: bytes) -> Any:
        value = super()._get(key)
        return value[:-1] + b"?" if value and key[0] < 128 else value


class Unwritten(Sqlite):
    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        put = self.put
        self.put = lambda key, value: None if key[0] < 128 else put(key, value)


class Missing(Sqlite):
    def items(self) -> Iterator[tuple[bytes, bytes]]:
        return (pair for pair in super().items() if pair[0][0] < 128)


class Undeleted(Sqlite):
    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.delete = lambda key: None


class Forgetful(Sqlite):
    def __init__(self, *args: Any, durable: bool = False, **more: Any) -> None:
        super().__init__(*args, durable=durable, **more)
        put = self.put
        self.put = lambda key, value: (
            put(key, value) if key[-1:] not in (b"0", b"5") or not durable else None
        )


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (WrongValue, "get: "),
        (Unwritten, "get: "),
        (Missing, "items: "),
        (Undeleted, "after deleting"),
        (Forgetful, "puts are not there"),
    ],
)
def test_lying_engines_are_found_out(
    kind: type[Sqlite], problem: str, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that answers wrong, forgets or keeps what it should not is told as a problem."""
    lying(monkeypatch, operations, kind)
    for other in ("_open_and_kill", "_read_together"):  # which have processes that are honest
        monkeypatch.setattr(operations, other, lambda *_: None)
    directory = tmp_path / "stores"
    directory.mkdir()
    result = operations.measure(directory, "sqlite3", str(pairs), seconds=0.01, first=False)
    assert problem in "; ".join(result["problems"])


def test_a_killed_writer_that_had_not_written_is_counted(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Puts that were acknowledged and are gone after kill -9 are a figure of the report."""

    class Amnesiac(Sqlite):
        def _get(self, key: bytes) -> Any:
            value = super()._get(key)
            return value.removesuffix(operations.NEWEST) if value else value

    lying(monkeypatch, operations, Amnesiac)
    directory = tmp_path / "stores"
    directory.mkdir()
    result = operations.measure(directory, "sqlite3", str(pairs), seconds=0.002, first=False)
    assert result["figures"]["killed_lost"] == operations.KILL_KEYS


@pytest.mark.parametrize("name", ENGINES)
def test_ycsb(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every engine runs the six workloads, and every answer is right."""
    monkeypatch.setattr(ycsb, "LOAD", 1000)
    if why := ENGINES[name].missing():
        pytest.skip(why)
    result = ycsb.measure(tmp_path, name, records=300, seconds=0.02)
    assert result["problems"] == []
    assert result["rates"].keys() == set(summary.YCSB)
    told = {letter: set(each) for letter, each in result["operations"].items()}
    assert told == {letter: set(each.shares) for letter, each in ycsb.WORKLOADS.items()}


@pytest.mark.parametrize("letter", ycsb.WORKLOADS)
def test_ycsb_checks_its_answers(
    letter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stale records are found in each workload, and scans that leave one out."""

    class Stale(Sqlite):
        def _get(self, key: bytes) -> Any:
            return b"stale"

        def scan(self, first: bytes, count: int) -> list[tuple[bytes, bytes]]:
            return super().scan(first, count)[1:]

    lying(monkeypatch, ycsb, Stale)
    result = ycsb.measure(tmp_path, "sqlite3", records=100, seconds=0.02)
    assert f"YCSB {letter}: " in "; ".join(result["problems"])


# ---- YCSB's distributions ----


def test_zipfian() -> None:
    """Ranks come as often as the law says: the first two exactly, shares of all closely."""
    count, draws = 1000, 100_000
    zipfian = ycsb.Zipfian(count, random.Random(1))
    ranks = [zipfian.draw() for _ in range(draws)]
    weights = [1 / rank**ycsb.THETA for rank in range(1, count + 1)]
    total = sum(weights)
    assert all(0 <= rank < count for rank in ranks)
    for rank in (0, 1):
        assert ranks.count(rank) / draws == pytest.approx(weights[rank] / total, rel=0.05)
    for share in (10, 100, 500):
        expected = sum(weights[:share]) / total
        assert sum(rank < share for rank in ranks) / draws == pytest.approx(expected, abs=0.03)


def test_zipfian_grows() -> None:
    """One that has grown draws as one that was made so."""
    grown, made = ycsb.Zipfian(100, random.Random(3)), ycsb.Zipfian(5000, random.Random(3))
    grown.grow(5000)
    assert [grown.draw() for _ in range(500)] == [made.draw() for _ in range(500)]


def test_keys_and_hot_records() -> None:
    """Keys are those of YCSB; its hottest record is drawn once in 26.5 times, the newest is hottest."""
    assert ycsb.key_of(0) == b"user6284781860667377211"
    records = ycsb.Records(2000, seed=1)
    draws = 20_000
    hottest = ycsb.key_of(ycsb.fnv_hash(0) % 2200)  # 2,000, and a tenth that may be inserted
    drawn = [records.choose("zipfian") for _ in range(draws)]
    assert drawn.count(hottest) / draws == pytest.approx(1.1 / ycsb.SCRAMBLED_ZETA, rel=0.15)
    assert max(set(drawn), key=drawn.count) == hottest
    latest = [records.choose("latest") for _ in range(draws)]
    assert max(set(latest), key=latest.count) == ycsb.key_of(1999)


def test_shares_of_operations() -> None:
    """Each workload has the operations of its definition, in their shares."""
    for workload in ycsb.WORKLOADS.values():
        records = ycsb.Records(100, seed=2)
        done = [each.name for each in islice(records.operations(workload), 2000)]
        for name, share in workload.shares.items():
            assert done.count(name) / 2000 == pytest.approx(share, abs=0.04)


def test_ram(pairs: Path, tmp_path: Path) -> None:
    """A dict takes the bytes of its pairs at least, and pykv a part of that."""
    ram = {}
    for name in ("pykv", "dict"):
        directory = tmp_path / name
        directory.mkdir()
        shape = [KEYS, KEYS * 116]
        told = worker.run_part(
            "occupied", directory, engine=name, data=str(pairs), shape=shape, seconds=5
        )
        assert told["keys"] == KEYS - operations.CHUNK
        ram[name] = told["ram_bytes"]
    if ram["dict"] is not None:
        assert ram["dict"] > 100 * told["keys"]
