"""`pykv bench --standard`: a whole run, small; its tables, its page, its command."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("click")
pytest.importorskip("rich")
pytest.importorskip("hdrh")
pytest.importorskip("matplotlib")

from click.testing import CliRunner

from pykv._bench import (
    compare,
    cost,
    data,
    durability,
    operations,
    page,
    pagecache,
    plan,
    plots,
    space,
    summary,
    tables,
    tradeoff,
    worker,
)
from pykv._bench.library import Library
from pykv._bench.peers import Sqlite
from pykv._cli import cli


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "IDLE_SECONDS", 0.0)
    monkeypatch.setattr(operations, "THREADS", 4)


# ---- The whole run ----


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with little of everything."""
    make_small(monkeypatch)


def make_small(monkeypatch: pytest.MonkeyPatch) -> None:
    size = plan.Size(500, 2, 0.002, 100, 5000, 1 << 20, False)
    monkeypatch.setitem(plan.SIZES, "standard", size)
    library = Library([{b"keyword.py": b"import re", b"id:re": b"keyword.py:1"}], 1, 1, 1, 9)
    monkeypatch.setattr(plan, "read_library", lambda _with_tests: library)
    monkeypatch.setattr(durability, "THREADS", (2,))
    monkeypatch.setattr(pagecache, "PERCENTS", (100,))
    monkeypatch.setattr(space, "PERCENTS", (200,))
    monkeypatch.setattr(tradeoff, "CHOICES", {"dict": tradeoff.CHOICES["dict"]})


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a small run tells."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_small(monkeypatch)
        base = tmp_path_factory.mktemp("run")
        document = compare.measure(plan.Options(peers=["dict"]), base)
    assert not (base / "task").exists()
    return document


def test_run(document: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
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


class Page(HTMLParser):
    """What a page refers to, its ids, and whether what opens is closed."""

    EMPTY = frozenset({"br", "meta"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.refers: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in self.EMPTY:
            self.open.append(tag)
        self._look(attributes)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._look(attributes)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.EMPTY:
            assert self.open.pop() == tag

    def _look(self, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "id":
                self.ids.append(str(value))
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.refers.append(str(value))
            self.refers += re.findall(r"url\((.*?)\)", value or "")


def test_page(document: dict[str, Any], tmp_path: Path) -> None:
    """The report is one file that loads nothing, with every plot, and text is escaped."""
    told = document | {"machine": document["machine"] | {"processor": "<b>&"}}
    page.write_page(told, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    parsed = Page(text)
    assert parsed.open == []
    assert {"script", "link", "iframe", "img", "object"}.isdisjoint(parsed.tags)
    assert all(each.startswith("#") for each in parsed.refers)
    assert {each[1:] for each in parsed.refers} <= set(parsed.ids)
    assert len(parsed.ids) == len(set(parsed.ids))
    namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"https?://[^\s\"'<>)]+", text)) <= namespaces
    assert "@import" not in text
    assert text.count("<svg") == 8
    assert "&lt;b&gt;&amp;" in text
    assert text.index("Where pykv is not first") < text.index("<h2>Operations")
    assert len(text) < 1_000_000


def test_page_tells_what_failed(document: dict[str, Any], tmp_path: Path) -> None:
    """Parts that could not be run leave a report that says so."""
    results = []
    for each in document["results"]:
        kept = {name: told for name, told in each.items() if name != "result"}
        results.append(kept | {"error": "gone"})
    told = document | {"results": results, "missing": {"redis": "redis-server is not installed"}}
    page.write_page(told, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "pykv, ycsb: gone" in text
    assert "redis: redis-server is not installed" in text
    tables.print_tables(told)


def test_fewer_keys(document: dict[str, Any]) -> None:
    """An engine that was measured with fewer keys is named, with the fewest of its rounds."""
    assert summary.fewer_keys(document) == []
    told = copy.deepcopy(document)
    rounds = [each for each in told["results"] if each["arguments"].get("engine") == "dict"]
    for each, keys in zip(rounds[:2], (400, 300), strict=True):
        each["result"]["keys"] = keys
    lines = ["dict was so slow that it was measured with 300 keys of 500"]
    assert summary.fewer_keys(told) == lines


def test_frontier() -> None:
    """What another beats in both RAM and time is not on it."""
    assert plots.frontier([(3, 1), (1, 9), (2, 9), (4, 2), (2, 5)]) == [(1, 9), (2, 5), (3, 1)]


def test_names_keep_their_distance() -> None:
    """Names of lines that end at one place are moved apart, in their order."""
    moved = plots._apart([5.0, 5.1, 5.2, 50.0], 10)
    assert moved == sorted(moved)
    assert min(b - a for a, b in pairwise(moved)) > 9.9
    assert moved[-1] == 50.0


def test_costs(document: dict[str, Any]) -> None:
    """RAM and disk of many keys, by what was measured of few; in memory there is no disk."""
    bill = cost.cost_of(12e9, 250e9, ram_price=3, disk_price=0.1)
    assert (bill.ram_gb, bill.disk_gb, bill.price) == (12, 250, 61)
    found = cost.costs(document, 1_000_000)
    assert found.keys() == {"pykv", "dict"}
    assert found["dict"].disk_gb == 0 < found["pykv"].disk_gb
    told = copy.deepcopy(document)
    told["engines"]["pykv"]["ram_max"] = 1 << 20  # as of an engine whose cache is so large
    for result in told["results"]:
        if result["part"] == "occupied":
            result["result"]["ram_bytes"] = 100 * result["result"]["keys"]
    few, many = (cost.costs(told, keys)["pykv"].ram_gb for keys in (1000, 1_000_000))
    assert (few, many) == (pytest.approx(1e-4), pytest.approx((1 << 20) / 1e9))
    assert cost.costs(told, 1_000_000)["dict"].ram_gb == pytest.approx(0.1)


def test_command(document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command hands its options on, writes both files, and fails if a check did."""
    asked: list[plan.Options] = []
    told = dict(document)

    def measure(options: plan.Options, base: Path) -> dict[str, Any]:
        assert base.parent == tmp_path
        asked.append(options)
        return told

    monkeypatch.setattr(compare, "measure", measure)
    out = tmp_path / "out"
    words = ["bench", "--standard", "--peers", "dict, sqlite3", "--keys", "9", "--ram-price", "5"]
    words += ["--directory", str(tmp_path), "--out", str(out)]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    assert asked == [plan.Options(peers=["dict", "sqlite3"], keys=9, ram_price=5)]
    assert json.loads((out / "results.json").read_text()) == document
    assert (out / "report.html").exists()
    told["results"] = [
        *document["results"],
        {"part": "space", "arguments": {}, "about": "", "error": "no"},
    ]
    assert CliRunner().invoke(cli, words).exit_code == 1


def test_the_extra_that_is_missing_is_named() -> None:
    """Without the libraries for the plots, one line says what to install."""
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from pykv._cli import cli; cli(['bench', '--standard'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "Error: matplotlib is missing: pip install 'pykv-engine[bench]'\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--standard", "--peers", "dikt"], "no peer is called 'dikt'"),
        (["--quick", "--keys", "5"], "--keys: only with --standard"),
        (["--full", "--keys", "0"], "0 is not in the range"),
        (["--standard", "--data", "/nowhere"], "does not exist"),
    ],
)
def test_wrong_usage(words: list[str], message: str) -> None:
    """What cannot be meant is exit code 2, and says why."""
    done = CliRunner().invoke(cli, ["bench", *words])
    assert done.exit_code == 2
    assert message in done.output


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


def test_a_system_without_posix_fadvise(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be measured there is told and left out; the page does without."""
    monkeypatch.setattr(pagecache, "CAN_EVICT", False)
    monkeypatch.setattr(compare, "run_part", lambda *_, **__: {"problems": []})
    document = compare.measure(plan.Options(peers=[]), tmp_path)
    assert {"prepare", "tradeoff", "pagecache"}.isdisjoint(
        each["part"] for each in document["results"]
    )
    assert "posix_fadvise" in str(document["missing"])


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
