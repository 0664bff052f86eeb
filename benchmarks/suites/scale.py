"""Suite "scale": how time and memory grow as the slices, units, samples or landmarks double, one of them at a time.

On the CPU the affinity is matrix-free and the slices end with those of HAR, 487,680 nodes. On CUDA the plan chooses the
form, and a series ends with the last case that fits. The goal: as the slices double, the stages over all pairs of
slices take at most four times as long.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

from benchmarks.cases import AXES, SERIES, SMALL_SERIES
from benchmarks.measure.rows import TOTAL, Row, totals
from benchmarks.measure.tables import Table, bytes_text, number_text, seconds_text
from benchmarks.measure.tasks import Task
from benchmarks.suites.pipeline import case_task

PARTS = AXES  # what doubles
# The largest case of the CPU: the slices, units and samples of HAR.
MOST_NODES_ON_CPU = 487_680
# The pairs of slices are four times as many; 5 % more for the last chunk of rows, which is not full.
MOST_GROWTH = 4.2
PER_PAIR = ("affinity", "landmarks")
QUICK_AXES = ("slices", "landmarks")
LEAST_SECONDS = 1.0  # a shorter stage does not show how it grows
DEFAULT_LANDMARKS = 4000  # of MMPHATE
SIZE_FIELD = {"slices": "n_slices", "units": "n_units", "samples": "n_samples", "landmarks": "n_landmark"}


def tasks(device: str, quick: bool, only: Sequence[str] = ()) -> list[Task]:
    """The series of the axes ``only``, or of all, from small to large. A case runs only if the smaller one did."""
    storage, most = ("lazy", MOST_NODES_ON_CPU) if device == "cpu" else (None, math.inf)
    chosen: list[Task] = []
    for axis in only or (QUICK_AXES if quick else AXES):
        before = None
        for name in (SMALL_SERIES if quick else SERIES)[axis]:
            if n_nodes(name) > most:
                break
            chosen.append(replace(case_task(name, device, storage=storage), after=before))
            before = chosen[-1].key
    return chosen


def n_nodes(name: str) -> int:
    """The nodes of a case of a series, from its name."""
    n_slices, n_units, _ = map(int, next(part for part in name.split("-") if "x" in part).split("x"))
    return n_slices * n_units


def missed_goals(rows: Sequence[Row]) -> list[str]:
    """A sentence for each stage over pairs of slices that grows faster than they do; seconds are of cold runs."""
    missed = []
    for stage in PER_PAIR:
        of_stage = [row for row in by_axis(rows).get("slices", ()) if row.stage == stage]
        for before, after in zip(of_stage, of_stage[1:], strict=False):
            if before.cold_seconds < LEAST_SECONDS or not doubles(before, after, "slices"):
                continue
            growth = after.cold_seconds / before.cold_seconds
            if growth > MOST_GROWTH:
                missed.append(f"{after.case}, {stage}: {growth:.2f} times {before.case}, goal at most {MOST_GROWTH}")
    return missed


# ---------------------------------------------------------------- series


def by_axis(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows with numbers, by what doubles, in the order of its size."""
    series: dict[str, list[Row]] = {}
    for row in rows:
        if not row.skipped:
            series.setdefault(row.settings["axis"], []).append(row)
    return {axis: sorted(series[axis], key=lambda row: size(row, axis)) for axis in SIZE_FIELD if axis in series}


def size(row: Row, axis: str) -> int:
    """What doubles along ``axis``. Landmarks are counted as requested, since k-means may lose a few."""
    return row.settings.get("n_landmark", DEFAULT_LANDMARKS) if axis == "landmarks" else getattr(row, SIZE_FIELD[axis])


def doubles(before: Row, after: Row, axis: str) -> bool:
    """Whether ``after`` has twice the size of ``before`` along ``axis``, and the same form and other sizes."""
    others = [name for name in SIZE_FIELD if name != axis]
    same = before.storage == after.storage and all(size(before, name) == size(after, name) for name in others)
    return same and size(after, axis) == 2 * size(before, axis)


def doubling(whole: Sequence[Row], axis: str) -> list[Row]:
    """The last sequence of totals in which each `doubles` the one before; empty if no two do."""
    runs: list[list[Row]] = [[]]
    for row in whole:
        if runs[-1] and not doubles(runs[-1][-1], row, axis):
            runs.append([])
        runs[-1].append(row)
    return next((run for run in reversed(runs) if len(run) > 1), [])


# ---------------------------------------------------------------- tables


def tables(rows: Sequence[Row], which: str = "") -> list[Table]:
    """A table for each axis, or for the axis ``which``, with the exponents below it."""
    return [axis_table(series, axis) for axis, series in by_axis(rows).items() if which in ("", axis)]


def axis_table(rows: Sequence[Row], axis: str) -> Table:
    """A line for each case, with the shares of the stages. Seconds are of the cold run: large cases have no other."""
    stages = [stage for stage in dict.fromkeys(row.stage for row in rows) if stage != TOTAL]
    share = {(row.case, row.stage): row.cold_seconds or 0.0 for row in rows}
    shown = [stage for stage in stages if any(share[case, stage] >= 0.05 * share[case, TOTAL] for case, _ in share)]
    lines, before = [], None
    for row in totals(rows):
        seconds = row.cold_seconds or math.nan
        growth = f"{seconds / before.cold_seconds:.2f}" if before and doubles(before, row, axis) else ""
        shares = (f"{100 * share[row.case, stage] / seconds:.0f} %" for stage in shown)
        memory = bytes_text(row.main_peak_bytes), bytes_text(row.added_bytes)
        sizes = f"{size(row, axis):,}", f"{row.n_nodes:,}", row.storage
        lines.append((*sizes, seconds_text(seconds), growth, *memory, number_text(row.t, "d"), *shares))
        before = row
    head = (axis, "nodes", "storage", "cold seconds", "times the one before", "peak", "adds", "t", *shown)
    return Table(head, lines, slopes(rows, axis))


def slopes(rows: Sequence[Row], axis: str, last: int = 3) -> str:
    """Exponents of the growth along ``axis``, by least squares on logarithms.

    They are taken over the ``last`` cases that double, from the seconds of cold runs and the memory that these add.
    """
    whole = doubling(totals(rows), axis)[-last:]
    if not whole:
        return f"Exponents of the {axis}: no two cases of one form of which one doubles the other."
    cases, exponents = [row.case for row in whole], []
    for stage in dict.fromkeys(row.stage for row in rows):
        seconds = {row.case: row.cold_seconds or 0.0 for row in rows if row.stage == stage}
        if all(seconds.get(case) for case in cases) and seconds[cases[-1]] >= LEAST_SECONDS:
            exponents.append(f"{stage} {_slope([(size(row, axis), seconds[row.case]) for row in whole]):.2f}")
    if all(row.added_bytes for row in whole):
        exponents.append(f"added memory {_slope([(size(row, axis), row.added_bytes or 0) for row in whole]):.2f}")
    span = f"from {size(whole[0], axis):,} to {size(whole[-1], axis):,}"
    return f"Exponents of the {axis} {span}, by the seconds of cold runs: {', '.join(exponents)}."


def _slope(points: Sequence[tuple[float, float]]) -> float:
    sizes, amounts = zip(*points, strict=True)
    return statistics.linear_regression([math.log(n) for n in sizes], [math.log(y) for y in amounts]).slope
