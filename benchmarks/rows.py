"""What a measurement is, where it is kept, and how it is shown."""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
TOTAL = "total"


@dataclass(frozen=True)
class Row:
    """One stage of one case on one machine, or its total; accuracy stands in the row of the total."""

    case: str
    stage: str  # a stage of the pipeline, or "total"
    device: str  # "cpu" or "cuda"
    machine: str  # processor and cores, or the GPU; never the name of a host
    storage: str  # the form the affinity took
    n_slices: int
    n_units: int
    n_samples: int
    n_nodes: int
    n_landmark: int
    seconds: float  # median of the repeats
    repeats: int
    peak_bytes: int  # of the process during the stage (CPU), of torch's allocator on the GPU (CUDA)
    predicted_peak_bytes: int | None = None  # what was held when the run began, and the peak of its plan
    form: str = ""  # of the stage's result
    t: int | None = None
    t_expected: int | None = None  # of the oracle, from the same clusters
    stress: float | None = None
    stress_expected: float | None = None  # of the oracle, for the same clusters
    preservation: dict[str, float] | None = None  # k -> share of slice neighbours kept ("inter")
    affinity_error_p99: float | None = None  # against the oracle, over entries that either has
    affinity_error_max: float | None = None
    pattern_differences: int | None = None  # entries that only one of the two has
    versions: str = ""
    date: str = ""


@dataclass(frozen=True)
class OpRow:
    """One call of one op, by the twin that serves or by a library."""

    op: str
    what: str  # the input
    twin: str  # what ran: "C++ (avx512)", "CUDA ...", "portable torch ...", "library"
    seconds: float  # the least of the repeats
    rate: float  # ``unit`` a second
    unit: str
    portable_seconds: float | None = None  # of the portable version in the same run
    goal: float | None = None  # of the rate
    floor_seconds: float | None = None  # what bytes and operations take at the full rates of the GPU (CUDA only)
    threads: int = 1
    device: str = "cpu"
    machine: str = ""
    versions: str = ""
    date: str = ""


def slug(text: str) -> str:
    """``text`` as a part of a file name: lower case, words joined by hyphens.

    >>> slug("NVIDIA H200 (141GB)")
    'nvidia-h200-141gb'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def result_path(folder: Path, name: str, machine: str) -> Path:
    return folder / f"{name}-{machine}.json"


def write_json(path: Path, content: Any) -> None:
    """Write whole or not at all: what was there stays until the new text is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(content, file, indent=1)
            file.write("\n")
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """One row a line within a JSON list, without the fields that a row leaves empty."""
    write_json(path, [{name: value for name, value in asdict(row).items() if value is not None} for row in rows])


def read_rows(path: Path) -> list[Row]:
    """The rows of a result file, or those within a file of `verify_gpu`.

    Raises
    ------
    ValueError
        A file that is no JSON, or holds something other than rows.
    """
    return _read(path, Row)


def read_op_rows(path: Path) -> list[OpRow]:
    """The rows of a result of `bench_ops`; errors as `read_rows`."""
    return _read(path, OpRow)


def _read(path: Path, kind: type) -> list[Any]:
    content = json.loads(path.read_text())
    entries = content.get("rows") if isinstance(content, dict) else content
    known = {f.name for f in fields(kind)}
    if not isinstance(entries, list) or not all(isinstance(e, dict) and e.keys() <= known for e in entries):
        raise ValueError(f"{path} holds no benchmark rows")
    return [kind(**entry) for entry in entries]


# ---------------------------------------------------------------- tables

HEAD = ("case", "device", "storage", "nodes", "seconds", "peak", "t", "stress", "kept 10 / 40", "affinity error")


def total_cells(row: Row) -> tuple[str, ...]:
    """One line of the table of totals, under `HEAD`."""
    return (
        row.case,
        row.device,
        row.storage,
        f"{row.n_nodes:,}",
        seconds_text(row.seconds),
        bytes_text(row.peak_bytes),
        _with_expected(row.t, row.t_expected, "d"),
        _with_expected(row.stress, row.stress_expected, ".3f"),
        "" if not row.preservation else " / ".join(f"{share:.3f}" for share in row.preservation.values()),
        _error_text(row),
    )


def seconds_text(seconds: float) -> str:
    """Three digits are what a measurement of this kind is worth."""
    return f"{seconds:.2f}" if seconds < 10 else f"{seconds:.1f}"


def bytes_text(n: float) -> str:
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
    cell = {(row.stage, row.case): f"{seconds_text(row.seconds)} s, {bytes_text(row.peak_bytes)}" for row in rows}
    return ("stage", *cases), [(stage, *(cell.get((stage, case), "") for case in cases)) for stage in stages]


def scale_cells(rows: Sequence[Row]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and lines of the table of `bench_scale`: one line a case, with the shares of the stages."""
    stages = [stage for stage in dict.fromkeys(row.stage for row in rows) if stage != TOTAL]
    share = {(row.case, row.stage): row.seconds for row in rows}
    shown = [stage for stage in stages if any(share[case, stage] >= 0.05 * share[case, TOTAL] for case, _ in share)]
    lines, before = [], None
    for row in totals(rows):
        growth = "" if before is None else f"{row.seconds / before.seconds:.2f}"
        shares = (f"{100 * share[row.case, stage] / row.seconds:.0f} %" for stage in shown)
        memory, t = bytes_text(row.peak_bytes), "" if row.t is None else str(row.t)
        lines.append((f"{row.n_nodes:,}", row.storage, seconds_text(row.seconds), growth, memory, t, *shares))
        before = row
    return ("nodes", "storage", "seconds", "times the one before", "peak", "t", *shown), lines


def slopes(rows: Sequence[Row], last: int = 3) -> str:
    """Exponents of the growth with the number of nodes over the ``last`` cases, by least squares on logarithms."""
    found = []
    for stage in dict.fromkeys(row.stage for row in rows):
        own = [row for row in rows if row.stage == stage][-last:]
        if len(own) > 1 and own[-1].seconds >= 1:
            found.append(f"{stage} {_slope([(row.n_nodes, row.seconds) for row in own]):.2f}")
    whole = totals(rows)[-last:]
    if len(whole) > 1:
        found.append(f"peak {_slope([(row.n_nodes, row.peak_bytes) for row in whole]):.2f}")
    return f"Slopes over the last {len(whole)} cases, both axes logarithmic: {', '.join(found)}."


def _slope(points: Sequence[tuple[float, float]]) -> float:
    logs = [(math.log(x), math.log(y)) for x, y in points]
    mean_x, mean_y = (sum(column) / len(logs) for column in zip(*logs, strict=True))
    return sum((x - mean_x) * (y - mean_y) for x, y in logs) / sum((x - mean_x) ** 2 for x, _ in logs)


def op_cells(rows: Sequence[OpRow]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and lines of the table of ops."""
    head = ("op", "input", "by", "ms", "rate", "times portable", "share of floor")
    return head, [
        (
            row.op,
            row.what,
            row.twin,
            f"{row.seconds * 1e3:.3g}",
            f"{row.rate:.2e} {row.unit}/s",
            "" if row.portable_seconds is None else f"{row.portable_seconds / row.seconds:.1f}",
            "" if row.floor_seconds is None else f"{row.floor_seconds / row.seconds:.2f}",
        )
        for row in rows
    ]


def plain_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in [head, *lines]
    )


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines])


def totals(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.stage == TOTAL]
