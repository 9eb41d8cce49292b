"""
page.py -- the report as one HTML file that loads nothing: tables, plots, and how to read them.

It opens with what pykv is not first in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from pykv._bench import plots
from pykv._bench.cost import COUNTS, costs
from pykv._bench.durability import LOST
from pykv._bench.summary import (
    Row,
    fewer_keys,
    loss_lines,
    operation_rows,
    problems_of,
    results,
    short,
    ycsb_rows,
)
from pykv._bench.ycsb import WORKLOADS

ABILITIES = {
    "processes": "processes at once",
    "batches": "atomic batches",
    "ttl": "times to live",
    "ordered": "ordered",
    "shrinks": "gives back space by itself",
}


def write_page(document: dict[str, Any], path: Path) -> None:
    """Write the report of a run."""
    template = Template(files("pykv._bench").joinpath("page.html").read_text(encoding="utf-8"))
    engines = list(document["engines"])
    rows, ycsb = operation_rows(document, "made up"), ycsb_rows(document)
    real = operation_rows(document, "real")
    rates = [row for row in rows if row.more_is_better]
    data = document["data"]
    lines = loss_lines(document, rows + ycsb)
    lines += [f"real data, {line}" for line in loss_lines(document, real)]
    problems = problems_of(document)
    missing = [f"{name}: {why}" for name, why in document["missing"].items()]
    page = template.substitute(
        machine=escape(_machine(document)),
        data=escape(data["about"]),
        rounds=data["rounds"],
        seconds=f"{document['seconds']:,.0f}",
        verdict=_titled("Checks failed:", problems) or "<p>Every answer was right.</p>",
        losses=_titled("", lines) or "<p>Nowhere, among stores on disk.</p>",
        operations=plots.dots(rates, engines, "keys a second", "operations"),
        operations_table=_engines(rows, document),
        abilities=_abilities(document),
        fewer=_titled("Fewer keys:", fewer_keys(document)),
        missing=_titled("Not run:", missing),
        ycsb=plots.dots(ycsb, engines, "operations a second", "ycsb"),
        ycsb_table=_engines(ycsb, document),
        ycsb_latencies=_ycsb_latencies(document),
        workloads=escape(
            "; ".join(f"{name}, {workload.about}" for name, workload in sorted(WORKLOADS.items()))
        ),
        records=f"{data['records']:,}",
        latencies=plots.latencies(document),
        latencies_table=_latencies(document),
        tradeoff=plots.tradeoff(document),
        tradeoff_table=_tradeoff(document),
        cached=escape(data["cached"]),
        page_cache=plots.page_cache(document),
        limited=escape(_limited(document)),
        durability=plots.durability(document),
        lost=_table(["durability", "what a power cut can take"], LOST.items()),
        durability_table=_durability(document),
        space=plots.space(document),
        space_table=_space(document),
        cost=plots.cost(document),
        cost_table=_costs(document),
        ram_price=f"{document['prices']['ram']:g}",
        disk_price=f"{document['prices']['disk']:g}",
        real=escape(data["real"]),
        real_table=_engines(real, document),
        settings=_settings(document),
    )
    path.write_text(page, encoding="utf-8")


def _machine(document: dict[str, Any]) -> str:
    told = document["machine"]
    return (
        f"pykv {told['pykv']}, Python {told['python']}, {told['system']}, {told['processor']},"
        f" {told['processors']} processors, {told['memory_bytes'] / 2**30:.1f} GiB free,"
        f" {told['file_system']}"
    )


def _titled(title: str, lines: Sequence[str]) -> str:
    """Return a list below its title; nothing if there are no lines."""
    if not lines:
        return ""
    return f"<p>{title}</p><ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; cells are text."""
    return _table_of(head, ([escape(cell) for cell in row] for row in rows))


def _table_of(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; cells are HTML, the first of each row names it."""
    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>'
        + "".join(f"<td>{each}</td>" for each in row[1:])
        + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><tr>{names}</tr>{body}</table></div>'


def _engines(rows: Sequence[Row], document: dict[str, Any]) -> str:
    """Return a column an engine: the median, and the least and greatest if rounds differ."""
    engines = document["engines"]

    def cells(row: Row) -> list[str]:
        kept = [row.figures[each].median for each in row.figures if engines[each]["persistent"]]
        best = (max if row.more_is_better else min)(kept, default=None)
        out = [escape(f"{row.name}, {row.unit}".rstrip(", "))]
        for engine in engines:
            spread = row.figures.get(engine)
            if spread is None:
                out.append('<span class="not">-</span>')
                continue
            text = short(spread.median)
            if spread.median == best and engines[engine]["persistent"]:
                text = f"<strong>{text}</strong>"
            least, greatest = short(spread.least), short(spread.greatest)
            if least != greatest:
                text += f"<small>{least} to {greatest}</small>"
            out.append(text)
        return out

    return _table_of(["", *engines], map(cells, rows))


def _abilities(document: dict[str, Any]) -> str:
    rows = (
        [name, *(engine["abilities"][each] for each in ABILITIES)]
        for name, engine in document["engines"].items()
    )
    return _table(["", *ABILITIES.values()], rows)


def _microseconds(nanoseconds: float) -> str:
    return short(nanoseconds / 1000)


def _ycsb_latencies(document: dict[str, Any]) -> str:
    """Return percentiles of each workload's operations, of the last round."""
    told = {each["engine"]: each["operations"] for each in results(document, "ycsb")}
    rows = []
    for engine, workloads in told.items():
        for letter, operations in sorted(workloads.items()):
            for name, timing in operations.items():
                times = (timing[each] for each in ("p50_ns", "p99_ns", "p999_ns", "longest_ns"))
                cells = ("-" if time is None else _microseconds(time) for time in times)
                rows.append([f"{engine}, {letter}, {name}", f"{timing['calls']:,}", *cells])
    return _table(["", "calls", "p50, µs", "p99, µs", "p99.9, µs", "longest, µs"], rows)


def _latencies(document: dict[str, Any]) -> str:
    rows = []
    for each in results(document, "latency"):
        for name, told in each["operations"].items():
            for since, what in (("since_due", "since due"), ("alone", "the call alone")):
                times = map(_microseconds, told[since]["percentiles"].values())
                rows.append([f"{each['engine']}, {name}, {what}", *times])
    return _table(["µs", "p50", "p90", "p99", "p99.9", "max"], rows)


def _tradeoff(document: dict[str, Any]) -> str:
    rows = []
    for each in results(document, "tradeoff"):
        ram = "-" if each["ram_bytes"] is None else f"{each['ram_bytes'] / each['keys']:,.0f}"
        times = each["mean_ns"], *(each["latency"][name] for name in ("p50", "p99", "p99.9"))
        rows.append([each["choice"], ram, *map(_microseconds, times)])
    return _table(["", "RAM, bytes a pair", "mean, µs", "p50, µs", "p99, µs", "p99.9, µs"], rows)


def _limited(document: dict[str, Any]) -> str:
    means = {each["limited_by"] for each in results(document, "pagecache")}
    return " and ".join(sorted(means)) or "nothing: it could not be run"


def _durability(document: dict[str, Any]) -> str:
    rows = []
    for each in results(document, "durability"):
        shared = "-" if each["puts_a_sync"] is None else short(each["puts_a_sync"])
        times = map(_microseconds, each["latency"].values())
        rows.append(
            [f"{each['durability']}, {each['threads']}", short(each["rate"]), shared, *times]
        )
    names = "p50, µs", "p90, µs", "p99, µs", "p99.9, µs", "max, µs"
    return _table(["durability, threads", "puts/s", "puts a sync", *names], rows)


def _space(document: dict[str, Any]) -> str:
    rows = (
        [
            f"{each['percent'] / 100}",
            short(each["rate"]),
            f"{each['write_amplification']:.2f}",
            f"{each['log_to_live']:.2f}",
            f"{each['disk_to_live']:.2f}",
        ]
        for each in results(document, "space")
    )
    head = "overwrites/s", "written for each byte put", "log to live, at most", "disk to live, then"
    return _table(["space_factor", *head], rows)


def _costs(document: dict[str, Any]) -> str:
    bills = {count: costs(document, count) for count in COUNTS}
    head = [""]
    for count in COUNTS:
        head += [f"{count:,} keys: RAM, GB", "disk, GB", "a month"]
    rows = []
    for engine in bills[COUNTS[0]]:
        cells = [engine]
        for count in COUNTS:
            bill = bills[count][engine]
            cells += [short(bill.ram_gb), short(bill.disk_gb), f"{bill.price:,.2f}"]
        rows.append(cells)
    return _table(head, rows)


def _settings(document: dict[str, Any]) -> str:
    rows = (
        (f"{name} {told['version']}", told["settings"])
        for name, told in document["engines"].items()
    )
    return _table(["", "settings"], rows)
