"""The main job, `pykv bench`: its input is what it says, and each of its checks can fail."""

from __future__ import annotations

import io
import keyword
import sys
import tokenize
from pathlib import Path

import pytest

import pykv

pytest.importorskip("rich")

from pykv._bench import kill as killing
from pykv._bench import library as libraries
from pykv._bench import measure, quick

BATCHES = [{b"%d:%d" % (batch, n): b"x" * n for n in range(20)} for batch in range(200)]
OPTIONS = {"durability": "process", "io": "mmap"}


@pytest.fixture
def library(tmp_path: Path) -> libraries.Library:
    """A small input, ready for writers."""
    made = libraries.Library(BATCHES, 0, 0, 0, 0)
    killing.write_plan(made, tmp_path / "plan.json")
    with pykv.open(tmp_path / "source.kv") as db:
        db.put_many(made.pairs())
    return made


def kill(library: libraries.Library, tmp_path: Path) -> killing.Killed:
    source, plan = tmp_path / "source.kv", tmp_path / "plan.json"
    return killing.kill_writers(library, source, plan, tmp_path / "store.kv", OPTIONS, 2)


@pytest.mark.parametrize("module", [keyword, tokenize, libraries, sys.modules[__name__]])
def test_identifiers_are_those_of_tokenize(module: object) -> None:
    """The regular expression finds the names that Python's own tokenizer finds, on their lines."""
    source = Path(str(module.__file__)).read_bytes()  # type: ignore[attr-defined]
    expected: dict[bytes, list[int]] = {}
    fstring = getattr(tokenize, "FSTRING_START", None)  # from 3.12 on, the names inside are tokens
    depth = 0
    for token in tokenize.tokenize(io.BytesIO(source).readline):
        depth += token.type == fstring if fstring else 0
        depth -= token.type == getattr(tokenize, "FSTRING_END", None) if fstring else 0
        if token.type == tokenize.NAME and not keyword.iskeyword(token.string) and not depth:
            lines = expected.setdefault(token.string.encode(), [])
            if token.start[0] not in lines:
                lines.append(token.start[0])
    assert libraries._identifiers(source) == expected


def test_library() -> None:
    """Each source file is there under its path, and each identifier with its places."""
    library = libraries.read_library(with_tests=False)
    pairs = library.pairs()
    source = pairs[b"keyword.py"]
    assert source == Path(keyword.__file__).read_bytes()
    line = next(n for n, text in enumerate(source.splitlines(), 1) if text.startswith(b"kwlist ="))
    assert b"keyword.py:%d" % line in pairs[b"id:kwlist"]
    assert sum(map(len, library.batches)) == len(pairs) == library.files + library.identifiers
    assert not any(b"site-packages" in key for key in pairs)


def test_percentiles() -> None:
    """A percentile is told only where calls lie beyond it."""
    timing = measure.timing_of("get", list(range(1000, 0, -1)), 2000)
    assert (timing.calls, timing.p50_ns, timing.p99_ns, timing.p999_ns) == (1000, 501, 991, 1000)
    assert timing.longest_ns == 1000
    assert timing.rate == pytest.approx(2000 / 500_500e-9)
    assert measure.timing_of("get", list(range(999)), 999).p999_ns is None
    assert measure.timing_of("get", [1], 1).p50_ns is None


def test_kills(library: libraries.Library, tmp_path: Path) -> None:
    """Writers are killed, and what they had acknowledged is there."""
    killed = kill(library, tmp_path)
    assert (killed.lost, killed.torn, killed.problems) == (0, 0, [])
    assert 1 <= killed.kills <= 2
    assert killed.acknowledged > 0


@pytest.mark.parametrize(
    ("lie", "problem"),
    [
        ("print(number, flush=True); number % 9 or db.put_many(pairs)", "lost or wrong"),
        ("db.put_many(pairs); db[b'nobody'] = b''; print(number, flush=True)", "nobody wrote"),
        ("{db.put(*pair): time.sleep(.0003) for pair in pairs}; print(number, flush=True)", "part"),
        ("print(number, flush=True); number < 30 or sys.exit(3)", "status 3"),
    ],
)
def test_lies_are_found(
    library: libraries.Library,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lie: str,
    problem: str,
) -> None:
    """A writer that acknowledges what it has not written, or writes by halves, is found out."""
    script = tmp_path / "writer.py"
    script.write_text(
        "import json, sys, time\nimport pykv\n"
        "source, plan, store, durability, io, first = sys.argv[1:]\n"
        "with pykv.open(source, 'r') as all, pykv.open(store) as db:\n"
        "    for number, keys in enumerate(json.load(open(plan))):\n"
        "        pairs = [(key.encode(), all[key.encode()]) for key in keys]\n"
        "        if number >= int(first):\n"
        f"            {lie}\n"
    )
    monkeypatch.setattr(killing, "WRITER", [sys.executable, str(script)])
    assert problem in " ".join(kill(library, tmp_path).problems)


def test_wrong_values_are_found(path: Path) -> None:
    """The comparison of all that is there sees a value that differs, a key too few, one too many."""
    pairs = {b"a": b"1", b"b": b"2"}
    for content in ({b"a": b"1", b"b": b"3"}, {b"a": b"1"}, pairs | {b"c": b""}):
        result = quick.ModeResult("process", "mmap")
        with pykv.open(path, "n") as db:
            db.put_many(content)
            quick.check(result, db, pairs, "now")
        assert result.problems
    result = quick.ModeResult("process", "mmap")
    with pykv.open(path, "n") as db:
        db.put_many(pairs)
        quick.check(result, db, pairs, "now")
    assert result.problems == []
