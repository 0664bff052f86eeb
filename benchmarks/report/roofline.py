"""The ops under the roofs of their machine, for `report.py`. It needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.measure.rows import Row
from benchmarks.report.plots import saved
from benchmarks.suites.floors import BYTES, rates

# Each op has a color. After ten ops the colors repeat with another mark.
MARKS = "osD"
N_COLORS = 10


def roofline(ops: Sequence[Row], floors: Sequence[Row], path: Path) -> Path:
    """Operations per second against operations per byte, a point for each call, under the rates of the machine."""
    figure, axes = plt.subplots(figsize=(10, 6), layout="constrained")
    axes.set(xscale="log", yscale="log", xlabel="operations a byte", ylabel="operations a second")
    points = [row for row in ops if row.flop and row.moved_bytes and row.seconds]
    for number, op in enumerate(dict.fromkeys(row.stage for row in points)):
        calls = [row for row in points if row.stage == op]
        style = {"color": f"C{number % N_COLORS}", "marker": MARKS[number // N_COLORS], "linestyle": ""}
        intensity = [row.flop / row.moved_bytes for row in calls]
        axes.plot(intensity, [row.flop / row.seconds for row in calls], label=op, **style)
    _roofs(axes, rates(floors), "black")
    alone = [row for row in floors if row.settings]
    if alone:
        _roofs(axes, {row.case: row.rate for row in alone}, "silver", ", one thread", "top")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set_title(f"{ops[0].machine}: ops under the measured roofs")
    return saved(figure, path)


def _roofs(axes: plt.Axes, rate: dict[str, float], color: str, which: str = "", side: str = "bottom") -> None:
    """The slope of the bytes, and a level for the multiply-adds of each dtype that begins at the slope."""
    moved = max(rate[name] for name in BYTES if name in rate)
    flop = {name: level for name, level in rate.items() if name.startswith("fma-")}
    left, right = axes.get_xlim()
    top = max(flop.values()) / moved
    axes.plot([left, top], [left * moved, top * moved], color=color, zorder=0)
    for name, level in flop.items():
        axes.plot([level / moved, max(right, 2 * top)], [level, level], color=color, zorder=0)
        axes.annotate(name + which, (right, level), color=color, ha="right", va=side, fontsize="small")
    axes.annotate(f"bytes{which}", (left, left * moved), color=color, va=side, fontsize="small")
