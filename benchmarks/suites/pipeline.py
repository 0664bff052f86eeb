"""Suite "pipeline": whole runs of walks, the bifurcation suite, a recording, and the sizes of real data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.cases import CASES, QUICK
from benchmarks.measure.rows import TOTAL, Row, totals
from benchmarks.measure.tables import Table, bytes_text, number_text, seconds_text, shares_text, spread_text
from benchmarks.measure.tasks import Task, python_task

NAME = "pipeline"
PARTS = tuple(name for name, case in CASES.items() if not case.axis)
# Goals, by how the name of a case begins. Seconds of a warm run on two cores and on one GPU, and bytes.
MOST_SECONDS = {
    "suite-hopf-sparse": {"cpu": 30, "cuda": 0.5},
    "suite-hopf_pitchfork-sparse": {"cpu": 45, "cuda": 0.5},
    "suite-": {"cpu": 90, "cuda": 0.5},
    "walk-100": {"cpu": 20},
    "walk-1600": {"cpu": 15},
    "har-": {"cpu": 360, "cuda": 1.0},
}
# Seconds of one stage on two cores.
MOST_STAGE_SECONDS = {"mds": {"suite-hopf-sparse": 1.5, "suite-hopf_pitchfork-sparse": 1.5}}
# The peak of the plan may differ from the measured peak by this share.
PLAN_ERROR = 0.15
MOST_BYTES = {"suite-": 3e9, "har-": 14e9}
# k -> least share of slice neighbors kept.
LEAST_KEPT = {"suite-hopf-": {"10": 0.205, "40": 0.385}, "suite-hopf_pitchfork-": {"10": 0.130, "40": 0.240}}
SAME_STRESS = 0.01


def tasks(device: str, quick: bool, only: Sequence[str] = ()) -> list[Task]:
    """A task for each case: the small ones if ``quick``, else all that the device can run."""
    return [case_task(name, device) for name in only or (QUICK if quick else names_for(device))]


def names_for(device: str) -> list[str]:
    return [name for name in PARTS if device != "cpu" or not CASES[name].cuda_only]


def case_task(name: str, device: str, *, storage: str | None = None, repeats: int | None = None) -> Task:
    """The task that measures a case. With another storage or number of repeats it is another task."""
    case, changes = CASES[name], {"storage": storage, "repeats": repeats}
    options = [f"{option}={value}" for option, value in changes.items() if value is not None]
    settings = {**case.options, **({"axis": case.axis} if case.axis else {})}
    return python_task(
        "scale" if case.axis else NAME,
        "-".join([name, *options]),
        "worker",
        name,
        *(f"--{option}" for option in options),
        device=device,
        timeout=max(600.0, 5 * case.estimate),
        estimate=case.estimate,
        fields={"case": name, "settings": settings, "storage": storage or case.storage},
    )


# ---------------------------------------------------------------- tables

HEAD = (
    *("case", "device", "storage", "nodes", "seconds", "cold", "peak"),
    *("t", "stress", "kept 10 / 40", "affinity error"),
)


def tables(rows: Sequence[Row], which: str = "") -> list[Table]:
    """The totals, or with "stages" the seconds and the peak of every stage."""
    if which == "stages":
        return [stages_table([row for row in rows if not row.skipped])]
    return [Table(HEAD, [total_cells(row) for row in totals(rows)])]


def total_cells(row: Row) -> tuple[str, ...]:
    """A line of the table of totals."""
    return (
        row.case,
        row.device,
        row.storage,
        f"{row.n_nodes:,}",
        spread_text(row),
        seconds_text(row.cold_seconds),
        bytes_text(row.main_peak_bytes),
        _with_expected(row.t, row.t_expected, "d"),
        _with_expected(row.stress, row.stress_expected, ".3f"),
        shares_text(row.preservation),
        _error_text(row),
    )


def _with_expected(value: float | None, expected: float | None, form: str) -> str:
    return number_text(value, form) + ("" if value is None or expected is None else f" ({expected:{form}})")


def _error_text(row: Row) -> str:
    others = f", {row.pattern_differences} others" if row.pattern_differences else ""
    return number_text(row.affinity_error_max, ".1e") + others


def stages_table(rows: Sequence[Row]) -> Table:
    """A line for each stage, a column for each case."""
    cases = list(dict.fromkeys(row.case for row in rows))
    stages = list(dict.fromkeys(row.stage for row in rows))
    cell = {(r.stage, r.case): f"{seconds_text(r.seconds or 0)} s, {bytes_text(r.main_peak_bytes)}" for r in rows}
    return Table(("stage", *cases), [(stage, *(cell.get((stage, case), "") for case in cases)) for stage in stages])


# ---------------------------------------------------------------- goals


def missed_goals(rows: Sequence[Row]) -> list[str]:
    """A sentence for each goal that a total or a stage misses. A sparse and a lazy run are compared with each other."""
    whole = totals(rows)
    missed = [sentence for row in whole for sentence in _missed(row)]
    by_case = {row.case: row for row in whole}
    for sparse in [row for row in whole if row.case.endswith("-sparse")]:
        lazy = by_case.get(sparse.case.removesuffix("sparse") + "lazy")
        if lazy is not None:
            missed += _differences(sparse, lazy)
    return missed + slow_stages(rows)


def slow_stages(rows: Sequence[Row]) -> list[str]:
    """A sentence for each stage that takes longer than its goal."""
    return [
        f"{row.case}, {row.stage}: {row.seconds:.2f} s, goal at most {most} s"
        for row in rows
        if row.device == "cpu"
        and row.stage != TOTAL
        and row.seconds > (most := _goal(MOST_STAGE_SECONDS.get(row.stage, {}), row.case, math.inf))
    ]


def _goal(goals: Mapping[str, Any], case: str, default: Any) -> Any:
    """The goal of the first prefix that the name of the case has."""
    return next((goal for prefix, goal in goals.items() if case.startswith(prefix)), default)


def _missed(row: Row) -> list[str]:
    missed = []
    most = _goal(MOST_SECONDS, row.case, {}).get(row.device, math.inf)
    if row.seconds > most:
        missed.append(f"{row.case}: {row.seconds:.1f} s, goal at most {most} s")
    most = _goal(MOST_BYTES, row.case, math.inf)
    if row.main_peak_bytes > most:
        missed.append(f"{row.case}: peak {row.main_peak_bytes / 1e9:.2f} GB, goal at most {most / 1e9:.0f} GB")
    if row.predicted_peak_bytes is not None and abs(row.predicted_peak_bytes / row.main_peak_bytes - 1) > PLAN_ERROR:
        predicted, measured = row.predicted_peak_bytes / 1e9, row.main_peak_bytes / 1e9
        missed.append(f"{row.case}: peak {measured:.2f} GB, planned {predicted:.2f} GB, goal within {PLAN_ERROR:.0%}")
    kept = row.preservation or {}
    return missed + [
        f"{row.case}: keeps {kept.get(k, 0):.4f} of {k} neighbors, goal at least {goal}"
        for k, goal in _goal(LEAST_KEPT, row.case, {}).items()
        if kept.get(k, 0) < goal
    ]


def _differences(sparse: Row, lazy: Row) -> list[str]:
    differences = []
    if sparse.t != lazy.t:
        differences.append(f"{lazy.case}: t = {lazy.t}, the sparse form has {sparse.t}")
    if sparse.stress and lazy.stress and abs(lazy.stress / sparse.stress - 1) > SAME_STRESS:
        differences.append(f"{lazy.case}: stress {lazy.stress:.4f}, the sparse form has {sparse.stress:.4f}")
    return differences
