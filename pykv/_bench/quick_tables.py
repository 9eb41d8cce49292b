"""quick_tables.py -- the tables of the main job, as a person reads them."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from pykv._bench.library import Library
from pykv._bench.measure import Timing

if TYPE_CHECKING:
    from pykv._bench.quick import ModeResult

WIDTH_MIN = 80  # columns, where a terminal has fewer, or stdout is none
OPERATIONS_CAPTION = (
    "One thread. a second: keys, by the time of the calls alone. p50 to longest: microseconds of a"
    " call; - where too few calls were made to tell."
)
STORES_CAPTION = (
    "RAM: bytes. open: milliseconds to open and read one key, median, after a close and after a"
    " kill. acked: batches that the killed writers had acknowledged; lost: keys of them."
)


def print_report(
    context: dict[str, object], library: Library, results: Sequence[ModeResult], seconds: float
) -> None:
    """Print what was stored, the two tables, and whether every check held."""
    console = Console(highlight=False)
    console.width = max(console.width, WIDTH_MIN) if sys.stdout.isatty() else WIDTH_MIN
    console.print(
        f"pykv {context['pykv']}, Python {context['python']}, {context['system']},"
        f" {context['processors']} processors, {context['file_system']} on {context['directory']}"
    )
    console.print(
        f"The standard library: {library.files:,} files, {library.source_bytes / 1e6:,.1f} MB;"
        f" {library.identifiers:,} identifiers in {library.places:,} places;"
        f" {len(library.batches):,} batches."
    )
    console.print(_operations(results))
    console.print(_stores(results))

    problems = [
        f"{result.durability}, {result.io}: {problem}"
        for result in results
        for problem in result.problems
    ]
    for problem in problems:
        console.print(problem, style="bold red", markup=False)
    killed = [result.killed for result in results if result.killed is not None]
    console.print(
        f"{sum(each.kills for each in killed)} writers killed with SIGKILL;"
        f" {sum(each.acknowledged for each in killed):,} batches that they had acknowledged,"
        f" {sum(each.lost for each in killed):,} keys of them lost,"
        f" {sum(each.torn for each in killed):,} batches there in part"
        f" ({sum(each.checked_keys for each in killed):,} keys compared)."
    )
    verdict = f"{len(problems)} CHECKS FAILED." if problems else "Every check held."
    console.print(f"{verdict} {seconds:.0f} seconds.", style="bold red" if problems else "bold")


def _table(title: str, caption: str) -> Table:
    return Table(
        title=title,
        caption=caption,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )


def _operations(results: Sequence[ModeResult]) -> Table:
    table = _table("Operations", OPERATIONS_CAPTION)
    table.add_column("durability, io", no_wrap=True)
    for name in ("calls", "a second", "p50", "p99", "p99.9", "longest"):
        table.add_column(name, justify="right", no_wrap=True)
    for result in results:
        table.add_row(f"[bold]{result.durability}, {result.io}")
        for timing in result.timings:
            table.add_row(f"  {timing.operation}", *_cells(timing))
        if not result.timings:
            table.add_row("  could not be run")
    return table


def _cells(timing: Timing) -> list[str]:
    latencies = timing.p50_ns, timing.p99_ns, timing.p999_ns, timing.longest_ns
    return [
        f"{timing.calls:,}",
        f"{timing.rate:,.0f}",
        *map(_microseconds, latencies),
    ]


def _microseconds(nanoseconds: int | None) -> str:
    if nanoseconds is None:
        return "-"
    return f"{nanoseconds / 1000:,.{1 if nanoseconds < 1_000_000 else 0}f}"


def _stores(results: Sequence[ModeResult]) -> Table:
    table = _table("Stores", STORES_CAPTION)
    table.add_column("durability, io", no_wrap=True)
    for name in (
        *("keys", "RAM\na key", "live\nMB", "disk\nMB", "open\nclean", "open\nkilled"),
        *("kills", "acked", "lost"),
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for result in results:
        cells = ["-"] * 5
        if result.keys:
            cells[:4] = [
                f"{result.keys:,}",
                f"{result.keydir_bytes / result.keys:.1f}",
                f"{result.live_bytes / 1e6:,.0f}",
                f"{result.disk_bytes / 1e6:,.0f}",
            ]
        if result.open_ms is not None:
            cells[4] = f"{result.open_ms:.2f}"
        killed = result.killed
        if killed is None or not killed.kills:
            cells += ["-"] * 4
        else:
            cells += [
                f"{statistics.median(killed.open_ms):.2f}",
                f"{killed.kills}",
                f"{killed.acknowledged:,}",
                f"{killed.lost:,}",
            ]
        table.add_row(f"{result.durability}, {result.io}", *cells)
    return table
