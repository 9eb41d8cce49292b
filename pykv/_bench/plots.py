"""
plots.py -- the plots of the report, as SVG to put into a page: text stays text, nothing is loaded.

Colours are those of Okabe and Ito, which people with colour vision deficiencies tell apart, with
two more; each engine has its own mark, too. Lines are named where they end.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from pykv._bench.cost import COUNTS, costs
from pykv._bench.durability import LOST, THREADS
from pykv._bench.summary import Row, results, short

INK = "#1a1a1a"
GRID = "#dddddd"
STYLES = {  # of an engine, and of a mode: colour, mark
    "pykv": ("#D55E00", "o"),
    "lmdb": ("#0072B2", "s"),
    "leveldb": ("#009E73", "^"),
    "rocksdb": ("#CC79A7", "v"),
    "tkrzw": ("#56B4E9", "D"),
    "sqlite3": ("#333333", "P"),
    "diskcache": ("#E69F00", "X"),
    "dbm": ("#999999", "<"),
    "redis": ("#882255", ">"),
    "dict": ("#666666", "*"),
    "process": ("#0072B2", "o"),
    "interval": ("#009E73", "s"),
    "commit": ("#D55E00", "^"),
    "mmap": ("#D55E00", "o"),
    "pread": ("#0072B2", "s"),
}
SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pykv",  # the same figures give the same file
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#888888",
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.8,
    "figure.constrained_layout.use": True,
}
NOTHING = "<p>Nothing to draw: it could not be run.</p>"
NINES = {"0 %": 1, "90 %": 10, "99 %": 100, "99.9 %": 1000, "99.99 %": 10_000}


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height))


def _svg(figure: Figure, name: str) -> str:
    """Return the SVG element; its ids begin with *name*, for several stand in one page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\b(id="|url\(#|href="#)', rf"\g<1>{name}-", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)


def _short_axis(axis: Any) -> None:
    def name(value: float, _position: int) -> str:
        text = short(value)
        number, letter = (text[:-1], text[-1]) if text[-1].isalpha() else (text, "")
        return f"{float(number):g}{letter}"

    axis.set_major_formatter(FuncFormatter(name))
    axis.set_minor_locator(NullLocator())


def _microseconds_axis(axis: Any) -> None:
    def name(value: float, _position: int) -> str:
        for size, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "µs")):
            if value >= size:
                return f"{value / size:g} {unit}"
        return f"{value:g} ns"

    axis.set_major_formatter(FuncFormatter(name))
    axis.set_minor_locator(NullLocator())


def _apart(places: Sequence[float], least: float) -> list[float]:
    """Return the places moved so that none is nearer to the next than *least*; order kept."""
    order = sorted(range(len(places)), key=places.__getitem__)
    moved = list(places)
    for _ in range(200):
        for low, high in pairwise(order):
            short_of = least - (moved[high] - moved[low])
            if short_of > 0:
                moved[low] -= short_of / 2
                moved[high] += short_of / 2
    return moved


def _name_ends(axes: Axes, ends: Sequence[tuple[str, float, float, str]]) -> None:
    """Write the names of lines beside where they end: name, x, y, colour of each."""
    figure = axes.figure
    figure.draw_without_rendering()  # type: ignore[union-attr]
    points = [axes.transData.transform((x, y)) for _, x, y, _ in ends]
    heights = _apart([point[1] for point in points], 13 * figure.dpi / 72)
    for (name, x, y, colour), point, height in zip(ends, points, heights, strict=True):
        axes.annotate(
            name,
            (x, y),
            xytext=(12, (height - point[1]) * 72 / figure.dpi),
            textcoords="offset points",
            color=colour,
            va="center",
            fontweight="bold" if name == "pykv" else "normal",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkB": 0},
            annotation_clip=False,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )


def dots(rows: Sequence[Row], engines: Iterable[str], unit: str, name: str) -> str:
    """Return a plot with a line for each row and a mark for each engine on it."""
    if not any(row.figures for row in rows):
        return NOTHING
    with rc_context(SETTINGS):
        figure = _figure(9, 1.2 + 0.42 * len(rows))
        axes = figure.add_subplot()
        for engine in reversed(list(engines)):
            colour, mark = STYLES[engine]
            points = [
                (row.figures[engine].median, place)
                for place, row in enumerate(rows)
                if engine in row.figures
            ]
            axes.plot(
                [x for x, _ in points],
                [y for _, y in points],
                mark,
                color=colour,
                label=engine,
                markersize=11 if engine in ("pykv", "dict") else 8,
                markeredgecolor="white",
                markeredgewidth=0.8,
                zorder=3 if engine == "pykv" else 2,
            )
        axes.set_yticks(range(len(rows)), [row.name for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xscale("log")
        axes.set_xlabel(unit)
        _short_axis(axes.xaxis)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(
            handles[::-1],
            labels[::-1],
            loc="outside upper center",
            ncols=10,
            frameon=False,
            handletextpad=0.1,
            columnspacing=1.2,
        )
        return _svg(figure, name)


def latencies(document: dict[str, Any]) -> str:
    """Return the latencies of gets and puts over their percentiles."""
    found = results(document, "latency")
    if not found:
        return NOTHING
    with rc_context(SETTINGS):
        figure = _figure(10.5, 4.8)
        panels = figure.subplots(1, 2, sharey=True)
        for axes, operation in zip(panels, ("get", "put"), strict=True):
            ends = []
            last = 1.0
            for each in found:
                curve = each["operations"][operation]["since_due"]["curve"]
                points = [(1 / (1 - share), time) for share, time in curve if share < 1]
                points = [point for point in points if point[0] <= max(NINES.values())]
                colour, _mark = STYLES[each["engine"]]
                width = 2.8 if each["engine"] == "pykv" else 1.4
                axes.plot(*zip(*points, strict=True), color=colour, linewidth=width)
                ends.append((each["engine"], *points[-1], colour))
                last = max(last, points[-1][0])
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xlim(1, last)
            axes.xaxis.set_major_locator(FixedLocator([x for x in NINES.values() if x <= last]))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xticklabels([text for text, x in NINES.items() if x <= last])
            axes.set_xlabel("share of calls that took no longer")
            axes.set_title(operation, loc="left", fontweight="bold")
            _microseconds_axis(axes.yaxis)
            _name_ends(axes, ends)
        panels[0].set_ylabel(f"time since due, at {document['data']['rate']:,} calls a second")
        return _svg(figure, "latencies")


def tradeoff(document: dict[str, Any]) -> str:
    """Return RAM a pair against the time of a get, with the frontier."""
    points = {
        each["choice"]: (each["ram_bytes"] / each["keys"], each["mean_ns"])
        for each in results(document, "tradeoff")
        if each["ram_bytes"]
    }
    if not points:
        return NOTHING
    with rc_context(SETTINGS):
        figure = _figure(9, 4.6)
        axes = figure.add_subplot()
        axes.set_xscale("log")
        axes.set_yscale("log")
        best = frontier(list(points.values()))
        if len(best) > 1:
            axes.plot(
                *zip(*best, strict=True),
                color="#009E73",
                drawstyle="steps-post",
                linewidth=1.5,
                linestyle="--",
                zorder=1,
            )
            axes.text(
                0.02,
                0.04,
                "- - -  frontier: nothing has less RAM and is faster",
                transform=axes.transAxes,
                color="#00704f",
            )
        for place in points.values():
            axes.plot(*place, "o", markersize=9, color="#D55E00" if place in best else "#999999")
        axes.margins(x=0.12, y=0.15)
        _name_ends(axes, [(name, *place, INK) for name, place in points.items()])
        axes.set_xlabel("bytes of RAM a pair")
        axes.set_ylabel("mean time of a get")
        _short_axis(axes.xaxis)
        _microseconds_axis(axes.yaxis)
        return _svg(figure, "tradeoff")


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that none beats in both, by their first figure."""
    best: list[tuple[float, float]] = []
    for point in sorted(points):
        if not best or point[1] < best[-1][1]:
            best.append(point)
    return best


def page_cache(document: dict[str, Any]) -> str:
    """Return hit rate and latency over the memory there is."""
    found = results(document, "pagecache")
    if not found:
        return NOTHING
    with rc_context(SETTINGS):
        figure = _figure(10.5, 4)
        left, right = figure.subplots(1, 2)
        ends: dict[Axes, list[tuple[str, float, float, str]]] = {left: [], right: []}
        for io_mode in ("mmap", "pread"):
            colour, mark = STYLES[io_mode]
            mine = [each for each in found if each["io"] == io_mode]
            if not mine:
                continue
            shares = [each["percent"] for each in mine]
            hits = [each["hit_rate"] * 100 for each in mine]
            left.plot(shares, hits, marker=mark, color=colour)
            for name, style in (("mean", "-"), ("p99", ":")):
                times = [
                    each["mean_ns"] if name == "mean" else each["latency"][name] for each in mine
                ]
                right.plot(shares, times, style, marker=mark, color=colour)
                ends[right].append((f"{io_mode}, {name}", shares[-1], times[-1], colour))
            ends[left].append((io_mode, shares[-1], hits[-1], colour))
        for axes in (left, right):
            axes.set_xlabel("memory for the data, % of its size")
            axes.set_xlim(100, 0)
        left.set_ylabel("reads that need no disk, %")
        left.set_ylim(0, 105)
        right.set_yscale("log")
        right.set_ylabel("time of a get")
        _microseconds_axis(right.yaxis)
        for axes, names in ends.items():
            _name_ends(axes, names)
        return _svg(figure, "page-cache")


def durability(document: dict[str, Any]) -> str:
    """Return rate and latency over the number of committers."""
    found = results(document, "durability")
    if not found:
        return NOTHING
    with rc_context(SETTINGS):
        figure = _figure(10.5, 4)
        left, right = figure.subplots(1, 2)
        panels: dict[Axes, Any] = {
            left: lambda each: each["rate"],
            right: lambda each: each["latency"]["p50"],
        }
        for axes, value in panels.items():
            ends = []
            for mode in LOST:
                colour, mark = STYLES[mode]
                mine = [each for each in found if each["durability"] == mode]
                if not mine:
                    continue
                xs, ys = [each["threads"] for each in mine], [value(each) for each in mine]
                axes.plot(xs, ys, marker=mark, color=colour)
                ends.append((mode, xs[-1], ys[-1], colour))
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.xaxis.set_major_locator(FixedLocator(THREADS))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _position: f"{x:.0f}"))
            axes.set_xlabel("threads that put at once")
            if axes is left:
                axes.set_ylabel("puts a second")
                _short_axis(axes.yaxis)
            else:
                axes.set_ylabel("time of a put, median")
                _microseconds_axis(axes.yaxis)
            _name_ends(axes, ends)
        return _svg(figure, "durability")


def space(document: dict[str, Any]) -> str:
    """Return rate and write amplification over the bound on space."""
    found = results(document, "space")
    if not found:
        return NOTHING
    factors = [each["percent"] / 100 for each in found]
    with rc_context(SETTINGS):
        figure = _figure(10.5, 3.6)
        left, right = figure.subplots(1, 2)
        left.plot(factors, [each["rate"] for each in found], marker="o", color="#D55E00")
        left.set_ylabel("overwrites a second")
        _short_axis(left.yaxis)
        written = [each["write_amplification"] for each in found]
        right.plot(factors, written, marker="s", color="#0072B2")
        right.set_ylabel("bytes written for each byte put")
        for axes in (left, right):
            axes.set_xlabel("space_factor: what the log may have, in times of the live bytes")
            axes.set_ylim(bottom=0)
        return _svg(figure, "space")


def cost(document: dict[str, Any]) -> str:
    """Return what a month of the greatest number of keys costs, RAM and disk."""
    count = COUNTS[-1]
    bills = sorted(costs(document, count).items(), key=lambda pair: pair[1].price)
    if not bills:
        return NOTHING
    with rc_context(SETTINGS):
        figure = _figure(9, 1.2 + 0.36 * len(bills))
        axes = figure.add_subplot()
        names = [name for name, _ in bills]
        ram = [bill.ram_price for _, bill in bills]
        disk = [bill.disk_price for _, bill in bills]
        axes.barh(names, ram, color="#0072B2", label="RAM")
        axes.barh(names, disk, left=ram, color="#E69F00", label="disk")
        for place, (_, bill) in enumerate(bills):
            axes.annotate(
                f"{bill.price:,.0f}: {short(bill.ram_gb)} GB RAM, {short(bill.disk_gb)} GB disk",
                (bill.price, place),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
            )
        axes.invert_yaxis()
        axes.margins(x=0.3)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"a month of {count:,} keys, in the currency of the prices")
        _short_axis(axes.xaxis)
        figure.legend(loc="outside upper right", ncols=2, frameon=False)
        return _svg(figure, "cost")
