"""What a measurement is, and how it is shown."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

TOTAL = "total"
OURS = "mmphate-gpu"
PORTABLE = f"{OURS}, portable"  # without the native twins
# How the reason of a row without numbers begins, where another try may go otherwise.
NOT_INSTALLED, REFUSED = "not installed", "refused"
# How it ends where the smaller case gave nothing: the reason is that one's.
FOLLOWS = "before it gave nothing"
# Below it a stage is too short to say how it grows.
LEAST_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Row:
    """One thing that was measured on one machine: a stage of a case, its total, an op, a floor, a peer.

    A row says everything about itself, and leaves out what does not apply. Times are seconds, memory bytes.
    """

    suite: str
    case: str  # the input
    stage: str = TOTAL  # or a stage of the pipeline, or an op
    by: str = OURS  # or the library, or the twin of the op that ran: "C++ (avx512)"
    task: str = ""  # what wrote it: the key of a task of its suite
    settings: dict[str, Any] = field(default_factory=dict)  # what differs from the defaults
    # Where and when: `records.about`.
    device: str = ""  # "cpu" or "cuda"
    machine: str = ""  # processor and cores, or the GPU; never the name of a host
    threads: int | None = None
    memory_bytes: int | None = None  # all of the device: the machine's, or the GPU's
    versions: dict[str, str] = field(default_factory=dict)
    commit: str = ""  # short; a "+" behind it if the sources differ from it
    source: str = ""  # hash of what decides a number
    date: str = ""
    # The input and the form it took.
    n_slices: int | None = None
    n_units: int | None = None
    n_samples: int | None = None
    n_nodes: int | None = None
    n_landmark: int | None = None
    storage: str = ""  # the form of the affinity
    form: str = ""  # of the result: dtype and shape
    statistics: dict[str, Any] = field(default_factory=dict)  # of the input: shares, islands, tiles
    # Time.
    seconds: float | None = None  # median of the warm repeats; of the cold run where there is none
    seconds_low: float | None = None  # least and most of the repeats
    seconds_high: float | None = None
    repeats: int | None = None  # 0: the cold run alone
    warmup: int | None = None  # at least so many runs before the repeats, the cold one among them
    cold_seconds: float | None = None  # the first run of the process
    import_seconds: float | None = None  # of the package, before it
    # Memory.
    peak_bytes: int | None = None  # most that the process held (host), imported libraries included
    device_peak_bytes: int | None = None  # most that torch's and CuPy's pools held (CUDA)
    held_bytes: int | None = None  # of the process, before the run
    added_bytes: int | None = None  # most that the cold run added to what was held just before it, of the same memory
    predicted_peak_bytes: int | None = None  # of the plan, on the memory of the device: held before, and what it adds
    # Quality.
    t: int | None = None
    t_expected: int | None = None  # of the oracle, from the same clusters
    stress: float | None = None
    stress_expected: float | None = None  # of the oracle, for the same clusters
    preservation: dict[str, float] | None = None  # k -> share of slice neighbours kept ("inter")
    preservation_within: dict[str, float] | None = None  # k -> share of unit neighbours kept within slices ("intra")
    trustworthiness: float | None = None  # of the 10 nearest nodes, scikit-learn's
    affinity_error_p99: float | None = None  # absolute, over entries that either has
    affinity_error_max: float | None = None
    pattern_differences: int | None = None  # entries that only one of the two has
    recall: float | None = None  # share of true neighbours found
    procrustes: float | None = None  # disparity to settings["against"]
    error: float | None = None  # relative, of the result of an op
    # Work and rate.
    work: float | None = None  # in ``unit``
    unit: str = ""
    rate: float | None = None  # ``unit`` a second
    goal: float | None = None  # of the rate
    flop: float | None = None
    moved_bytes: float | None = None
    floor_seconds: float | None = None  # least by the machine's rates
    bound: str = ""  # the rate that the floor comes from: the case of a row of suite "floors"
    share_of_floor: float | None = None
    portable_seconds: float | None = None  # of the portable version in the same run
    # Nothing was measured: why, and whether that is a fault.
    skipped: str = ""
    failed: bool | None = None

    @property
    def main_peak_bytes(self) -> int:
        """Of the memory the run is in: the device's where it has its own."""
        return self.device_peak_bytes or self.peak_bytes or 0

    @property
    def reason(self) -> str:
        """Why nothing was measured, in one line: the last of what was said, where an error says what it is."""
        return _one_line(self.skipped).rstrip(".")

    def asdict(self) -> dict[str, Any]:
        """The fields that are set."""
        values = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {name: value for name, value in values if value is not None and value != "" and value != {}}


def timing(seconds: Sequence[float]) -> dict[str, Any]:
    """The fields of a row that tell what ``seconds`` of the repeats say.

    >>> timing([2.0, 1.0, 4.0])
    {'seconds': 2.0, 'seconds_low': 1.0, 'seconds_high': 4.0, 'repeats': 3}
    """
    return {
        "seconds": statistics.median(seconds),
        "seconds_low": min(seconds),
        "seconds_high": max(seconds),
        "repeats": len(seconds),
    }


def slug(text: str) -> str:
    """``text`` as a part of a file name: lower case, words joined by hyphens.

    >>> slug("NVIDIA H200 (141GB)")
    'nvidia-h200-141gb'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


# ---------------------------------------------------------------- tables

HEAD = (
    "case",
    "device",
    "storage",
    "nodes",
    "seconds",
    "cold",
    "peak",
    "t",
    "stress",
    "kept 10 / 40",
    "affinity error",
)


def total_cells(row: Row) -> tuple[str, ...]:
    """One line of the table of totals, under `HEAD`."""
    return (
        row.case,
        row.device,
        row.storage,
        f"{row.n_nodes:,}",
        spread_text(row),
        "" if row.cold_seconds is None else seconds_text(row.cold_seconds),
        bytes_text(row.main_peak_bytes),
        _with_expected(row.t, row.t_expected, "d"),
        _with_expected(row.stress, row.stress_expected, ".3f"),
        "" if not row.preservation else " / ".join(f"{share:.3f}" for share in row.preservation.values()),
        _error_text(row),
    )


def spread_text(row: Row) -> str:
    """Seconds, and behind them half of what lies between the least and the most of the repeats."""
    if row.seconds is None:
        return ""
    text = seconds_text(row.seconds)
    if not row.repeats or row.seconds_low is None or row.seconds_high is None or row.repeats == 1:
        return text
    return f"{text} ± {seconds_text((row.seconds_high - row.seconds_low) / 2)}"


def seconds_text(seconds: float) -> str:
    """Three digits are what a measurement of this kind is worth."""
    return f"{seconds:.2f}" if seconds < 10 else f"{seconds:.1f}"


def bytes_text(n: float) -> str:
    if n >= 1e12:
        return f"{n / 1e12:.2f} TB"
    return f"{n / 1e9:.2f} GB" if n >= 1e9 else f"{n / 1e6:.0f} MB"


def _with_expected(value: float | None, expected: float | None, form: str) -> str:
    if value is None:
        return ""
    return f"{value:{form}}" + ("" if expected is None else f" ({expected:{form}})")


def _error_text(row: Row) -> str:
    if row.affinity_error_max is None:
        return ""
    extra = f", {row.pattern_differences} others" if row.pattern_differences else ""
    return f"{row.affinity_error_max:.1e}{extra}"


def stage_cells(rows: Sequence[Row]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and lines of the table of stages: one line a stage, seconds and peak of each case in a column."""
    cases = list(dict.fromkeys(row.case for row in rows))
    stages = list(dict.fromkeys(row.stage for row in rows))
    cell = {(r.stage, r.case): f"{seconds_text(r.seconds or 0)} s, {bytes_text(r.main_peak_bytes)}" for r in rows}
    return ("stage", *cases), [(stage, *(cell.get((stage, case), "") for case in cases)) for stage in stages]


DEFAULT_LANDMARKS = 4000  # of MMPHATE
AXIS_FIELD = {"slices": "n_slices", "units": "n_units", "samples": "n_samples", "landmarks": "n_landmark"}


def by_axis(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of `bench_scale` that were measured, by what doubles, in the order of its size."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if not row.skipped:
            found.setdefault(row.settings["axis"], []).append(row)
    return {axis: sorted(found[axis], key=lambda row: size(row, axis)) for axis in AXIS_FIELD if axis in found}


def size(row: Row, axis: str) -> int:
    """What doubles along ``axis``; of landmarks as many as were asked for, of which k-means may lose a few."""
    return row.settings.get("n_landmark", DEFAULT_LANDMARKS) if axis == "landmarks" else getattr(row, AXIS_FIELD[axis])


def doubles(before: Row, after: Row, axis: str) -> bool:
    """Whether ``after`` has twice the size of ``before`` along ``axis``, and the form and all else the same."""
    others = [name for name in AXIS_FIELD if name != axis]
    same = before.storage == after.storage and all(size(before, name) == size(after, name) for name in others)
    return same and size(after, axis) == 2 * size(before, axis)


def doubling(whole: Sequence[Row], axis: str) -> list[Row]:
    """The last totals in a row each of which `doubles` the one before; none where there are no two."""
    runs: list[list[Row]] = [[]]
    for row in whole:
        if runs[-1] and not doubles(runs[-1][-1], row, axis):
            runs.append([])
        runs[-1].append(row)
    return next((run for run in reversed(runs) if len(run) > 1), [])


def scale_cells(rows: Sequence[Row], axis: str) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and lines of a table of `bench_scale`: one line a case of ``axis``, with the shares of the stages.

    Seconds are those of the cold run throughout: where that takes long there is no other.
    """
    stages = [stage for stage in dict.fromkeys(row.stage for row in rows) if stage != TOTAL]
    share = {(row.case, row.stage): row.cold_seconds or 0.0 for row in rows}
    shown = [stage for stage in stages if any(share[case, stage] >= 0.05 * share[case, TOTAL] for case, _ in share)]
    lines, before = [], None
    for row in totals(rows):
        seconds = row.cold_seconds or math.nan
        growth = f"{seconds / before.cold_seconds:.2f}" if before and doubles(before, row, axis) else ""
        shares = (f"{100 * share[row.case, stage] / seconds:.0f} %" for stage in shown)
        memory = bytes_text(row.main_peak_bytes), "" if row.added_bytes is None else bytes_text(row.added_bytes)
        sizes = f"{size(row, axis):,}", f"{row.n_nodes:,}", row.storage
        lines.append((*sizes, seconds_text(seconds), growth, *memory, "" if row.t is None else str(row.t), *shares))
        before = row
    return (axis, "nodes", "storage", "cold seconds", "times the one before", "peak", "adds", "t", *shown), lines


def slopes(rows: Sequence[Row], axis: str, last: int = 3) -> str:
    """Exponents of the growth along ``axis``, by least squares on logarithms.

    Of the ``last`` cases of which each doubles the one before; seconds of cold runs, and the memory that they add.
    """
    own = doubling(totals(rows), axis)[-last:]
    if not own:
        return f"Exponents of the {axis}: no two cases of one form of which one doubles the other."
    cases, found = [row.case for row in own], []
    for stage in dict.fromkeys(row.stage for row in rows):
        seconds = {row.case: row.cold_seconds or 0.0 for row in rows if row.stage == stage}
        if all(seconds.get(case) for case in cases) and seconds[cases[-1]] >= LEAST_SECONDS:
            found.append(f"{stage} {_slope([(size(row, axis), seconds[row.case]) for row in own]):.2f}")
    if all(row.added_bytes for row in own):
        found.append(f"added memory {_slope([(size(row, axis), row.added_bytes or 0) for row in own]):.2f}")
    span = f"from {size(own[0], axis):,} to {size(own[-1], axis):,}"
    return f"Exponents of the {axis} {span}, by the seconds of cold runs: {', '.join(found)}."


def _slope(points: Sequence[tuple[float, float]]) -> float:
    logs = [(math.log(x), math.log(y)) for x, y in points]
    mean_x, mean_y = (sum(column) / len(logs) for column in zip(*logs, strict=True))
    return sum((x - mean_x) * (y - mean_y) for x, y in logs) / sum((x - mean_x) ** 2 for x, _ in logs)


def op_cells(rows: Sequence[Row]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and lines of the table of ops."""
    head = ("op", "input", "by", "ms", "rate", "times portable", "error", "adds", "share of floor", "floor")
    return head, [
        (
            row.stage,
            row.case,
            row.by,
            f"{row.seconds * 1e3:.3g}",
            "" if row.rate is None else f"{row.rate:.2e} {row.unit}/s",
            "" if row.portable_seconds is None else f"{row.portable_seconds / row.seconds:.1f}",
            "" if row.error is None else f"{row.error:.1e}",
            "" if row.added_bytes is None else bytes_text(row.added_bytes),
            "" if row.share_of_floor is None else f"{row.share_of_floor:.2f}",
            row.bound,
        )
        for row in rows
        if row.seconds
    ]


def _one_line(text: str) -> str:
    """The last line of ``text``."""
    return next(reversed(text.strip().splitlines()), "").strip()


def plain_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    lines = [[_one_line(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in [head, *lines]
    )


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    lines = [[_one_line(cell).replace("|", r"\|") for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines])


def totals(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.stage == TOTAL and not row.skipped]


def not_measured(rows: Sequence[Row], lines: Sequence[Sequence[str]] = ()) -> list[str]:
    """A sentence for each row without numbers, but those that have their reason in ``lines``, their suite's table.

    What was not tried because a smaller case gave nothing is left out: that one's reason is told.
    """
    shown = {cell for line in lines for cell in line}
    left = [row for row in rows if row.skipped and row.skipped not in shown and not row.skipped.endswith(FOLLOWS)]
    return [f"Not measured: {row.case} ({row.by}): {row.reason}." for row in left]
