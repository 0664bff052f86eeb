"""Runs one case and prints its rows as one line of JSON: every case has a process, and so a peak, of its own."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

_started = time.perf_counter()

import torch  # noqa: E402

from mmphate_gpu import MMPHATE, Trace, plan  # noqa: E402

IMPORT_SECONDS = time.perf_counter() - _started

from benchmarks.cases import CASES, Case  # noqa: E402
from benchmarks.measure import records  # noqa: E402
from benchmarks.measure.devices import let_go, use_device  # noqa: E402
from benchmarks.measure.rows import TOTAL, Row, timing  # noqa: E402
from benchmarks.measure.tasks import emit  # noqa: E402
from benchmarks.suites.accuracy import accuracy  # noqa: E402
from mmphate_gpu.errors import InputError  # noqa: E402
from mmphate_gpu.stages import held_bytes, peak_bytes  # noqa: E402

CLEAR = Path("/proc/self/clear_refs")
CPU = torch.device("cpu")
REPEATS = 3
# A run on the CPU that takes longer is not repeated: what is cold about it is a small part.
LONG = 30.0


class PeakMeter:
    """Most memory within a span: of this process, and on CUDA of the pools of torch and CuPy.

    On Linux the high-water mark of the process is reset between spans; elsewhere it is the most so far.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.host: dict[str, int] = {}
        self.pools: dict[str, int] = {}
        self._reset()

    def __call__(self, stage: str, done: int = 0, total: int = 0) -> None:
        """End the span of ``stage`` and begin the next; fits MMPHATE's ``callback``."""
        self.host[stage] = max(self.host.get(stage, 0), peak_bytes(CPU))
        if self.device.type == "cuda":
            most = peak_bytes(self.device) + cupy_bytes()
            self.pools[stage] = max(self.pools.get(stage, 0), most)
        self._reset()

    @property
    def spans(self) -> dict[str, int]:
        """Of the memory the run is in: the device's where it has its own."""
        return self.pools or self.host

    def fields(self, stage: str) -> dict[str, int]:
        """The peaks of a stage, or of all, as fields of a row."""
        names = {"peak_bytes": self.host, "device_peak_bytes": self.pools}
        return {name: max(spans.values()) if stage == TOTAL else spans[stage] for name, spans in names.items() if spans}

    def _reset(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        if os.access(CLEAR, os.W_OK):
            CLEAR.write_text("5")


def cupy_bytes() -> int:
    """What CuPy's pool holds, which torch's allocator does not count; it only grows while a kernel runs."""
    cupy = sys.modules.get("cupy")
    return 0 if cupy is None else int(cupy.get_default_memory_pool().total_bytes())


@dataclass
class Runs:
    """What the runs of a case took; of their results the last alone is kept."""

    op: MMPHATE
    seconds: list[float]
    stages: list[list[float]]  # of every run, in the order of the stages

    def times(self, stage: int | None) -> dict[str, Any]:
        """Fields of a row: the median of the warm runs and their spread, the cold one apart."""
        all_runs = self.seconds if stage is None else [run[stage] for run in self.stages]
        cold, warm = all_runs[0], all_runs[1:]
        own = timing(warm) if warm else {"seconds": cold, "repeats": 0}
        return {**own, "warmup": 1, "cold_seconds": cold}


def run_case(
    case: Case,
    *,
    device: torch.device,
    storage: str | None = None,
    repeats: int | None = None,
    folder: Path | None = None,
) -> list[Row]:
    """Rows of every stage and of the total; accuracy is looked at after the clock has stopped.

    The first run is the cold one. ``repeats`` warm ones follow, three by default, none on the CPU where the first took
    longer than `LONG`. ``folder`` keeps what takes long to make.
    """
    trace = case.trace(folder).to(device)
    options = {**case.options, "storage": storage or case.storage}
    let_go(device)  # what making the trace has left
    held = {"held_bytes": held_bytes(CPU)}
    before = held_bytes(device)
    meter = PeakMeter(device)
    runs = _runs(trace, {**options, "device": device, "random_state": 0}, meter, repeats)
    planned = planned_bytes(trace, device, {**options, "storage": runs.op.affinity_.storage}, before)
    common = {**_common(case, device, runs.op, trace, options), **held}
    rows = []
    for index, report in enumerate(runs.op.report_):
        stage = report["stage"]
        own = {"form": report["form"], "predicted_peak_bytes": planned[stage], **meter.fields(stage)}
        rows.append(Row(stage=stage, **common, **runs.times(index), **own))
    added = {"added_bytes": max(meter.spans.values()) - before}
    total = {"predicted_peak_bytes": planned[TOTAL], **meter.fields(TOTAL), **added}
    found = accuracy(case, runs.op, trace)
    return [*rows, Row(**common, **runs.times(None), import_seconds=IMPORT_SECONDS, **total, **found)]


def _runs(trace: Trace, options: dict[str, Any], meter: PeakMeter, repeats: int | None) -> Runs:
    """The cold run, and the warm ones; results of a run are gone before the next. Peaks are those of the cold run: what
    the allocators keep of it is no part of what the next one takes."""
    runs = Runs(*timed(trace, options, meter))
    if repeats is None:
        repeats = 0 if meter.device.type == "cpu" and runs.seconds[0] > LONG else REPEATS
    for _ in range(repeats):
        del runs.op
        runs.op, seconds, stages = timed(trace, options, None)
        runs.seconds += seconds
        runs.stages += stages
    return runs


def timed(
    trace: Trace, options: dict[str, Any], meter: PeakMeter | None
) -> tuple[MMPHATE, list[float], list[list[float]]]:
    op = MMPHATE(**options, callback=meter)
    started = time.perf_counter()
    op.fit(trace)
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return op, [time.perf_counter() - started], [[report["seconds"] for report in op.report_]]


def planned_bytes(trace: Trace, device: torch.device, options: dict[str, Any], held: int) -> dict[str, int]:
    """The peak of every stage and of the run: what was held before it, and what the plan adds for the form it took.

    Asked after the runs: a plan estimates from a sample with the ops of a run, which would no longer be cold.
    """
    planned = plan(trace, device=device, **options)
    stages = {stage.stage: held + stage.peak_bytes for stage in planned.stages}
    return {**stages, TOTAL: held + planned.peak_bytes}


def _common(case: Case, device: torch.device, op: MMPHATE, trace: Trace, options: dict[str, Any]) -> dict[str, Any]:
    engine = getattr(op.affinity_, "engine", None)
    settings = {name: value for name, value in options.items() if (name, value) != ("storage", "auto")}
    if case.axis:
        settings["axis"] = case.axis
    return {
        "suite": "scale" if case.axis else "pipeline",
        "case": case.name,
        "settings": settings,
        "storage": op.affinity_.storage + ("" if engine is None else f" ({engine})"),
        "n_slices": trace.n_slices,
        "n_units": trace.n_units,
        "n_samples": trace.n_samples,
        "n_nodes": trace.n_nodes,
        "n_landmark": int(op.landmark_op_.shape[0]),
        **records.about(device),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=CASES, metavar="CASE")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--storage")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--folder", type=Path, help="where what takes long to make is kept")
    options = parser.parse_args(argv)
    given = {name: getattr(options, name) for name in ("storage", "repeats", "folder")}
    try:
        emit(run_case(CASES[options.case], device=use_device(options.device), **given))
    except InputError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
