"""The ops that decide speed: seconds of each as it serves and of its portable version, rates, shares of floors, goals.

Run ``python benchmarks/suites/ops.py``; ``--only guttman_transform`` is one op. On CUDA times are those of events
(`timer`). A floor is what the op's bytes and operations take at the rates of the machine that suite floors wrote; where
it has not run they are measured first (`floors.rates_of`). Seconds, rate and share are those of the median repeat.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from benchmarks.measure import records
from benchmarks.measure.devices import let_go, use_device
from benchmarks.measure.rows import Row, op_cells, plain_table, timing
from benchmarks.measure.tasks import OUT, QUICK, Task, emit, python_task
from benchmarks.measure.timer import once, warm
from benchmarks.run import add_run_arguments, missed_or_none, run_suite
from benchmarks.suites import floors
from benchmarks.suites.op_calls import GROUPS, OPS, TILE_OPS, Measured, relative_error, tensors_of
from benchmarks.suites.op_inputs import Data
from benchmarks.suites.worker import PeakMeter, cupy_bytes
from mmphate_gpu.runtime.memory_use import held_bytes

NAME = "ops"
SWEEP_GOAL = 25
REPEATS, QUICK_REPEATS = 9, 3


def measure(one: Measured, device: torch.device, repeats: int, rate: Mapping[str, float]) -> Row:
    """The op as it serves, its portable version, its memory, its error and its floor at the rates ``rate``."""
    # Before the memory is read: copies of inputs, and what ops before this one left, are not this one's.
    one.restore(1)
    let_go(device)
    meter, held = PeakMeter(device), held_bytes(device) + cupy_bytes()
    cold = once(one.call, device)
    meter("cold")
    seconds = warm(one.call, device, repeats, one.restore)
    row = Row(suite=NAME, case=one.what, stage=one.op, by=one.by, cold_seconds=cold, warmup=1, **timing(seconds))
    row = replace(row, work=one.work, unit=one.unit, rate=one.work / row.seconds, goal=one.goal)
    row = replace(row, added_bytes=max(0, meter.spans["cold"] - held))
    row = replace(row, flop=one.flop, moved_bytes=one.needs["bytes"], **_beside_portable(one, device, repeats))
    floor = floors.floor_of(one.needs, rate)
    if floor is None:
        return row
    return replace(row, floor_seconds=floor[0], bound=floor[1], share_of_floor=floor[0] / row.seconds)


def _beside_portable(one: Measured, device: torch.device, repeats: int) -> dict[str, Any]:
    """The error, and the seconds of the portable version where another serves."""
    # Copies: the other version may write to the same place.
    found = [tensor.clone() for tensor in tensors_of(one.once(one.call))]
    error = None if one.judge is None else one.judge(found[0])
    if one.portable is None:
        return {"error": error}
    expected = one.once(one.portable)
    error = relative_error(found, expected) if error is None else error
    slow = warm(one.portable, device, max(1, repeats // 3), one.restore)
    return {"error": error, "portable_seconds": timing(slow)["seconds"]}


def measured(
    device: torch.device,
    *,
    quick: bool,
    only: Sequence[str] = (),
    repeats: int | None = None,
    folder: Path | None = None,
) -> list[Row]:
    """Rows of the ops ``only``, or of all; ``folder`` is where suite floors wrote its rates."""
    data, about = Data(device, quick), records.about(device)
    rate = floors.rates_of(folder, device, quick=quick)
    rows = []
    for op in only or ops(device.type, quick):
        for one in {**OPS, **TILE_OPS}[op](data):
            row = measure(one, device, repeats or (QUICK_REPEATS if quick else REPEATS), rate)
            rows.append(replace(row, goal=None if quick else row.goal, **about))
    return rows


def ops(device: str, quick: bool) -> list[str]:
    """The names of the ops that are measured there."""
    return [*OPS, *(TILE_OPS if quick or device.startswith("cuda") else ())]


def tasks(device: str, quick: bool, only: Sequence[str] = (), repeats: int | None = None) -> list[Task]:
    """A process an op; one for all where inputs are small.

    On CUDA, where a process takes ten seconds to start and to load its kernels, there is one for each of the `GROUPS`:
    what ends early costs the rows of one group, and all start within one call of `verify_gpu`.
    """
    chosen = list(only or ops(device, quick))
    if quick:
        return [_task(device, quick, "all" if chosen == ops(device, quick) else "-".join(chosen), chosen, repeats)]
    if not device.startswith("cuda"):
        return [_task(device, quick, op, [op], repeats) for op in chosen]
    shares = {name: [op for op in chosen if op in group] for name, group in GROUPS.items()}
    whole = {name: name if some == list(GROUPS[name]) else "-".join(some) for name, some in shares.items()}
    return [_task(device, quick, whole[name], some, repeats) for name, some in shares.items() if some]


def _task(device: str, quick: bool, name: str, only: Sequence[str], repeats: int | None) -> Task:
    given = [] if repeats is None else [f"--repeats={repeats}"]
    chosen = [f"--only={op}" for op in only]
    options = ["--rows", f"--device={device}", "--folder", OUT, *chosen, *given, *["--quick"] * quick]
    key = "-".join([name, *([] if repeats is None else [str(repeats)])])
    time = {"timeout": 1200.0, "estimate": 15.0 if quick else 12.0 * len(only)}
    about = {"stage": only[0] if len(only) == 1 else name}
    return python_task(NAME, QUICK * quick + key, "suites/ops.py", *options, about=about, **time)


def sweep_ratio(rows: Sequence[Row]) -> float | None:
    """The sweep that MDS takes (float32, 3 components) against the portable one of the same run and type."""
    found = [row for row in rows if row.stage == "guttman_transform" and row.case.endswith("x 3, float32")]
    return found[0].portable_seconds / found[0].seconds if found and found[0].portable_seconds else None


def missed_goals(rows: Sequence[Row]) -> list[str]:
    """One sentence for each goal that is missed; goals are those of two CPU cores, at full size."""
    full = [row for row in rows if row.device == "cpu" and not row.skipped and not row.task.startswith(QUICK)]
    found = [
        f"{row.stage}, {row.case}: {row.rate:.2g} {row.unit}/s, goal {row.goal:.2g}"
        for row in full
        if row.goal is not None and row.rate < row.goal
    ]
    ratio = sweep_ratio(full)
    if ratio is not None and ratio < SWEEP_GOAL:
        found.append(f"guttman_transform: {ratio:.1f} times the portable sweep, goal {SWEEP_GOAL}")
    return found


def table(rows: Sequence[Row], which: str) -> tuple[Sequence[str], list[tuple[str, ...]]]:
    """Head and lines: one line a call of an op."""
    return op_cells(rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write, print the table; 1 if a task failed or a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", default=[], choices=[*OPS, *TILE_OPS], help="one op; repeatable")
    parser.add_argument("--repeats", type=int, help=f"warm calls ({REPEATS}, quick {QUICK_REPEATS})")
    parser.add_argument("--rows", action="store_true", help="measure in this process and print the rows: a task")
    parser.add_argument("--folder", type=Path, help="of --rows: where suite floors wrote the rates of the machine")
    options = add_run_arguments(parser).parse_args(argv)
    if options.rows:
        own = {"quick": options.quick, "only": options.only, "repeats": options.repeats, "folder": options.folder}
        emit(measured(use_device(options.device), **own))
        return 0
    rows, code = run_suite(lambda device: tasks(device, options.quick, options.only, options.repeats), options)
    print(plain_table(*table(rows, "")), end="\n\n")
    return missed_or_none(missed_goals(rows), code)


if __name__ == "__main__":
    sys.exit(main())
