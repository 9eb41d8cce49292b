"""summary.py -- figures out of a document: rows of engines side by side, and where pykv loses."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

NEGLIGIBLE = 1.02  # a difference of less is none
OPERATIONS = (
    *(
        "put",
        "put in 1,000s",
        "get",
        "get in 1,000s",
        "get, absent",
        "overwrite",
        "delete",
        "items",
    ),
    *("durable put, 1 thread", "durable put, 16 threads"),
    *("get, 1 process", "get, 2 processes"),
)
YCSB = "load", "A", "B", "C", "D", "E", "F"


def problems_of(document: dict[str, Any]) -> list[str]:
    """Return a line for each task that failed, and for each check that did, in a task."""
    lines = []
    for each in document["results"]:
        name = each["arguments"].get("engine", each["part"])
        if "error" in each:
            lines.append(f"{name}, {each['part']}: {each['error']}")
        else:
            lines += [f"{name}: {problem}" for problem in each["result"]["problems"]]
    return lines


class Spread(NamedTuple):
    """The median of some rounds, the least and the greatest of them."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, figures: list[float]) -> Spread:
        """Return that of the *figures*."""
        return cls(statistics.median(figures), min(figures), max(figures))


class Row(NamedTuple):
    """
    One thing that was measured of several engines.

    Attributes:
        name: What it is.
        unit: Of the figures.
        more_is_better: How to compare them.
        figures: By engine; one that is not there could not be measured, or cannot do it.
    """

    name: str
    unit: str
    more_is_better: bool
    figures: dict[str, Spread]


class Loss(NamedTuple):
    """An engine that is ahead of pykv in a row, by so many times."""

    row: Row
    engine: str
    times: float


def results(document: dict[str, Any], part: str, about: str = "") -> list[dict[str, Any]]:
    """Return what the tasks of a part told, of those that did not fail, with their arguments."""
    return [
        each["arguments"] | each["result"]
        for each in document["results"]
        if each["part"] == part and each["about"] == about and "result" in each
    ]


def operation_rows(document: dict[str, Any], about: str) -> list[Row]:
    """Return the rows of the comparison of engines, on made-up or real data."""
    found = results(document, "operations", about)

    def rate(name: str) -> Callable[[dict[str, Any]], float | None]:
        return lambda result: result["rates"].get(name)

    def per_byte(name: str) -> Callable[[dict[str, Any]], float | None]:
        return lambda r: r["figures"][name] / r["data_bytes"] if name in r["figures"] else None

    def figure(name: str) -> Callable[[dict[str, Any]], float | None]:
        return lambda r: r["figures"].get(name)

    rows = [_row(name, "keys/s", True, found, rate(name)) for name in OPERATIONS]
    rows += [
        _row("open, after a close", "ms", False, found, figure("open_ms")),
        _row("open, after kill -9", "ms", False, found, figure("open_killed_ms")),
        _row(
            "acknowledged puts lost by kill -9, of 1,000", "", False, found, figure("killed_lost")
        ),
        _row(
            "disk after overwriting all", "x data", False, found, per_byte("overwritten_disk_bytes")
        ),
        _row("disk after deleting all", "x data", False, found, per_byte("deleted_disk_bytes")),
    ]
    if about == "made up":
        rows.insert(-2, ram_row(document))
    return [row for row in rows if row.figures]


def fewer_keys(document: dict[str, Any]) -> list[str]:
    """Return a line for each engine that could not store all keys in the time there was."""
    least: dict[str, tuple[int, int]] = {}
    for each in results(document, "operations", "made up"):
        if each["keys"] < each["keys_wanted"]:
            found = each["keys"], each["keys_wanted"]
            least[each["engine"]] = min(found, least.get(each["engine"], found))
    return [
        f"{engine} was so slow that it was measured with {keys:,} keys of {wanted:,}"
        for engine, (keys, wanted) in least.items()
    ]


def ram_row(document: dict[str, Any]) -> Row:
    """Return what each engine takes of RAM for a key, without what the system may take away."""

    def figure(result: dict[str, Any]) -> float | None:
        return None if result["ram_bytes"] is None else result["ram_bytes"] / result["keys"]

    return _row("RAM it takes", "bytes/key", False, results(document, "occupied"), figure)


def ycsb_rows(document: dict[str, Any]) -> list[Row]:
    """Return a row for the loading and each workload."""
    found = results(document, "ycsb")

    def rate(name: str) -> Callable[[dict[str, Any]], float | None]:
        return lambda result: result["rates"].get(name)

    return [_row(f"YCSB {name}", "operations/s", True, found, rate(name)) for name in YCSB]


def _row(
    name: str,
    unit: str,
    more_is_better: bool,
    found: list[dict[str, Any]],
    figure: Callable[[dict[str, Any]], float | None],
) -> Row:
    figures: dict[str, list[float]] = {}
    for each in found:
        value = figure(each)
        if value is not None:
            figures.setdefault(each["engine"], []).append(value)
    spreads = {engine: Spread.of(values) for engine, values in figures.items()}
    return Row(name, unit, more_is_better, spreads)


def losses(document: dict[str, Any], rows: list[Row]) -> list[Loss]:
    """Return where an engine that keeps its data on disk is ahead of pykv, the largest first."""
    found = []
    for row in rows:
        mine = row.figures.get("pykv")
        if mine is None:
            continue
        for engine, spread in row.figures.items():
            if not document["engines"][engine]["persistent"]:
                continue
            ours, theirs = mine.median, spread.median
            better, worse = (theirs, ours) if row.more_is_better else (ours, theirs)
            if better > worse * NEGLIGIBLE:
                found.append(Loss(row, engine, better / worse if worse else float("inf")))
    return sorted(found, key=lambda loss: -loss.times)


def short(value: float) -> str:
    """Return a figure in few characters: "1.27M", "864k", "5.6k", "0.38"."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            digits = 2 if value < 10 * size else 1 if value < 100 * size else 0
            return f"{value / size:.{digits}f}{letter}"
    if value == 0:
        return "0"
    return f"{value:.{2 if abs(value) < 10 else 1 if abs(value) < 100 else 0}f}"


def loss_lines(document: dict[str, Any], rows: list[Row]) -> list[str]:
    """Return a sentence for each row in which pykv is not first, with who is, and by how much."""
    by_row: dict[str, list[Loss]] = {}
    for loss in losses(document, rows):
        by_row.setdefault(loss.row.name, []).append(loss)
    lines = []
    for name, each in by_row.items():
        ahead = ", ".join(
            f"{loss.engine} {short(loss.row.figures[loss.engine].median)}"
            + (f" ({loss.times:.2f} times)" if loss.times != float("inf") else "")
            for loss in each
        )
        row = each[0].row
        lines.append(
            f"{name}: pykv {short(row.figures['pykv'].median)} {row.unit}; {ahead}".strip()
        )
    return lines
