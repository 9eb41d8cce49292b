"""`pykv bench --standard`: its parts run and check their answers; what lies is found out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rich")
pytest.importorskip("hdrh")

from pykv._bench import (
    compare,
    data,
    durability,
    latency,
    operations,
    pagecache,
    plan,
    space,
    summary,
    tables,
    tradeoff,
    worker,
    ycsb,
)
from pykv._bench import engines as all_engines
from pykv._bench.library import Library
from pykv._bench.peers import Sqlite

ENGINES = all_engines.engines()
KEYS = 3000


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "IDLE_SECONDS", 0.0)
    monkeypatch.setattr(operations, "THREADS", 4)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A file of pairs."""
    file = tmp_path / "pairs"
    data.write_pairs(data.made_up(KEYS, 16, 100, seed=1), file)
    return file


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
    if not ENGINES[name].persistent:
        expected -= {"put in 1,000s"}
    assert result["rates"].keys() == expected
    assert min(result["rates"].values()) > 0
    if ENGINES[name].persistent:
        assert result["figures"]["killed_lost"] == (operations.KILL_KEYS if name == "dbm" else 0)


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
def test_ycsb(name: str, tmp_path: Path) -> None:
    """Every engine runs the six workloads, and every answer is right."""
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


def test_reads_that_bring_a_wrong_value_are_counted() -> None:
    """The reads at random of the trade-offs compare each value."""
    pairs = {b"%d" % number: b"x" for number in range(100)}
    times, wrong = pagecache.read_at_random(lambda _key: b"y", pairs, list(pairs), 60, 50)
    assert (len(times), wrong) == (50, 50)
    assert pagecache.read_at_random(pairs.get, pairs, list(pairs), 60, 50)[1] == 0


def test_the_cache_is_emptied_and_filled(path: Path) -> None:
    """What is in the page cache is asked, taken out, and brought back in by halves."""
    import pykv

    with pykv.open(path) as db:
        db.put_many({b"%d" % number: bytes(1000) for number in range(8000)})
    size = sum(file.stat().st_size for file in pagecache.log_files(path))
    pagecache.evict(path)
    if pagecache.resident_bytes(path):
        pytest.skip("this file system keeps its pages")
    pagecache.read_through(path, 0.5)
    assert 0.2 * size < pagecache.resident_bytes(path) < 0.8 * size
    pagecache.read_through(path)
    assert pagecache.resident_bytes(path) >= size


@pytest.mark.parametrize("limited", [True, False])
def test_page_cache(
    limited: bool, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep runs with a limit of the kernel, where it may set one, and without."""
    if not limited:
        monkeypatch.setattr(pagecache, "GROUPS", ())
    pagecache.prepare(tmp_path, str(pairs))
    result = pagecache.measure(tmp_path, str(pairs), 50, "pread", 0.01)
    assert result["problems"] == []
    assert 0 <= result["hit_rate"] <= 1
    if not limited:
        assert result["limited_by"] == "posix_fadvise"


@pytest.mark.parametrize("choice", tradeoff.CHOICES)
def test_tradeoff(choice: str, pairs: Path, tmp_path: Path) -> None:
    """Each way to keep the data answers right and tells its RAM."""
    pagecache.prepare(tmp_path, str(pairs))
    result = tradeoff.measure(tmp_path, str(pairs), choice, 0.01)
    assert result["problems"] == []
    assert result["ram_bytes"] is None or result["ram_bytes"] >= 0


def test_durability_and_space(pairs: Path, tmp_path: Path) -> None:
    """Committers share syncs, every put is there afterwards; the log keeps to its bound."""
    for mode in durability.LOST:
        directory = tmp_path / mode
        directory.mkdir()
        result = durability.measure(directory, mode, 4, 0.02)  # type: ignore[arg-type]
        assert result["problems"] == []
        assert result["rate"] > 0
    assert result["puts_a_sync"] >= 1
    result = space.measure(tmp_path, str(pairs), 300, 0.01)
    assert result["problems"] == []
    assert result["write_amplification"] >= 1


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
        assert told["keys"] == KEYS
        ram[name] = told["ram_bytes"]
    if ram["dict"] is not None:
        assert ram["dict"] > KEYS * 116 > 0


# ---- The whole run ----


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with little of everything."""
    size = plan.Size(500, 2, 0.002, 100, 5000, 1 << 20, False)
    monkeypatch.setitem(plan.SIZES, "standard", size)
    library = Library([{b"keyword.py": b"import re", b"id:re": b"keyword.py:1"}], 1, 1, 1, 9)
    monkeypatch.setattr(plan, "read_library", lambda _with_tests: library)
    monkeypatch.setattr(durability, "THREADS", (2,))
    monkeypatch.setattr(pagecache, "PERCENTS", (100,))
    monkeypatch.setattr(space, "PERCENTS", (200,))
    monkeypatch.setattr(tradeoff, "CHOICES", {"dict": tradeoff.CHOICES["dict"]})


@pytest.fixture
def document(small: None, tmp_path: Path) -> dict[str, Any]:
    """What a small run tells."""
    return compare.measure(plan.Options(peers=["dict"]), tmp_path)


def test_run(document: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All parts run, in turn; the document is JSON, and the tables show it."""
    assert summary.problems_of(document) == []
    assert json.loads(json.dumps(document)) == document
    assert document["schema"] == compare.SCHEMA
    assert list(document["engines"]) == ["pykv", "dict"]
    parts = [each["part"] for each in document["results"]]
    assert {*parts} == {*worker.PARTS} - {"reader", "victim"}
    turns = [each["arguments"]["engine"] for each in document["results"][:4]]
    assert turns == ["pykv", "dict"] * 2
    for row in summary.operation_rows(document, "made up") + summary.ycsb_rows(document):
        for spread in row.figures.values():
            assert spread.least <= spread.median <= spread.greatest
    tables.print_tables(document)
    printed = capsys.readouterr().out
    assert "Every answer was right." in printed
    assert printed.index("Where pykv is not first") < printed.index("Operations")
    assert not (tmp_path / "task").exists()


def test_failures_are_told(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that fails is a problem of the run, and so is a wrong answer; neither ends it."""

    def run_part(part: str, _directory: Path, **arguments: Any) -> dict[str, Any]:
        if part == "ycsb":
            raise worker.PartError("no answer in 900 seconds")
        return {"problems": ["get: 1 of 2 answers are wrong"] if part == "latency" else []}

    monkeypatch.setattr(compare, "run_part", run_part)
    document = compare.measure(plan.Options(peers=[]), tmp_path)
    assert summary.problems_of(document) == [
        *["pykv, ycsb: no answer in 900 seconds"] * 2,
        "pykv: get: 1 of 2 answers are wrong",
    ]


def test_a_part_that_fails_says_why(tmp_path: Path) -> None:
    """The last line on stderr is what the report tells."""
    with pytest.raises(worker.PartError, match="FileNotFoundError"):
        worker.run_part("prepare", tmp_path, data=str(tmp_path / "missing"))


def test_missing_peers(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not installed is told, and left out."""
    monkeypatch.setattr(Sqlite, "needs", ("nobody_has_this",))
    monkeypatch.setattr(compare, "run_part", lambda *_, **__: {"problems": []})
    document = compare.measure(plan.Options(peers=["sqlite3", "dict"]), tmp_path)
    assert document["missing"]["sqlite3"] == "nobody_has_this is not installed"
    assert list(document["engines"]) == ["pykv", "dict"]


def test_what_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with little memory or disk gets fewer keys; none of the sizes grows."""
    full = plan.SIZES["full"]
    monkeypatch.setattr(plan, "memory_available", lambda: 1 << 40)
    monkeypatch.setattr(plan, "disk_free", lambda _directory: 1 << 40)
    assert plan.fitting(full, 116, tmp_path) == full
    monkeypatch.setattr(plan, "memory_available", lambda: 64 << 20)
    little = plan.fitting(full, 116, tmp_path)
    assert 1 <= little.keys * (116 + plan.PAIR_OVERHEAD) <= 16 << 20
    monkeypatch.setattr(plan, "disk_free", lambda _directory: 10 << 20)
    less = plan.fitting(full, 116, tmp_path)
    assert less.keys < little.keys
    assert less.records < little.records
    assert replace(less, keys=0, records=0, cache_bytes=0) == replace(
        full, keys=0, records=0, cache_bytes=0
    )


def test_losses() -> None:
    """Where another store on disk is ahead, the report says so first; a dict is no such store."""

    def row(name: str, more_is_better: bool, **figures: float) -> summary.Row:
        spreads = {engine: summary.Spread(each, each, each) for engine, each in figures.items()}
        return summary.Row(name, "", more_is_better, spreads)

    kept = {"pykv": True, "sqlite3": True, "dict": False}
    document = {"engines": {name: {"persistent": each} for name, each in kept.items()}}
    rows = [
        row("put", True, pykv=100, sqlite3=50, dict=900),
        row("get", True, pykv=100, sqlite3=300),
        row("open", False, pykv=2, sqlite3=1),
        row("level", True, pykv=100, sqlite3=101),
        row("lost", False, pykv=0, sqlite3=1000),
    ]
    found = summary.losses(document, rows)
    assert [(loss.row.name, loss.engine, loss.times) for loss in found] == [
        ("get", "sqlite3", 3.0),
        ("open", "sqlite3", 2.0),
    ]
    assert summary.loss_lines(document, rows)[0] == "get: pykv 100 ; sqlite3 300 (3.00 times)"


# ---- YCSB's distributions ----


def test_zipfian() -> None:
    """Ranks come as often as the law says: the first two exactly, shares of all closely."""
    import random

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
    import random

    grown, made = ycsb.Zipfian(100, random.Random(3)), ycsb.Zipfian(5000, random.Random(3))
    grown.grow(5000)
    assert [grown.draw() for _ in range(500)] == [made.draw() for _ in range(500)]


def test_keys_and_hot_records() -> None:
    """Keys are those of YCSB; its hottest record is drawn once in 26.5 times, the newest is hottest."""
    assert ycsb.key_of(0) == b"user6284781860667377211"
    records = ycsb.Records(2000, seed=1)
    draws = 20_000
    hottest = ycsb.key_of(ycsb.fnv_hash(0) % 2000)
    drawn = [records.choose("zipfian") for _ in range(draws)]
    assert drawn.count(hottest) / draws == pytest.approx(1 / ycsb.SCRAMBLED_ZETA, rel=0.1)
    assert max(set(drawn), key=drawn.count) == hottest
    latest = [records.choose("latest") for _ in range(draws)]
    assert max(set(latest), key=latest.count) == ycsb.key_of(1999)


def test_shares_of_operations() -> None:
    """Each workload has the operations of its definition, in their shares."""
    from itertools import islice

    for workload in ycsb.WORKLOADS.values():
        records = ycsb.Records(100, seed=2)
        done = [each.name for each in islice(records.operations(workload), 2000)]
        for name, share in workload.shares.items():
            assert done.count(name) / 2000 == pytest.approx(share, abs=0.04)


# ---- Latencies ----


def test_a_stall_counts_for_all_who_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that takes 50 ms delays those due meanwhile: the time alone hides them."""
    now = 0

    class Clock:
        @staticmethod
        def perf_counter_ns() -> int:
            nonlocal now
            now += 100
            return now

    def call(number: int) -> None:
        nonlocal now
        now += 50_000_000 if number == 100 else 1_000

    monkeypatch.setattr(latency, "time", Clock)
    since_due, alone = latency.open_loop(call, range(1000), rate=10_000)  # one due each 100 us
    assert sum(each > 1_000_000 for each in alone) == 1
    late = [each for each in since_due if each > 1_000_000]
    assert 450 < len(late) < 550
    assert max(late) == pytest.approx(50_000_000, rel=0.01)
    told = latency.summary(since_due)["percentiles"]
    assert told["p50"] > 1_000 * latency.summary(alone)["percentiles"]["p50"] / 1_000
    assert told["p90"] > 40_000_000
    assert latency.summary(alone)["percentiles"]["p99"] < 2_000


def test_latencies(pairs: Path, tmp_path: Path) -> None:
    """Percentiles and curves rise, of gets and of puts."""
    directory = tmp_path / "store"
    directory.mkdir()
    result = latency.measure(directory, "pykv", str(pairs), rate=20_000, seconds=0.05)
    assert result["problems"] == []
    for operation in ("get", "put"):
        told = result["operations"][operation]["since_due"]
        assert list(told["percentiles"].values()) == sorted(told["percentiles"].values())
        assert told["curve"] == sorted(told["curve"])


# ---- Data ----


def test_data_of_the_user(tmp_path: Path) -> None:
    """JSON lines, CSV, TSV and directories become pairs; no more than there is room for."""
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"id": 7, "name": "Ada"}\n\n{"name": "Bob"}\n[1]\n')
    expected = {b"7": b'{"id": 7, "name": "Ada"}', b"3": b'{"name": "Bob"}', b"4": b"[1]"}
    assert data.read_data(lines, 1000) == (expected, True)
    (tmp_path / "a.csv").write_text('k,v,w\n"x,y",1,2\n')
    assert data.read_data(tmp_path / "a.csv", 1000) == ({b"k": b"v,w", b"x,y": b"1,2"}, True)
    (tmp_path / "a.tsv").write_text("k\tv\tw\n")
    assert data.read_data(tmp_path / "a.tsv", 1000) == ({b"k": b"v\tw"}, True)
    files = tmp_path / "files" / "deep"
    files.mkdir(parents=True)
    (files / "one").write_bytes(b"\x00\xff")
    assert data.read_data(tmp_path / "files", 1000) == ({b"deep/one": b"\x00\xff"}, True)
    assert data.read_data(lines, 30) == ({b"7": b'{"id": 7, "name": "Ada"}'}, False)
    lines.write_text('{"id": 1}\n{"id"')
    with pytest.raises(ValueError, match="line 2: no JSON"):
        data.read_data(lines, 1000)


def test_pairs_survive_their_file(tmp_path: Path) -> None:
    """What the processes read is what was made: different keys, of the size asked for."""
    made = dict(data.made_up(200, 2, 50, seed=3))
    assert len(made) == 200
    assert {(len(key), len(value)) for key, value in made.items()} == {(2, 50)}
    data.write_pairs(made.items(), tmp_path / "pairs")
    assert data.read_pairs(tmp_path / "pairs") == made
    assert list(data.read_pairs(tmp_path / "pairs", 3).items()) == list(made.items())[:3]


def test_plan_of_the_users_data(small: None, tmp_path: Path) -> None:
    """--data is what the engines are compared with; nothing to store is an error."""
    rows = tmp_path / "rows.csv"
    rows.write_text("".join(f"{number},{number * 7}\n" for number in range(40)))
    base = tmp_path / "base"
    base.mkdir()
    _tasks, told = plan.plan(plan.Options(data=rows), base, ["pykv"])
    assert told["keys"] == 40
    assert data.read_pairs(base / "compared")[b"3"] == b"21"
    rows.write_text("")
    with pytest.raises(ValueError, match="holds nothing"):
        plan.plan(plan.Options(data=rows), base, ["pykv"])
    with pytest.raises(ValueError, match="different keys"):
        plan.plan(plan.Options(key_bytes=1), base, ["pykv"])
