"""The bifurcation suite at full size (48,480 nodes, 4000 landmarks), and the sizes of M-PHATE's walk and of HAR:
stages, totals, accuracy, goals.

Run ``python benchmarks/bench_pipeline.py``; ``--only suite-hopf-sparse`` is one of the cases.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cases import SUITE
from benchmarks.harness import CaseFailed, run_case
from benchmarks.rows import (
    HEAD,
    RESULTS,
    Row,
    plain_table,
    read_rows,
    result_path,
    stage_cells,
    total_cells,
    totals,
    write_rows,
)

NAME = "suite"
CASES = (*SUITE, "walk-100x50x25", "walk-1600x6x10", "har-127x128x30x6")
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


def missed_goals(rows: Sequence[Row]) -> list[str]:
    """One sentence for each goal that a total misses; sparse and lazy are held against each other too."""
    found = [sentence for row in rows for sentence in _missed(row)]
    by_case = {row.case: row for row in rows}
    for sparse in [row for row in rows if row.case.endswith("-sparse")]:
        lazy = by_case.get(sparse.case.removesuffix("sparse") + "lazy")
        if lazy is not None:
            found += _differences(sparse, lazy)
    return found


def slow_stages(rows: Sequence[Row]) -> list[str]:
    """One sentence for each stage that takes longer than its goal."""
    return [
        f"{row.case}, {row.stage}: {row.seconds:.2f} s, goal at most {most} s"
        for row in rows
        if row.device == "cpu"
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
    if row.peak_bytes > most:
        found.append(f"{row.case}: peak {row.peak_bytes / 1e9:.2f} GB, goal at most {most / 1e9:.0f} GB")
    if row.predicted_peak_bytes is not None and abs(row.predicted_peak_bytes / row.peak_bytes - 1) > PLAN_ERROR:
        predicted, measured = row.predicted_peak_bytes / 1e9, row.peak_bytes / 1e9
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


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=CASES, help="one of the cases; may be repeated")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, help="runs whose median counts")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write after every case, print the tables; 1 if a case failed or a goal is missed."""
    options = parse(argv)
    names = options.only or CASES
    rows: list[Row] = []
    failed = False
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            rows += run_case(name, device=options.device, repeats=options.repeats)
        except CaseFailed as error:
            print(f"{name} FAILED: {error}", file=sys.stderr)
            failed = True
            continue
        print(f"written: {_merge(options.out, rows)}", file=sys.stderr)
    missed = [*missed_goals(totals(rows)), *slow_stages(rows)]
    if rows:
        print(
            plain_table(*stage_cells(rows)), plain_table(HEAD, [total_cells(row) for row in totals(rows)]), sep="\n\n"
        )
        print("\n".join(["", *(missed or ["All goals met."])]))
    return int(failed or bool(missed))


def _merge(folder: Path, rows: Sequence[Row]) -> Path:
    """Write ``rows`` over those of the same cases; rows of other cases stay."""
    path = result_path(folder, NAME, rows[0].machine)
    new = {row.case for row in rows}
    others = [row for row in read_rows(path) if row.case not in new] if path.exists() else []
    write_rows(path, sorted([*others, *rows], key=lambda row: CASES.index(row.case)))
    return path


if __name__ == "__main__":
    sys.exit(main())
