"""Suite "ops": seconds of each op as it runs and of its portable version, with rates, shares of floors, and goals.

A floor is the time that the bytes and operations of the op take at the rates of the machine, as suite "floors" wrote
them or as they are measured first (`floors.rates_of`). Seconds, rate and share are of the median repeat.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure.conditions import conditions
from benchmarks.measure.device import PeakMeter, use_device
from benchmarks.measure.rows import Row, timing
from benchmarks.measure.tables import Table, bytes_text, number_text
from benchmarks.measure.tasks import QUICK, Task, emit, python_task, task_options
from benchmarks.measure.timer import once, warm
from benchmarks.suites import floors
from benchmarks.suites.op_calls import GROUPS, OPS, TILE_OPS, Call, relative_error, tensors_of
from benchmarks.suites.op_inputs import Data

NAME = "ops"
PARTS = (*OPS, *TILE_OPS)
SWEEP_GOAL = 25
REPEATS, QUICK_REPEATS = 9, 3


def measure(call: Call, device: torch.device, repeats: int, rates: Mapping[str, float]) -> Row:
    """The op as it runs, its portable version, its memory, its error, and its floor at ``rates``."""
    call.restore(1)  # before the memory is read, which is not to count the copies of the inputs
    meter = PeakMeter(device)
    cold = once(call.run, device)
    meter("cold")
    seconds = warm(call.run, device, repeats, call.restore)
    row = Row(suite=NAME, case=call.case, stage=call.op, by=call.by, cold_seconds=cold, warmup=1, **timing(seconds))
    row = replace(row, work=call.work, unit=call.unit, rate=call.work / row.seconds, goal=call.goal)
    row = replace(row, added_bytes=max(0, meter.spans["cold"] - meter.before))
    row = replace(row, flop=call.flop, moved_bytes=call.needs["bytes"], **_beside_portable(call, device, repeats))
    floor = floors.floor_of(call.needs, rates)
    if floor is None:
        return row
    return replace(row, floor_seconds=floor[0], bound=floor[1], share_of_floor=floor[0] / row.seconds)


def _beside_portable(call: Call, device: torch.device, repeats: int) -> dict[str, Any]:
    """The error, and the seconds of the portable version if something else runs."""
    # Copies, because the portable version may write to the same place.
    results = [tensor.clone() for tensor in tensors_of(call.result_of(call.run))]
    error = None if call.judge is None else call.judge(results[0])
    if call.portable is None:
        return {"error": error}
    expected = call.result_of(call.portable)
    error = relative_error(results, expected) if error is None else error
    slow = warm(call.portable, device, max(1, repeats // 3), call.restore)
    return {"error": error, "portable_seconds": timing(slow)["seconds"]}


def measured(names: Sequence[str], device: torch.device, folder: Path | None, *, quick: bool) -> list[Row]:
    """Rows of the ops ``names``; ``folder`` has the rates of suite "floors"."""
    data, now = Data(device, quick), conditions(device)
    rates = floors.rates_of(folder, device, quick=quick)
    rows = []
    for name in names:
        for call in {**OPS, **TILE_OPS}[name](data):
            row = measure(call, device, QUICK_REPEATS if quick else REPEATS, rates)
            rows.append(replace(row, goal=None if quick else row.goal, **now))
    return rows


def tasks(device: str, quick: bool, only: Sequence[str] = ()) -> list[Task]:
    """A process for each op; one for all of them if inputs are small.

    On CUDA a process takes ten seconds to start and to load its kernels, so the ops of each of the `GROUPS` share one.
    """
    on_gpu = device.startswith("cuda")
    everything = [*OPS, *(TILE_OPS if quick or on_gpu else ())]
    chosen = list(only or everything)
    if quick:
        return [_task(device, quick, "all" if chosen == everything else "-".join(chosen), chosen)]
    if not on_gpu:
        return [_task(device, quick, op, [op]) for op in chosen]
    by_group = {name: [op for op in chosen if op in group] for name, group in GROUPS.items()}
    key = {name: name if ops == list(GROUPS[name]) else "-".join(ops) for name, ops in by_group.items()}
    return [_task(device, quick, key[name], ops) for name, ops in by_group.items() if ops]


def _task(device: str, quick: bool, key: str, ops: Sequence[str]) -> Task:
    fields = {"stage": ops[0] if len(ops) == 1 else key}
    limits = {"timeout": 1200.0, "estimate": 15.0 if quick else 12.0 * len(ops)}
    return python_task(NAME, QUICK * quick + key, "ops", *ops, device=device, quick=quick, fields=fields, **limits)


def sweep_ratio(rows: Sequence[Row]) -> float | None:
    """How many times faster the sweep of MDS (float32, 3 components) is than its portable version."""
    sweeps = [row for row in rows if row.stage == "guttman_transform" and row.case.endswith("x 3, float32")]
    return sweeps[0].portable_seconds / sweeps[0].seconds if sweeps and sweeps[0].portable_seconds else None


def missed_goals(rows: Sequence[Row]) -> list[str]:
    """A sentence for each goal that is missed. The goals are for two CPU cores, at full size."""
    full = [row for row in rows if row.device == "cpu" and not row.skipped and not row.task.startswith(QUICK)]
    missed = [
        f"{row.stage}, {row.case}: {row.rate:.2g} {row.unit}/s, goal {row.goal:.2g}"
        for row in full
        if row.goal is not None and row.rate < row.goal
    ]
    ratio = sweep_ratio(full)
    if ratio is not None and ratio < SWEEP_GOAL:
        missed.append(f"guttman_transform: {ratio:.1f} times the portable sweep, goal {SWEEP_GOAL}")
    return missed


HEAD = ("op", "input", "by", "ms", "rate", "times portable", "error", "adds", "share of floor", "floor")


def tables(rows: Sequence[Row], which: str = "") -> list[Table]:
    """One table, with a line for each call of an op."""
    return [Table(HEAD, [_cells(row) for row in rows if row.seconds])]


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.stage,
        row.case,
        row.by,
        f"{row.seconds * 1e3:.3g}",
        "" if row.rate is None else f"{row.rate:.2e} {row.unit}/s",
        "" if row.portable_seconds is None else f"{row.portable_seconds / row.seconds:.1f}",
        number_text(row.error, ".1e"),
        bytes_text(row.added_bytes),
        number_text(row.share_of_floor, ".2f"),
        row.bound,
    )


def main() -> int:
    options = task_options().parse_args()
    emit(measured(options.names, use_device(options.device), options.folder, quick=options.quick))
    return 0


if __name__ == "__main__":
    sys.exit(main())
