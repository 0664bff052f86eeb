"""Plots of the measured rows. Called by `report.py`; needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from benchmarks.measure.rows import OURS, TOTAL, Row, by_axis, size, totals
from benchmarks.report.story import PICTURE, endings, reference_pictures

# The power with which work of a run has to grow at most: pairs of slices, pairs of units, distances, matrix products.
GUIDES = {"slices": 2, "units": 1, "samples": 1, "landmarks": 3}
GUIDE = {"linestyle": "--", "color": "grey"}
DPI = 110
CROWDED = 300  # least ratio of the ends of an axis at which numbers between powers of ten would run into one another


def growth(rows: Sequence[Row], path: Path) -> Path:
    """Seconds of the stages, of cold runs, against what doubles, one panel an axis, all axes logarithmic."""
    series = by_axis(rows)
    figure, panels = plt.subplots(1, len(series), figsize=(5 * len(series), 4.5), layout="constrained", squeeze=False)
    for panel, (axis, own) in zip(panels[0], series.items(), strict=True):
        _growth_panel(panel, axis, own)
    figure.suptitle(f"{rows[0].machine}: seconds as one size doubles")
    return saved(figure, path)


def _growth_panel(panel: Any, axis: str, rows: Sequence[Row]) -> None:
    stages = list(dict.fromkeys(row.stage for row in rows))
    longest = {stage: max(row.cold_seconds or 0 for row in rows if row.stage == stage) for stage in stages}
    for stage in sorted(stages, key=longest.__getitem__, reverse=True):
        if longest[stage] < 0.01 * max(longest.values()):
            continue
        own = [row for row in rows if row.stage == stage]
        style = {"color": "black", "linewidth": 2} if stage == TOTAL else {}
        seconds = [row.cold_seconds for row in own]
        panel.plot([size(row, axis) for row in own], seconds, marker="o", label=stage, **style)
    whole = totals(rows)
    sizes = [size(row, axis) for row in whole]
    last = whole[-1].cold_seconds or 0
    guide = [last * (n / sizes[-1]) ** GUIDES[axis] for n in sizes]
    panel.plot(sizes, guide, label=f"power {GUIDES[axis]}", **GUIDE)
    panel.set_ylim(bottom=max(1e-3, 0.005 * last))
    _axes(panel, axis, "seconds", sizes)


def scaling(series: Mapping[str, Sequence[Row]], against: Sequence[Row], path: Path) -> Path:
    """Seconds of the first run and peak memory of whole runs against the nodes.

    On every machine the series of slices; this library and the dense reference on one input, and where that one ended.
    """
    lines: dict[str, Sequence[Row]] = {}
    for machine, rows in series.items():
        if own := totals(by_axis(rows).get("slices", [])):
            lines[f"{_form(own)}, {_input(own[0])}, {machine}"] = own
    reference, marks = reference_pictures(against), {}
    ours = [row for row in totals(against) if (row.by, row.case) == (OURS, PICTURE)]
    for name, rows in (("this library", ours), ("dense reference", totals(reference))):
        for machine in sorted({row.machine for row in rows}):
            own = [row for row in rows if row.machine == machine]
            lines[f"{name} ({_input(own[0])}), {machine}"] = own
    for machine in sorted({row.machine for row in reference}):
        for what, row in endings([row for row in reference if row.machine == machine]).items():
            if row.n_nodes is not None:
                marks[f"the reference ended: {what}, {machine}"] = row.n_nodes
    return by_nodes(lines, path, "cold_seconds", marks)


def _form(rows: Sequence[Row]) -> str:
    return "matrix-free" if all(row.storage.startswith("lazy") for row in rows) else "the planned form"


def _input(row: Row) -> str:
    return f"{row.n_units} units x {row.n_samples} samples"


def by_nodes(
    lines: Mapping[str, Sequence[Row]], path: Path, seconds: str = "seconds", marks: Mapping[str, int] | None = None
) -> Path:
    """Time and peak memory against the number of nodes, a line for each of ``lines``, dotted at ``marks``.

    ``seconds`` is the field of the rows that is drawn.
    """
    figure, (time, memory) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for label, rows in lines.items():
        own = sorted(rows, key=lambda row: row.n_nodes or 0)
        nodes = [row.n_nodes for row in own]
        time.plot(nodes, [getattr(row, seconds) for row in own], marker="o", label=label)
        memory.plot(nodes, [row.main_peak_bytes / 1e9 for row in own], marker="o", label=label)
    for panel, what in ((time, seconds.replace("_", " ")), (memory, "peak memory, GB")):
        for number, (label, nodes) in enumerate((marks or {}).items()):
            panel.axvline(nodes, linestyle=":", color=f"C{len(lines) + number}", label=label)
        _axes(panel, "nodes", what)
    return saved(figure, path)


def _axes(panel: Any, across: str, up: str, ticks: Sequence[int] | None = None) -> None:
    panel.set(xscale="log", yscale="log", xlabel=across, ylabel=up)
    left, right = panel.get_xlim()
    for side, between in ((panel.xaxis, (2, 5) if right < CROWDED * left else ()), (panel.yaxis, (2, 5))):
        side.set_major_locator(LogLocator(subs=(1, *between)))
        side.set_major_formatter(StrMethodFormatter("{x:,.12g}"))
        side.set_minor_locator(NullLocator())
    if ticks:
        panel.set_xticks(ticks, [f"{n:,}" for n in ticks], rotation=20)
    panel.grid(alpha=0.3)
    panel.legend(fontsize="small")


def saved(figure: Any, path: Path) -> Path:
    """Write ``figure`` and let it go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
    return path
