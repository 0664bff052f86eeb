"""The table of the README: the runs of the paper, what a dense affinity would hold, and what this library takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.measure.rows import FOLLOWS, Row, bytes_text, spread_text, totals

# Of the pipeline's cases, what each run of the paper is: the first one that was measured on a machine is shown.
RUNS = {
    "a walk at M-PHATE's published size": ("walk-1600x6x10",),
    "bifurcation suite, Hopf (paper)": ("suite-hopf-sparse", "suite-hopf-lazy"),
    "bifurcation suite, Hopf and pitchfork (paper)": ("suite-hopf_pitchfork-sparse", "suite-hopf_pitchfork-lazy"),
    "Area2Bump size (paper)": ("area2bump-80x80x20x40",),
    "HAR size (paper)": ("har-127x128x30x6",),
    "large recurrent run": ("large-125x400x200x50",),
}
REFERENCE = "reference"
PICTURE = "picture"  # the comparison in which it takes part
FLOAT64 = 8


def cells(runs: Mapping[str, Sequence[Row]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and lines: one line a run, two columns a machine; ``runs`` are the rows of the pipeline by machine."""
    by_case = {machine: {row.case: row for row in totals(rows)} for machine, rows in runs.items()}
    machines = [column for machine in runs for column in (f"{machine}: seconds", "peak")]
    lines = []
    for what, cases in RUNS.items():
        shown = [next((own[case] for case in cases if case in own), None) for own in by_case.values()]
        measured = [row for row in shown if row is not None]
        if measured:
            one = measured[0]
            sizes = f"{one.n_slices:,} x {one.n_units} x {one.n_samples}", f"{one.n_nodes:,}"
            dense = bytes_text(FLOAT64 * one.n_nodes**2)
            lines.append((what, *sizes, dense, *(cell for row in shown for cell in _taken(row))))
    return ("run", "slices x units x samples", "nodes", "one dense N x N array", *machines), lines


def _taken(row: Row | None) -> tuple[str, str]:
    return ("", "") if row is None else (spread_text(row), bytes_text(row.main_peak_bytes))


def dense_reference(against: Sequence[Row]) -> list[str]:
    """How far the dense float64 reference went, one sentence a machine; nothing where it was not measured."""
    own = reference_pictures(against)
    return [_how_far([row for row in own if row.machine == machine]) for machine in sorted({r.machine for r in own})]


def reference_pictures(against: Sequence[Row]) -> list[Row]:
    """The reference's rows of the pictures, from few nodes to many, those without numbers too."""
    own = [row for row in against if (row.by, row.case) == (REFERENCE, PICTURE)]
    return sorted(own, key=lambda row: row.n_nodes or 0)


def endings(rows: Sequence[Row]) -> dict[str, Row]:
    """What ended a way that is tried from few nodes to many, with the first row that it ended."""
    found: dict[str, Row] = {}
    for row in rows:
        if row.skipped and not row.skipped.endswith(FOLLOWS):
            found.setdefault(what_ended(row), row)
    return found


def what_ended(row: Row) -> str:
    """In a word, by the reason of a row without numbers: "time" or "memory"; else the reason."""
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
