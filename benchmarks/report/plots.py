"""Plots of the measured rows, for `report.py`. They need matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from benchmarks.measure.rows import OURS, TOTAL, Row, totals
from benchmarks.report.story import PICTURE, endings, reference_pictures
from benchmarks.suites.scale import by_axis, size

# The highest power with which the work of a run grows: pairs of slices, pairs of units, distances, matrix products.
GUIDES = {"slices": 2, "units": 1, "samples": 1, "landmarks": 3}
GUIDE = {"linestyle": "--", "color": "grey"}
DPI = 110
CROWDED = 300  # ratio of the ends of an axis from which labels between powers of ten would overlap


def growth(rows: Sequence[Row], path: Path) -> Path:
    """Seconds of the stages of cold runs against what doubles, with a panel for each axis."""
    series = by_axis(rows)
    figure, panels = plt.subplots(1, len(series), figsize=(5 * len(series), 4.5), layout="constrained", squeeze=False)
    for panel, (axis, of_axis) in zip(panels[0], series.items(), strict=True):
        _growth_panel(panel, axis, of_axis)
    figure.suptitle(f"{rows[0].machine}: seconds as one size doubles")
    return saved(figure, path)


def _growth_panel(panel: Any, axis: str, rows: Sequence[Row]) -> None:
    stages = list(dict.fromkeys(row.stage for row in rows))
    longest = {stage: max(row.cold_seconds or 0 for row in rows if row.stage == stage) for stage in stages}
    for stage in sorted(stages, key=longest.__getitem__, reverse=True):
        if longest[stage] < 0.01 * max(longest.values()):
            continue
        of_stage = [row for row in rows if row.stage == stage]
        style = {"color": "black", "linewidth": 2} if stage == TOTAL else {}
        seconds = [row.cold_seconds for row in of_stage]
        panel.plot([size(row, axis) for row in of_stage], seconds, marker="o", label=stage, **style)
    whole = totals(rows)
    sizes = [size(row, axis) for row in whole]
    last = whole[-1].cold_seconds or 0
    guide = [last * (n / sizes[-1]) ** GUIDES[axis] for n in sizes]
    panel.plot(sizes, guide, label=f"power {GUIDES[axis]}", **GUIDE)
    panel.set_ylim(bottom=max(1e-3, 0.005 * last))
    _axes(panel, axis, "seconds", sizes)


def scaling(series: Mapping[str, Sequence[Row]], against: Sequence[Row], path: Path) -> Path:
    """Seconds of the first run and peak memory of whole runs against the nodes.

    The lines are the series of slices of every machine, and this library and the dense reference on the input of suite
    "against", with marks where the reference ended.
    """
    lines: dict[str, Sequence[Row]] = {}
    for machine, rows in series.items():
        if whole := totals(by_axis(rows).get("slices", [])):
            lines[f"{_form(whole)}, {_input(whole[0])}, {machine}"] = whole
    reference, marks = reference_pictures(against), {}
    ours = [row for row in totals(against) if (row.by, row.case) == (OURS, PICTURE)]
    for name, rows in (("this library", ours), ("dense reference", totals(reference))):
        for machine in sorted({row.machine for row in rows}):
            here = [row for row in rows if row.machine == machine]
            lines[f"{name} ({_input(here[0])}), {machine}"] = here
    for machine in sorted({row.machine for row in reference}):
        for reason, row in endings([row for row in reference if row.machine == machine]).items():
            if row.n_nodes is not None:
                marks[f"the reference ended: {reason}, {machine}"] = row.n_nodes
    return by_nodes(lines, path, "cold_seconds", marks)


def _form(rows: Sequence[Row]) -> str:
    return "matrix-free" if all(row.storage.startswith("lazy") for row in rows) else "the planned form"


def _input(row: Row) -> str:
    return f"{row.n_units} units x {row.n_samples} samples"


def by_peer(rows: Sequence[Row], path: Path) -> Path:
    """Seconds and peak memory of the pictures of suite "against" against the nodes, a line for each peer."""
    measured = [row for row in rows if row.case == PICTURE and row.seconds is not None]
    peers = dict.fromkeys(row.by for row in measured)
    return by_nodes({name: [row for row in measured if row.by == name] for name in peers}, path)


def by_nodes(
    lines: Mapping[str, Sequence[Row]], path: Path, seconds: str = "seconds", marks: Mapping[str, int] | None = None
) -> Path:
    """Time and peak memory against the number of nodes, with a dotted line at each of ``marks``.

    ``seconds`` is the field of the rows that is drawn.
    """
    figure, (time, memory) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for label, rows in lines.items():
        in_order = sorted(rows, key=lambda row: row.n_nodes or 0)
        nodes = [row.n_nodes for row in in_order]
        time.plot(nodes, [getattr(row, seconds) for row in in_order], marker="o", label=label)
        memory.plot(nodes, [row.main_peak_bytes / 1e9 for row in in_order], marker="o", label=label)
    for panel, title in ((time, seconds.replace("_", " ")), (memory, "peak memory, GB")):
        for number, (label, nodes) in enumerate((marks or {}).items()):
            panel.axvline(nodes, linestyle=":", color=f"C{len(lines) + number}", label=label)
        _axes(panel, "nodes", title)
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
    """Write ``figure`` and close it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
    return path
