"""How time and memory grow with the slices, the units, the samples and the landmarks: one of them doubles at a time.

Run ``python benchmarks/suites/scale.py``; ``--axis units`` is one series. On the CPU the affinity is matrix-free and the
slices end with those of HAR, 487,680 nodes; on CUDA the form is the plan's choice, and a series ends with what fits.
Where the slices double, the cost of what goes over all pairs of them grows fourfold at most: that is the goal.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.cases import AXES, SERIES, SMALL_SERIES
from benchmarks.measure.rows import (
    HEAD,
    LEAST_SECONDS,
    Row,
    by_axis,
    doubles,
    not_measured,
    plain_table,
    scale_cells,
    slopes,
    total_cells,
    totals,
)
from benchmarks.measure.tasks import Task
from benchmarks.run import add_run_arguments, missed_or_none, run_suite
from benchmarks.suites.pipeline import case_task

NAME = "scale"
# The largest case of the CPU: HAR's slices, units and samples.
MOST_NODES_ON_CPU = 487_680
# Slices double, so pairs of them are four times as many; 5 % for the entries that a chunk of rows ends with.
MOST_GROWTH = 4.2
PER_PAIR = ("affinity", "landmarks")
QUICK_AXES = ("slices", "landmarks")


def tasks(
    device: str,
    quick: bool,
    axes: Sequence[str] | None = None,
    storage: str | None = None,
    most_nodes: float | None = None,
) -> list[Task]:
    """The series of ``axes``, all or for ``quick`` `QUICK_AXES`, from small to large.

    A case follows only if the one before it gave numbers.
    """
    axes = axes or (QUICK_AXES if quick else AXES)
    on_cpu = device == "cpu"
    storage = storage or ("lazy" if on_cpu else None)
    most = most_nodes or (MOST_NODES_ON_CPU if on_cpu else math.inf)
    found: list[Task] = []
    for axis in axes:
        before = None
        for name in (SMALL_SERIES if quick else SERIES)[axis]:
            if n_nodes(name) > most:
                break
            task = case_task(name, device, storage=storage)
            found.append(replace(task, after=before))
            before = task.key
    return found


def n_nodes(name: str) -> int:
    """Of a case of a series, by its name."""
    n_slices, n_units, _ = map(int, next(part for part in name.split("-") if "x" in part).split("x"))
    return n_slices * n_units


def missed_goals(rows: Sequence[Row]) -> list[str]:
    """One sentence for each stage over pairs of slices that grows faster than they do, from one case to the next.

    Seconds are those of cold runs, as in the table.
    """
    found = []
    for stage in PER_PAIR:
        own = [row for row in by_axis(rows).get("slices", ()) if row.stage == stage]
        for before, after in zip(own, own[1:], strict=False):
            if before.cold_seconds < LEAST_SECONDS or not doubles(before, after, "slices"):
                continue
            growth = after.cold_seconds / before.cold_seconds
            if growth > MOST_GROWTH:
                found.append(f"{after.case}, {stage}: {growth:.2f} times {before.case}, goal at most {MOST_GROWTH}")
    return found


def table(rows: Sequence[Row], which: str) -> tuple[Sequence[str], list[tuple[str, ...]]]:
    """Head and lines: the series ``which``, or the totals of all."""
    return scale_cells(by_axis(rows)[which], which) if which else (HEAD, [total_cells(row) for row in totals(rows)])


def main(argv: Sequence[str] | None = None) -> int:
    """Measure one case after the other, write after each, print tables; 1 if one failed or a goal is missed.

    A case that is refused ends its series: how far the device goes is part of the answer.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--axis", action="append", choices=AXES, help="what doubles; may be repeated (default: all)")
    parser.add_argument("--storage", choices=("auto", "sparse", "tiles", "lazy"), help="on the CPU lazy, on CUDA auto")
    parser.add_argument("--most-nodes", type=int, help="end with the last case of at most so many")
    options = add_run_arguments(parser).parse_args(argv)
    given = {"axes": options.axis, "storage": options.storage, "most_nodes": options.most_nodes}
    rows, code = run_suite(lambda device: tasks(device, options.quick, **given), options)
    for axis, own in by_axis(rows).items():
        print(plain_table(*table(own, axis)), slopes(own, axis), sep="\n\n", end="\n\n")
    print("".join(f"{sentence}\n" for sentence in not_measured(rows)), end="")
    return missed_or_none(missed_goals(rows), code)


if __name__ == "__main__":
    sys.exit(main())
