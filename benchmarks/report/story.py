"""The table of the README: the runs of the paper, the size of a dense affinity, and what this library takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.measure.rows import FOLLOWS, Row, totals
from benchmarks.measure.tables import bytes_text, spread_text

# The runs of the paper as cases of the pipeline. The first case that was measured on a machine is shown.
RUNS = {
    "a walk at M-PHATE's published size": ("walk-1600x6x10",),
    "bifurcation suite, Hopf (paper)": ("suite-hopf-sparse", "suite-hopf-lazy"),
    "bifurcation suite, Hopf and pitchfork (paper)": ("suite-hopf_pitchfork-sparse", "suite-hopf_pitchfork-lazy"),
    "Area2Bump size (paper)": ("area2bump-80x80x20x40",),
    "HAR size (paper)": ("har-127x128x30x6",),
    "large recurrent run": ("large-125x400x200x50",),
}
REFERENCE = "reference"
PICTURE = "picture"  # the comparison of suite "against" with the reference in it
FLOAT64 = 8


def cells(runs: Mapping[str, Sequence[Row]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and lines: a line for each run, two columns for each machine. ``runs`` has pipeline rows by machine."""
    by_case = {machine: {row.case: row for row in totals(rows)} for machine, rows in runs.items()}
    machines = [column for machine in runs for column in (f"{machine}: seconds", "peak")]
    lines = []
    for name, cases in RUNS.items():
        shown = [next((rows[case] for case in cases if case in rows), None) for rows in by_case.values()]
        measured = [row for row in shown if row is not None]
        if measured:
            first = measured[0]
            sizes = f"{first.n_slices:,} x {first.n_units} x {first.n_samples}", f"{first.n_nodes:,}"
            dense = bytes_text(FLOAT64 * first.n_nodes**2)
            lines.append((name, *sizes, dense, *(cell for row in shown for cell in _taken(row))))
    return ("run", "slices x units x samples", "nodes", "one dense N x N array", *machines), lines


def _taken(row: Row | None) -> tuple[str, str]:
    return ("", "") if row is None else (spread_text(row), bytes_text(row.main_peak_bytes))


def dense_reference(against: Sequence[Row]) -> list[str]:
    """How far the dense float64 reference went, a sentence for each machine that measured it."""
    pictures = reference_pictures(against)
    machines = sorted({row.machine for row in pictures})
    return [_how_far([row for row in pictures if row.machine == machine]) for machine in machines]


def reference_pictures(against: Sequence[Row]) -> list[Row]:
    """The pictures of the reference by their number of nodes, those without numbers included."""
    pictures = [row for row in against if (row.by, row.case) == (REFERENCE, PICTURE)]
    return sorted(pictures, key=lambda row: row.n_nodes or 0)


def endings(rows: Sequence[Row]) -> dict[str, Row]:
    """What ended a peer (`what_ended`), with the smallest case that it ended."""
    first: dict[str, Row] = {}
    for row in rows:
        if row.skipped and not row.skipped.endswith(FOLLOWS):
            first.setdefault(what_ended(row), row)
    return first


def what_ended(row: Row) -> str:
    """ "time" or "memory", or the reason of a row without numbers."""
    if row.skipped.startswith("took more than"):
        return "time"
    return "memory" if "memory" in row.skipped else row.reason


def _how_far(rows: Sequence[Row]) -> str:
    measured = [row for row in rows if row.seconds is not None]
    parts = []
    if measured:
        most = max(measured, key=lambda row: row.n_nodes or 0)
        parts.append(f"{most.n_nodes:,} nodes in {spread_text(most)} s and {bytes_text(most.main_peak_bytes)}")
    for row in endings(rows).values():
        at = row.case if row.n_nodes is None else f"{row.n_nodes:,} nodes"
        parts.append(f"stopped at {at} ({row.reason})")
    return f"The dense float64 reference on {rows[0].machine}: {', '.join(parts)}."
