"""The trade-offs, latencies and data of `pykv bench`: each part does what its name says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("rich")
pytest.importorskip("hdrh")

import pykv
from pykv._bench import data, durability, latency, pagecache, space, tradeoff


def test_reads_that_bring_a_wrong_value_are_counted() -> None:
    """The reads at random of the trade-offs compare each value."""
    pairs = {b"%d" % number: b"x" for number in range(100)}
    times, wrong = pagecache.read_at_random(lambda _key: b"y", pairs, list(pairs), 60, 50)
    assert (len(times), wrong) == (50, 50)
    assert pagecache.read_at_random(pairs.get, pairs, list(pairs), 60, 50)[1] == 0


evicts = pytest.mark.skipif(not pagecache.CAN_EVICT, reason="no posix_fadvise here")


@evicts
def test_the_cache_is_emptied_and_filled(path: Path) -> None:
    """What is in the page cache is asked, taken out, and brought back in by halves."""
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


@evicts
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
    for root, *_ in pagecache.GROUPS:
        assert not (root / f"pykv-bench-{os.getpid()}").exists()


def test_a_group_of_its_own() -> None:
    """A process that was in a control group of the benchmark is back where it was."""
    before = Path("/proc/self/cgroup").read_text()
    with pagecache.control_group() as group:
        if group is None:
            pytest.skip("no control groups here")
        assert Path("/proc/self/cgroup").read_text() != before
        assert int(group[1].read_text()) >= 0
    assert Path("/proc/self/cgroup").read_text() == before


@evicts
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
