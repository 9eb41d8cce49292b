"""
soak_plot.py -- the plot of a soak: five panels over time.

    python bench/soak_plot.py SOAK.json PLOT.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

MIB = 1 << 20
POINTS = 600
BLUE, ORANGE, GREEN, GREY, RED = "#1f6fb4", "#d9730d", "#2e8b57", "#8a8a8a", "#c0392b"
STYLE = {
    "svg.hashsalt": "pykv",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "lines.linewidth": 1,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "legend.frameon": False,
}


def worst_of(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """One sample in place of several: the most of everything, but the least of the bound."""
    most = {
        name: max((each[name] for each in samples if each[name] is not None), default=None)
        for name in samples[0]
    }
    return most | {"bound_bytes": min(each["bound_bytes"] for each in samples)}


def plot(samples: list[dict[str, Any]], path: Path) -> None:
    """Draw *samples* of soak.py to an SVG or PNG file; of a long soak the worst of a few seconds each."""
    step = -(-len(samples) // POINTS)
    samples = [worst_of(samples[at : at + step]) for at in range(0, len(samples), step)]
    minutes = samples[-1]["seconds"] > 300
    x = [each["seconds"] / (60 if minutes else 1) for each in samples]

    def row(name: str, unit: float = 1) -> list[float]:
        return [float("nan") if each[name] is None else each[name] / unit for each in samples]

    with plt.rc_context(STYLE):
        heights = [2.4, 1, 1.5, 1.3, 1]
        figure, axes = plt.subplots(5, sharex=True, figsize=(11, 12), height_ratios=heights)
        disk, amplification, latency, memory, age = axes

        used = row("disk_bytes", MIB)
        own = [all_ - held for all_, held in zip(used, row("held_bytes", MIB), strict=True)]
        disk.fill_between(x, own, used, color=GREY, alpha=0.35, lw=0, label="held for snapshots")
        disk.plot(x, own, color=BLUE, label="all files, but for that")
        disk.plot(
            x, row("bound_bytes", MIB), color=RED, ls="--", label="its bound: 2 x live + 2 segments"
        )
        disk.plot(x, row("live_bytes", MIB), color=GREEN, label="live bytes")
        disk.set(title="Disk, MiB", ylim=(0, None))

        amplification.plot(x, row("write_amplification"), color=BLUE)
        amplification.set(
            title="Write amplification: bytes written for each byte appended", ylim=(1, None)
        )

        latency.semilogy(x, row("put_p999_us"), color=ORANGE, label="put, p99.9")
        latency.semilogy(x, row("get_p999_us"), color=BLUE, label="get, p99.9")
        latency.semilogy(
            x, row("put_longest_us"), ".", color=ORANGE, ms=2, alpha=0.6, label="longest put"
        )
        latency.set(title="Latency from Python, us")

        memory.stackplot(
            x,
            row("own_bytes", MIB),
            row("mapped_bytes", MIB),
            labels=["memory of their own", "page cache: keydir and log, mapped"],
            colors=[ORANGE, BLUE],
            alpha=0.6,
        )
        memory.set(title="Resident (Pss), all three processes, MiB", ylim=(0, None))

        age.plot(x, row("snapshot_seconds"), color=BLUE)
        age.set(title="Age of the oldest snapshot, seconds", ylim=(0, None))
        age.set(xlabel="minutes" if minutes else "seconds", xlim=(0, x[-1]))

        for axis in (disk, latency, memory):
            axis.legend(
                loc="lower right", bbox_to_anchor=(1.01, 0.97), ncols=4, fontsize=9, columnspacing=1
            )
        figure.align_ylabels(axes)
        figure.savefig(
            path, bbox_inches="tight", metadata={"Date": None} if path.suffix == ".svg" else None
        )
        plt.close(figure)


if __name__ == "__main__":
    plot(json.loads(Path(sys.argv[1]).read_text())["samples"], Path(sys.argv[2]))
