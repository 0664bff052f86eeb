"""The ops under the roofs of their machine. Called by `report.py`; needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.measure.rows import Row
from benchmarks.report.plots import saved
from benchmarks.suites.floors import BYTES, rates

# A colour an op; from the tenth on the mark is another.
MARKS = "osD"
N_COLORS = 10


def roofline(ops: Sequence[Row], floors: Sequence[Row], path: Path) -> Path:
    """Operations a second against operations a byte: a point a call, under the rates of bytes and of multiply-adds."""
    figure, axes = plt.subplots(figsize=(10, 6), layout="constrained")
    axes.set(xscale="log", yscale="log", xlabel="operations a byte", ylabel="operations a second")
    points = [row for row in ops if row.flop and row.moved_bytes and row.seconds]
    for number, op in enumerate(dict.fromkeys(row.stage for row in points)):
        own = [row for row in points if row.stage == op]
        style = {"color": f"C{number % N_COLORS}", "marker": MARKS[number // N_COLORS], "linestyle": ""}
        intensity = [row.flop / row.moved_bytes for row in own]
        axes.plot(intensity, [row.flop / row.seconds for row in own], label=op, **style)
    _roofs(axes, rates(floors), "black")
    alone = [row for row in floors if row.settings]
    if alone:
        _roofs(axes, {row.case: row.rate for row in alone}, "silver", ", one thread", "top")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set_title(f"{ops[0].machine}: ops under the measured roofs")
    return saved(figure, path)


def _roofs(axes: plt.Axes, rate: dict[str, float], color: str, which: str = "", side: str = "bottom") -> None:
    """One slope, and a level for every kind of multiply-adds, each as far as the slope carries it."""
    moved = max(rate[name] for name in BYTES if name in rate)
    flop = {name: found for name, found in rate.items() if name.startswith("fma-")}
    left, right = axes.get_xlim()
    top = max(flop.values()) / moved
    axes.plot([left, top], [left * moved, top * moved], color=color, zorder=0)
    for name, level in flop.items():
        axes.plot([level / moved, max(right, 2 * top)], [level, level], color=color, zorder=0)
        axes.annotate(name + which, (right, level), color=color, ha="right", va=side, fontsize="small")
    axes.annotate(f"bytes{which}", (left, left * moved), color=color, va=side, fontsize="small")
