"""tables.py -- what a comparison found, on the terminal: where pykv loses first."""

from __future__ import annotations

import sys
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from pykv._bench.cost import COUNTS, costs
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

WIDTH_MIN = 130  # columns, where a terminal has fewer, or stdout is none


def print_tables(document: dict[str, Any]) -> None:
    """Print all of it, and last whether every answer was right."""
    console = Console(highlight=False)
    console.width = max(console.width, WIDTH_MIN) if sys.stdout.isatty() else WIDTH_MIN
    machine = document["machine"]
    console.print(
        f"pykv {machine['pykv']}, Python {machine['python']}, {machine['system']},"
        f" {machine['processor']}, {machine['processors']} processors, {machine['file_system']}"
    )
    console.print(f"{document['data']['about']}; {document['data']['rounds']} rounds, medians.")
    rows, ycsb = operation_rows(document, "made up"), ycsb_rows(document)
    real = operation_rows(document, "real")
    console.print("\nWhere pykv is not first:", style="bold")
    lines = loss_lines(document, rows + ycsb)
    lines += [f"real data, {line}" for line in loss_lines(document, real)]
    for line in lines or ["nowhere, among stores on disk"]:
        console.print(f"  {line}", markup=False)
    engines = list(document["engines"])
    console.print(_engines("Operations", rows, engines))
    console.print(_engines("YCSB, operations a second", ycsb, engines))
    console.print(_engines(f"Real data: {document['data']['real']}", real, engines))
    console.print(_latencies(document))
    console.print(_abilities(document))
    for table in (
        _tradeoff(document),
        _page_cache(document),
        _durability(document),
        _space(document),
        _costs(document),
    ):
        console.print(table)
    for line in fewer_keys(document):
        console.print(line)
    for name, why in document["missing"].items():
        console.print(f"not run: {name}: {why}", markup=False)
    problems = problems_of(document)
    for problem in problems:
        console.print(problem, style="bold red", markup=False)
    verdict = f"{len(problems)} CHECKS FAILED." if problems else "Every answer was right."
    console.print(
        f"{verdict} {document['seconds']:.0f} seconds.", style="bold red" if problems else "bold"
    )


def _table(title: str, columns: list[str]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(columns[0])
    for name in columns[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _engines(title: str, rows: list[Row], engines: list[str]) -> Table:
    table = _table(title, ["", *engines])
    for row in rows:
        cells = [
            short(row.figures[name].median) if name in row.figures else "-" for name in engines
        ]
        table.add_row(f"{row.name}, {row.unit}".rstrip(", "), *cells)
    return table


def _latencies(document: dict[str, Any]) -> Table:
    data = document["data"]
    names = ["p50", "p90", "p99", "p99.9", "max"]
    title = f"Latency at {data['rate']:,} calls a second, since each was due, us"
    table = _table(
        title, ["", *(f"{operation} {name}" for operation in ("get", "put") for name in names)]
    )
    for each in results(document, "latency"):
        cells = [
            short(each["operations"][operation]["since_due"]["percentiles"][name] / 1000)
            for operation in ("get", "put")
            for name in names
        ]
        table.add_row(each["engine"], *cells)
    return table


def _abilities(document: dict[str, Any]) -> Table:
    table = Table(
        title="What each can do", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
    titles = (
        "",
        "processes at once",
        "atomic batches",
        "times to live",
        "ordered",
        "gives back space",
    )
    for name in titles:
        table.add_column(name)
    for name, engine in document["engines"].items():
        table.add_row(name, *engine["abilities"].values())
    return table


def _tradeoff(document: dict[str, Any]) -> Table:
    title = f"RAM against disk: {document['data']['cached']}, gets at random"
    table = _table(title, ["", "RAM, bytes a pair", "mean us", "p50 us", "p99 us"])
    for each in results(document, "tradeoff"):
        ram = "-" if each["ram_bytes"] is None else f"{each['ram_bytes'] / each['keys']:,.0f}"
        latency = each["latency"]
        times = each["mean_ns"], latency["p50"], latency["p99"]
        table.add_row(each["choice"], ram, *(f"{time / 1000:,.1f}" for time in times))
    return table


def _page_cache(document: dict[str, Any]) -> Table:
    table = _table(
        "Less memory than data", ["io, memory", "hit rate", "gets/s", "mean us", "p99 us"]
    )
    for each in results(document, "pagecache"):
        table.add_row(
            f"{each['io']}, {each['percent']} %",
            f"{each['hit_rate']:.0%}",
            short(each["rate"]),
            f"{each['mean_ns'] / 1000:,.1f}",
            f"{each['latency']['p99'] / 1000:,.1f}",
        )
    return table


def _durability(document: dict[str, Any]) -> Table:
    table = _table("Durability", ["mode, committers", "puts/s", "puts a sync", "p50 us", "p99 us"])
    for each in results(document, "durability"):
        shared = each["puts_a_sync"]
        table.add_row(
            f"{each['durability']}, {each['threads']}",
            short(each["rate"]),
            "-" if shared is None else short(shared),
            *(f"{each['latency'][name] / 1000:,.1f}" for name in ("p50", "p99")),
        )
    return table


def _costs(document: dict[str, Any]) -> Table:
    prices = document["prices"]
    title = f"A month, at {prices['ram']:g} a GB of RAM and {prices['disk']:g} a GB of disk"
    table = _table(title, ["", *(f"{count:,} keys" for count in COUNTS)])
    bills = [costs(document, count) for count in COUNTS]
    for engine in bills[0]:
        each = (bill[engine] for bill in bills)
        cells = (f"{c.price:,.2f} ({short(c.ram_gb)} GB, {short(c.disk_gb)} GB)" for c in each)
        table.add_row(engine, *cells)
    return table


def _space(document: dict[str, Any]) -> Table:
    columns = ["space_factor", "overwrites/s", "written for each byte put", "log to live, at most"]
    table = _table("Space against write throughput", columns)
    for each in results(document, "space"):
        table.add_row(
            f"{each['percent'] / 100}",
            short(each["rate"]),
            f"{each['write_amplification']:.2f}",
            f"{each['log_to_live']:.2f}",
        )
    return table
