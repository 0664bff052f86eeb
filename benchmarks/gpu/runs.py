"""Steps of `first_light`: whole runs in every form against carried numbers, and HAR's size under the profiler."""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from benchmarks.cases import CASES
from benchmarks.gpu.expected import HAR, RUNS, SMALL_RUNS, expected, run_of_rows
from benchmarks.gpu.parts import Work, run
from benchmarks.measure.device import PeakMeter
from benchmarks.measure.rows import TOTAL
from benchmarks.suites.worker import planned_bytes, runs
from mmphate_gpu import MMPHATE, Trace

STORAGES = ("sparse", "tiles", "lazy")
# Largest relative difference of the stress from that of the CPU. With products in half precision and another order of
# sums the descent ends in another minimum close by.
SAME_STRESS = 0.01
HAR_RUNS = 3
TOP = 40  # names of the profile that are kept


def parts(options: argparse.Namespace) -> Iterator[tuple[str, Work]]:
    device = options.device
    for name in SMALL_RUNS if options.small else [name for name in RUNS if name not in SMALL_RUNS]:
        for storage in STORAGES:
            work = functools.partial(whole_run, name, storage, device)
            yield f"run: {name}, {storage}", work
    har = RUNS["small suite"] if options.small else HAR
    for number in range(HAR_RUNS):
        yield f"har: run {number + 1}", functools.partial(measured, har, "tiles", device, 1, run_of_rows(har))
    yield "har: profile", functools.partial(profile, har, device)


@functools.lru_cache(maxsize=1)
def trace_of(case: str) -> Trace:
    return CASES[case].trace(None)


def options_of(case: str, storage: str, device: torch.device) -> dict[str, Any]:
    return {**CASES[case].options, "storage": storage, "device": device, "random_state": 0}


def whole_run(name: str, storage: str, device: torch.device) -> dict[str, Any]:
    """A cold and a warm run, compared with the carried numbers."""
    carried = expected()
    wanted = carried["runs"].get(name, {})
    line = {**measured(RUNS[name], storage, device, 2, wanted), "same_sources": carried["same_sources"]}
    wrong = [] if line["finite"] else ["coordinates that are not finite"]
    if wanted and line["t"] != wanted["t"]:
        wrong.append(f"t = {line['t']}, expected {wanted['t']}")
    if wanted and not abs(line["stress"] / wanted["stress"] - 1) <= SAME_STRESS:
        wrong.append(f"stress {line['stress']:.4f}, expected {wanted['stress']:.4f}")
    if wrong and carried["same_sources"]:
        line["error"] = "; ".join(wrong)
    elif wrong:
        line["differs"] = "; ".join(wrong) + " (made by other sources: --expect makes the numbers anew)"
    return line


def measured(case: str, storage: str, device: torch.device, n_runs: int, wanted: dict[str, Any]) -> dict[str, Any]:
    """Seconds of ``n_runs`` runs and of their stages, and the memory of the first run beside the plan."""
    trace = trace_of(case).to(device)
    meter = PeakMeter(device)
    op, by_stage = runs(trace, options_of(case, storage, device), meter, n_runs - 1)
    seconds = {stage: [round(elapsed, 4) for elapsed in of_stage] for stage, of_stage in by_stage.items()}
    total = seconds.pop(TOTAL)
    planned = planned_bytes(trace, device, {**CASES[case].options, "storage": op.affinity_.storage}, meter.before)
    return {
        "form": op.affinity_.storage,
        "engine": getattr(op.affinity_, "engine", None),
        "t": op.t_,
        "stress": op.stress_,
        "expected": wanted,
        "finite": bool(torch.as_tensor(op.embedding_).isfinite().all()),
        "run_seconds": total,
        "stage_seconds": seconds,
        "peak_bytes": max(meter.spans.values()),
        "planned_bytes": max(planned.values()),
        "stage_peaks": {stage: [meter.spans.get(stage), planned.get(stage)] for stage in seconds},
    }


def profile(case: str, device: torch.device) -> dict[str, Any]:
    """What takes longest in a run, on the device and on the host, and the share of time in which the device is idle.

    The sums are of the raw events of the profiler, because its averages take minutes for a run with a hundred thousand
    launches. The time of a call on the host includes the calls inside it.
    """
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as torch_profile

    trace = trace_of(case).to(device)
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * (device.type == "cuda")]
    with torch_profile(activities=activities) as recorded:
        started = time.perf_counter()
        MMPHATE(**options_of(case, "tiles", device)).fit(trace)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        wall = time.perf_counter() - started
    events = recorded.profiler.kineto_results.events()
    on_host = [event for event in events if event.device_type() == torch.autograd.DeviceType.CPU]
    on_device = [event for event in events if event.device_type() != torch.autograd.DeviceType.CPU]
    busy = busy_seconds([(event.start_ns(), event.start_ns() + event.duration_ns()) for event in on_device])
    line = {"wall_seconds": wall, "lists_are": ["name", "calls", "milliseconds"], "host": longest(on_host)}
    if not on_device:
        return line
    return {**line, "device": longest(on_device), "busy_seconds": busy, "idle_share": 1 - busy / wall}


def longest(events: Sequence[Any]) -> list[tuple[str, int, float]]:
    """The names with the most time, their calls and milliseconds."""
    calls, times = Counter(), Counter()
    for event in events:
        calls[event.name()] += 1
        times[event.name()] += event.duration_ns()
    return [(name[:120], calls[name], round(time / 1e6, 3)) for name, time in times.most_common(TOP)]


def busy_seconds(spans: Sequence[tuple[int, int]]) -> float:
    """Seconds covered by ``spans`` in nanoseconds; overlaps count once.

    >>> busy_seconds([(0, 10**9), (5 * 10**8, 2 * 10**9), (3 * 10**9, 4 * 10**9)])
    3.0
    """
    busy, until = 0, -1
    for start, end in sorted(spans):
        busy += max(0, end - max(start, until))
        until = max(until, end)
    return busy / 1e9


if __name__ == "__main__":
    sys.exit(run(__doc__.splitlines()[0], parts))
