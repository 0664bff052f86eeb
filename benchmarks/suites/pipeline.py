"""Whole runs: walks, the bifurcation suite, a real recording, and the sizes of Area2Bump, HAR and the large run.

Run ``python benchmarks/suites/pipeline.py``; ``--only suite-hopf-sparse`` is one of the cases. Ends with 1 if a goal is
missed; `mmphate-gpu bench` runs the same tasks and tells the goals.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.cases import CASES, QUICK
from benchmarks.measure.rows import HEAD, TOTAL, Row, plain_table, stage_cells, total_cells, totals
from benchmarks.measure.tasks import OUT, Task, python_task
from benchmarks.run import add_run_arguments, conclude, run_suite

NAME = "pipeline"
NAMES = tuple(name for name, case in CASES.items() if not case.axis)
# Of a case by the start of its name: seconds on two cores and on one GPU (warm), and bytes.
MOST_SECONDS = {
    "suite-hopf-sparse": {"cpu": 30, "cuda": 0.5},
    "suite-hopf_pitchfork-sparse": {"cpu": 45, "cuda": 0.5},
    "suite-": {"cpu": 90, "cuda": 0.5},
    "walk-100": {"cpu": 20},
    "walk-1600": {"cpu": 15},
    "har-": {"cpu": 360, "cuda": 1.0},
}
# Of one stage, on two cores.
MOST_STAGE_SECONDS = {"mds": {"suite-hopf-sparse": 1.5, "suite-hopf_pitchfork-sparse": 1.5}}
# The plan's peak of the whole run beside the one measured: off by at most this share.
PLAN_ERROR = 0.15
MOST_BYTES = {"suite-": 3e9, "har-": 14e9}
# k -> share of slice neighbours kept, at least
LEAST_KEPT = {"suite-hopf-": {"10": 0.205, "40": 0.385}, "suite-hopf_pitchfork-": {"10": 0.130, "40": 0.240}}
SAME_STRESS = 0.01


def tasks(device: str, quick: bool) -> list[Task]:
    """A task a case: the small ones for ``quick``, else all that the device is made for."""
    return [case_task(name, device) for name in (QUICK if quick else names_for(device))]


def names_for(device: str) -> list[str]:
    return [name for name in NAMES if device != "cpu" or not CASES[name].cuda_only]


def case_task(name: str, device: str, *, storage: str | None = None, repeats: int | None = None) -> Task:
    """The task that measures a case; a storage or a number of repeats given by hand makes it another task."""
    given = {"storage": storage, "repeats": repeats}
    options = [f"{option}={value}" for option, value in given.items() if value is not None]
    case = CASES[name]
    settings = {**case.options, **({"axis": case.axis} if case.axis else {})}
    return python_task(
        "scale" if case.axis else NAME,
        "-".join([name, *options]),
        "suites/worker.py",
        name,
        f"--device={device}",
        "--folder",
        OUT,
        *(f"--{option}" for option in options),
        timeout=max(600.0, 5 * case.estimate),
        estimate=case.estimate,
        about={"case": name, "settings": settings, "storage": storage or case.storage},
    )


def table(rows: Sequence[Row], which: str) -> tuple[Sequence[str], list[tuple[str, ...]]]:
    """Head and lines: the totals, or with "stages" seconds and peak of every stage."""
    if which == "stages":
        return stage_cells([row for row in rows if not row.skipped])
    return HEAD, [total_cells(row) for row in totals(rows)]


def missed_goals(rows: Sequence[Row]) -> list[str]:
    """One sentence for each goal that a total or a stage misses; sparse and lazy are held against each other too."""
    whole = totals(rows)
    found = [sentence for row in whole for sentence in _missed(row)]
    by_case = {row.case: row for row in whole}
    for sparse in [row for row in whole if row.case.endswith("-sparse")]:
        lazy = by_case.get(sparse.case.removesuffix("sparse") + "lazy")
        if lazy is not None:
            found += _differences(sparse, lazy)
    return found + slow_stages(rows)


def slow_stages(rows: Sequence[Row]) -> list[str]:
    """One sentence for each stage that takes longer than its goal."""
    return [
        f"{row.case}, {row.stage}: {row.seconds:.2f} s, goal at most {most} s"
        for row in rows
        if row.device == "cpu"
        and row.stage != TOTAL
        and row.seconds > (most := _goal(MOST_STAGE_SECONDS.get(row.stage, {}), row.case, math.inf))
    ]


def _goal(goals: Mapping[str, Any], case: str, default: Any) -> Any:
    """The goal of ``case``: that of the first prefix it has."""
    return next((goal for prefix, goal in goals.items() if case.startswith(prefix)), default)


def _missed(row: Row) -> list[str]:
    found = []
    most = _goal(MOST_SECONDS, row.case, {}).get(row.device, math.inf)
    if row.seconds > most:
        found.append(f"{row.case}: {row.seconds:.1f} s, goal at most {most} s")
    most = _goal(MOST_BYTES, row.case, math.inf)
    if row.main_peak_bytes > most:
        found.append(f"{row.case}: peak {row.main_peak_bytes / 1e9:.2f} GB, goal at most {most / 1e9:.0f} GB")
    if row.predicted_peak_bytes is not None and abs(row.predicted_peak_bytes / row.main_peak_bytes - 1) > PLAN_ERROR:
        predicted, measured = row.predicted_peak_bytes / 1e9, row.main_peak_bytes / 1e9
        found.append(f"{row.case}: peak {measured:.2f} GB, planned {predicted:.2f} GB, goal within {PLAN_ERROR:.0%}")
    kept = row.preservation or {}
    return found + [
        f"{row.case}: keeps {kept.get(k, 0):.4f} of {k} neighbours, goal at least {goal}"
        for k, goal in _goal(LEAST_KEPT, row.case, {}).items()
        if kept.get(k, 0) < goal
    ]


def _differences(sparse: Row, lazy: Row) -> list[str]:
    found = []
    if sparse.t != lazy.t:
        found.append(f"{lazy.case}: t = {lazy.t}, the sparse form has {sparse.t}")
    if sparse.stress and lazy.stress and abs(lazy.stress / sparse.stress - 1) > SAME_STRESS:
        found.append(f"{lazy.case}: stress {lazy.stress:.4f}, the sparse form has {sparse.stress:.4f}")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write after every case, print the tables; 1 if a case failed or a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=NAMES, metavar="CASE", help="may be repeated")
    parser.add_argument("--repeats", type=int, help="warm runs whose median counts")
    options = add_run_arguments(parser).parse_args(argv)

    def chosen(device: str) -> list[Task]:
        if options.only is None and options.repeats is None:
            return tasks(device, options.quick)
        return [case_task(name, device, repeats=options.repeats) for name in options.only or names_for(device)]

    rows, code = run_suite(chosen, options)
    if any(not row.skipped for row in rows):
        print(plain_table(*table(rows, "stages")), end="\n\n")
    return conclude(rows, code)


if __name__ == "__main__":
    sys.exit(main())
