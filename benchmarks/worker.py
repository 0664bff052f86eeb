"""Runs one case and prints its rows as one line of JSON: every case has a process, and so a peak, of its own."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from benchmarks.cases import CASES, Case
from benchmarks.rows import TOTAL, Row, slug
from mmphate_gpu import (
    MMPHATE,
    Trace,
    __version__,
    diffusion_potential,
    landmark_diffusion,
    metric_mds,
    neighborhood_preservation,
    optimal_t,
    plan,
    potential_distances,
    reference,
    to_scipy,
)
from mmphate_gpu.ops.devices import resolve_device
from mmphate_gpu.params import InputError
from mmphate_gpu.stages import held_bytes, peak_bytes
from mmphate_gpu.within_memory import FORMS

CLEAR = Path("/proc/self/clear_refs")


class PeakMeter:
    """Most memory within a span: of torch's allocator on CUDA, of this process on the CPU.

    On Linux the high-water mark is reset between spans; elsewhere it is the most so far.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.spans: dict[str, int] = {}
        self._reset()

    def __call__(self, stage: str, done: int = 0, total: int = 0) -> None:
        """End the span of ``stage`` and begin the next; fits MMPHATE's ``callback``."""
        self.spans[stage] = max(self.spans.get(stage, 0), peak_bytes(self.device))
        self._reset()

    def _reset(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif os.access(CLEAR, os.W_OK):
            CLEAR.write_text("5")


def machine_name(device: torch.device) -> str:
    """The GPU, or the processor with its cores, and the threads where these are fewer."""
    if device.type == "cuda":
        return slug(torch.cuda.get_device_name(device))
    cores, threads = _n_cores(), torch.get_num_threads()
    return slug(f"{_processor()} {cores} cores" + ("" if threads == cores else f" {threads} threads"))


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2] for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def versions() -> str:
    """What decides a time or a digit, in one line."""
    found = [f"mmphate-gpu {__version__}", f"python {platform.python_version()}", f"torch {torch.__version__}"]
    for package in ("numpy", "scipy", "pykeops"):
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{package} none")
    return ", ".join([*found, *([f"cuda {torch.version.cuda}"] if torch.version.cuda else [])])


def run_case(
    case: Case,
    *,
    device: torch.device,
    storage: str | None = None,
    warmup: int | None = None,
    repeats: int | None = None,
) -> list[Row]:
    """Rows of every stage and of the total; accuracy is looked at after the clock has stopped."""
    on_cuda = device.type == "cuda"
    warmup = warmup if warmup is not None else max(case.warmup, int(on_cuda))
    repeats = repeats if repeats is not None else max(case.repeats, 3 * on_cuda)
    trace = case.trace().to(device)
    options = {**case.options, "random_state": 0, "device": device, "storage": storage or case.storage}
    planned = _planned(trace, device, options)
    meter = PeakMeter(device)
    runs = [_timed(MMPHATE(**options, callback=meter), trace, device) for _ in range(warmup + repeats)][warmup:]
    op = runs[-1][0]
    common = _common(case, device, op, trace, repeats)
    stages = [_stage_row(common, index, [run[0] for run in runs], meter) for index in range(len(op.report_))]
    total = {"seconds": statistics.median(run[1] for run in runs), "peak_bytes": max(meter.spans.values())}
    rows = [*stages, Row(stage=TOTAL, **common, **total, **_accuracy(case, op, trace))]
    return [replace(row, predicted_peak_bytes=planned[row.stage]) for row in rows]


def _planned(trace: Trace, device: torch.device, options: dict[str, Any]) -> dict[str, int]:
    """The peak of every stage and of the run: what is held now, and what the plan adds."""
    held = held_bytes(device)
    planned = plan(trace, **{name: value for name, value in options.items() if name != "random_state"})
    stages = {stage.stage: held + stage.peak_bytes for stage in planned.stages}
    return {**stages, TOTAL: held + planned.peak_bytes}


def _timed(op: MMPHATE, trace: Trace, device: torch.device) -> tuple[MMPHATE, float]:
    started = time.perf_counter()
    op.fit(trace)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return op, time.perf_counter() - started


def _common(case: Case, device: torch.device, op: MMPHATE, trace: Trace, repeats: int) -> dict[str, Any]:
    engine = getattr(op.affinity_, "engine", None)
    return {
        "case": case.name,
        "device": device.type,
        "machine": machine_name(device),
        "storage": FORMS[type(op.affinity_)] + ("" if engine is None else f" ({engine})"),
        "n_slices": trace.n_slices,
        "n_units": trace.n_units,
        "n_samples": trace.n_samples,
        "n_nodes": trace.n_nodes,
        "n_landmark": int(op.landmark_op_.shape[0]),
        "repeats": repeats,
        "versions": versions(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def _stage_row(common: dict[str, Any], index: int, ops: Sequence[MMPHATE], meter: PeakMeter) -> Row:
    reports = [op.report_[index] for op in ops]
    stage = reports[0]["stage"]
    seconds = statistics.median(report["seconds"] for report in reports)
    return Row(stage=stage, **common, seconds=seconds, peak_bytes=meter.spans[stage], form=reports[0]["form"])


# ---------------------------------------------------------------- accuracy


def _accuracy(case: Case, op: MMPHATE, trace: Trace) -> dict[str, Any]:
    found: dict[str, Any] = {"t": op.t_, "stress": op.stress_}
    if case.preservation:
        shares = neighborhood_preservation(trace, op.result_, case.preservation)
        found["preservation"] = {str(k): inter for k, (_, inter) in zip(case.preservation, shares, strict=True)}
    if case.oracle == "reference":
        found |= _against_reference(op, trace)
    elif case.oracle is not None:
        found |= _against_golden(op, Path(case.oracle))
    return found


def _against_reference(op: MMPHATE, trace: Trace) -> dict[str, Any]:
    """The dense float64 affinity, and the time its landmark operator has for the same clusters."""
    expected = reference.multislice_affinity(trace.data.cpu().numpy())
    clusters = op.clusters_.cpu().numpy()
    landmark_op = reference.landmark_diffusion(expected, clusters=clusters)[0]
    return {**affinity_errors(op.affinity_, expected), "t_expected": reference.optimal_t(landmark_op)}


def _against_golden(op: MMPHATE, file: Path) -> dict[str, Any]:
    """The published affinity, and t and stress that this project finds for the published clusters."""
    with np.load(file) as archive:
        golden = dict(archive)
    expected = _dense(golden["indptr"], golden["indices"], golden["values"])
    landmark_op = landmark_diffusion(op.affinity_, clusters=torch.from_numpy(golden["clusters"]).long()).landmark_op
    t = optimal_t(landmark_op)
    mds = metric_mds(potential_distances(diffusion_potential(landmark_op, t)), 2, random_state=0)
    return {
        **affinity_errors(op.affinity_, expected),
        "t": t,
        "t_expected": int(golden["t"]),
        "stress": mds.stress,
        "stress_expected": float(golden["stress"]),
    }


def _dense(indptr: np.ndarray, indices: np.ndarray, values: np.ndarray) -> np.ndarray:  # (N, N)
    dense = np.zeros((len(indptr) - 1,) * 2)
    dense[np.repeat(np.arange(len(indptr) - 1), np.diff(indptr)), indices] = values
    return dense


def affinity_errors(operator: Any, expected: np.ndarray) -> dict[str, Any]:
    """Absolute errors over the entries that either has, and how many only one has."""
    found = to_scipy(operator).toarray()
    either = (found != 0) | (expected != 0)
    errors = np.abs(found - expected)[either]
    return {
        "affinity_error_p99": float(np.percentile(errors, 99)),
        "affinity_error_max": float(errors.max()),
        "pattern_differences": int(((found != 0) != (expected != 0)).sum()),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=CASES, metavar="CASE")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--storage")
    parser.add_argument("--warmup", type=int)
    parser.add_argument("--repeats", type=int)
    options = parser.parse_args(argv)
    given = {name: getattr(options, name) for name in ("storage", "warmup", "repeats")}
    try:
        rows = run_case(CASES[options.case], device=resolve_device(options.device), **given)
    except InputError as error:
        parser.error(str(error))
    print(json.dumps([asdict(row) for row in rows]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
