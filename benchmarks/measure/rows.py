"""A row: one thing that was measured, with everything it was measured with."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

TOTAL = "total"
OURS = "mmphate-gpu"
PORTABLE = f"{OURS}, portable"  # without the native twins
# A reason for no numbers begins with one of these if another try may succeed.
NOT_INSTALLED, REFUSED = "not installed", "refused"
# A reason ends so if the case was not tried because a smaller case gave no numbers.
FOLLOWS = "before it gave nothing"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement on one machine: a stage of a case, its total, an op, a floor, or a peer.

    Fields that do not apply are not set. Times are in seconds, memory in bytes.
    """

    suite: str
    case: str  # the input
    stage: str = TOTAL  # or a stage of the pipeline, or an op
    by: str = OURS  # or another library, or the twin of the op that ran: "C++ (avx512)"
    task: str = ""  # key of the task, within the suite, that wrote the row
    settings: dict[str, Any] = field(default_factory=dict)  # what differs from the defaults
    # Where and when: `records.about`.
    device: str = ""  # "cpu" or "cuda"
    machine: str = ""  # processor and cores, or the GPU; never a host name
    threads: int | None = None
    memory_bytes: int | None = None  # total memory of the machine, or of the GPU
    versions: dict[str, str] = field(default_factory=dict)
    commit: str = ""  # short hash, followed by "+" if the sources differ from the commit
    source: str = ""  # hash of the files that decide a number
    date: str = ""
    # The input, and the form of the affinity.
    n_slices: int | None = None
    n_units: int | None = None
    n_samples: int | None = None
    n_nodes: int | None = None
    n_landmark: int | None = None
    storage: str = ""  # the form of the affinity
    form: str = ""  # of the result: dtype and shape
    statistics: dict[str, Any] = field(default_factory=dict)  # of the input: shares, islands, tiles
    # Time.
    seconds: float | None = None  # median of the warm repeats; without any, the cold run
    seconds_low: float | None = None  # shortest and longest repeat
    seconds_high: float | None = None
    repeats: int | None = None  # 0 if there was only the cold run
    warmup: int | None = None  # least number of runs before the repeats, the cold run included
    cold_seconds: float | None = None  # the first run of the process
    import_seconds: float | None = None  # import of the package, before the first run
    # Memory.
    peak_bytes: int | None = None  # peak resident memory of the process, imported libraries included
    device_peak_bytes: int | None = None  # peak of the pools of torch and CuPy (CUDA)
    held_bytes: int | None = None  # held by the process before the run
    added_bytes: int | None = None  # peak of the cold run less what was held just before it, in the same memory
    predicted_peak_bytes: int | None = (
        None  # held before the run plus the peak of the plan, in the memory of the device
    )
    # Quality.
    t: int | None = None
    t_expected: int | None = None  # from the oracle, for the same clusters
    stress: float | None = None
    stress_expected: float | None = None  # from the oracle, for the same clusters
    preservation: dict[str, float] | None = None  # k -> share of slice neighbors kept ("inter")
    preservation_within: dict[str, float] | None = None  # k -> share of unit neighbors kept within slices ("intra")
    trustworthiness: float | None = None  # of the 10 nearest nodes, scikit-learn's
    affinity_error_p99: float | None = None  # absolute, over the entries of either side
    affinity_error_max: float | None = None
    pattern_differences: int | None = None  # entries that only one side has
    recall: float | None = None  # share of the true neighbors that a search returns
    procrustes: float | None = None  # disparity to settings["against"]
    error: float | None = None  # relative error of the result of an op
    # Work and rate.
    work: float | None = None  # in ``unit``
    unit: str = ""
    rate: float | None = None  # ``unit`` per second
    goal: float | None = None  # for the rate
    flop: float | None = None
    moved_bytes: float | None = None
    floor_seconds: float | None = None  # least time at the rates of the machine
    bound: str = ""  # the rate that decides the floor: the case of a row of suite "floors"
    share_of_floor: float | None = None
    portable_seconds: float | None = None  # of the portable version, in the same run
    # Why nothing was measured, and whether that is a fault.
    skipped: str = ""
    failed: bool | None = None

    @property
    def main_peak_bytes(self) -> int:
        """The peak in the memory of the device."""
        return self.device_peak_bytes or self.peak_bytes or 0

    @property
    def reason(self) -> str:
        """Why nothing was measured: the last line of ``skipped``, where an error names itself."""
        return last_line(self.skipped).rstrip(".")

    def asdict(self) -> dict[str, Any]:
        """The fields that are set."""
        values = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {name: value for name, value in values if value is not None and value != "" and value != {}}


def timing(seconds: Sequence[float]) -> dict[str, Any]:
    """Fields of a row from the seconds of its repeats.

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


def last_line(text: str) -> str:
    return next(reversed(text.strip().splitlines()), "").strip()


def totals(rows: Sequence[Row]) -> list[Row]:
    """The rows of whole runs that have numbers."""
    return [row for row in rows if row.stage == TOTAL and not row.skipped]
