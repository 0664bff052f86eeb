"""Run one case of the pipeline and print its rows. Each case has a process, and so a memory peak, of its own."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_started = time.perf_counter()

import torch  # noqa: E402

from mmphate_gpu import MMPHATE, Trace, plan  # noqa: E402

IMPORT_SECONDS = time.perf_counter() - _started

from benchmarks.cases import CASES, Case  # noqa: E402
from benchmarks.measure.conditions import conditions  # noqa: E402
from benchmarks.measure.device import PeakMeter, use_device  # noqa: E402
from benchmarks.measure.rows import TOTAL, Row, timing  # noqa: E402
from benchmarks.measure.tasks import emit, task_options  # noqa: E402
from benchmarks.suites.accuracy import accuracy  # noqa: E402
from mmphate_gpu.errors import InputError  # noqa: E402

REPEATS = 3
# A longer run on the CPU is not repeated, because little of it is due to the cold start.
LONG = 30.0


def times(seconds: Sequence[float]) -> dict[str, Any]:
    """Fields of a row: the median and the range of the warm runs, and the cold run, which is the first."""
    cold, *warm = seconds
    summary = timing(warm) if warm else {"seconds": cold, "repeats": 0}
    return {**summary, "warmup": 1, "cold_seconds": cold}


def run_case(
    case: Case,
    *,
    device: torch.device,
    storage: str | None = None,
    repeats: int | None = None,
    folder: Path | None = None,
) -> list[Row]:
    """Rows of every stage and of the total. Accuracy is computed after the clock has stopped.

    The first run is the cold run. ``repeats`` warm runs follow: three by default, none on the CPU if the first took
    longer than `LONG`. ``folder`` keeps what takes long to make.
    """
    trace = case.trace(folder).to(device)
    options = {**case.options, "storage": storage or case.storage}
    meter = PeakMeter(device)
    op, seconds = runs(trace, {**options, "device": device, "random_state": 0}, meter, repeats)
    planned = planned_bytes(trace, device, {**options, "storage": op.affinity_.storage}, meter.before)
    common = {**_common(case, device, op, trace, options), "held_bytes": meter.held_bytes}
    rows = []
    for report in op.report_:
        stage = report["stage"]
        memory = {"predicted_peak_bytes": planned[stage], **meter.fields(stage)}
        rows.append(Row(stage=stage, form=report["form"], **common, **times(seconds[stage]), **memory))
    memory = {"predicted_peak_bytes": planned[TOTAL], **meter.run_fields()}
    whole = {**common, **times(seconds[TOTAL]), **memory, **accuracy(case, op, trace)}
    return [*rows, Row(**whole, import_seconds=IMPORT_SECONDS)]


def runs(
    trace: Trace, options: dict[str, Any], meter: PeakMeter, repeats: int | None
) -> tuple[MMPHATE, dict[str, list[float]]]:
    """The last of the cold run and the warm runs, and the seconds of all runs by stage (`timed`).

    The results of a run are freed before the next. Peaks are of the cold run, because what the allocators keep of it is
    not needed by the next.
    """
    op, first = timed(trace, options, meter)
    if repeats is None:
        repeats = 0 if meter.device.type == "cpu" and first[TOTAL] > LONG else REPEATS
    seconds = {stage: [elapsed] for stage, elapsed in first.items()}
    for _ in range(repeats):
        del op
        op, warm = timed(trace, options, None)
        for stage, elapsed in warm.items():
            seconds[stage].append(elapsed)
    return op, seconds


def timed(trace: Trace, options: dict[str, Any], meter: PeakMeter | None) -> tuple[MMPHATE, dict[str, float]]:
    """A run, and the seconds of its stages and of the whole."""
    op = MMPHATE(**options, callback=meter)
    started = time.perf_counter()
    op.fit(trace)
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    elapsed = time.perf_counter() - started
    return op, {**{report["stage"]: report["seconds"] for report in op.report_}, TOTAL: elapsed}


def planned_bytes(trace: Trace, device: torch.device, options: dict[str, Any], held: int) -> dict[str, int]:
    """The planned peak of every stage and of the run, on top of the ``held`` bytes.

    The plan is made after the runs, because it calls ops on a sample, and the first run would no longer be cold.
    """
    planned = plan(trace, device=device, **options)
    stages = {stage.stage: held + stage.peak_bytes for stage in planned.stages}
    return {**stages, TOTAL: held + planned.peak_bytes}


def _common(case: Case, device: torch.device, op: MMPHATE, trace: Trace, options: dict[str, Any]) -> dict[str, Any]:
    engine = getattr(op.affinity_, "engine", None)
    settings = {name: value for name, value in options.items() if (name, value) != ("storage", "auto")}
    return {
        "suite": "scale" if case.axis else "pipeline",
        "case": case.name,
        "settings": settings | ({"axis": case.axis} if case.axis else {}),
        "storage": op.affinity_.storage + ("" if engine is None else f" ({engine})"),
        "n_landmark": int(op.landmark_op_.shape[0]),
        **{size: getattr(trace, size) for size in ("n_slices", "n_units", "n_samples", "n_nodes")},
        **conditions(device),
    }


def main() -> int:
    parser = task_options()
    parser.add_argument("--storage")
    parser.add_argument("--repeats", type=int)
    options = parser.parse_args()
    changes = {name: getattr(options, name) for name in ("storage", "repeats", "folder")}
    try:
        emit(run_case(CASES[options.names[0]], device=use_device(options.device), **changes))
    except InputError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
