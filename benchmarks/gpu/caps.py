"""A run under a cap on the memory, for `verify_caps`. It prints its numbers as one line of JSON.

    python -m benchmarks.gpu.caps har --device cuda --storage auto --cap 12e9

On CUDA the cap also holds for torch's allocator (`set_per_process_memory_fraction`), so a run that needs more memory
ends as it would on a card of that size. A run that the library refuses gives the refusal and the plan.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.cases import CASES
from benchmarks.measure.device import PeakMeter, use_device
from mmphate_gpu import MMPHATE, Trace, datasets, plan
from mmphate_gpu.errors import InputError
from mmphate_gpu.runtime.memory import MEMORY_LIMIT_VARIABLE, available_bytes
from mmphate_gpu.runtime.memory_use import held_bytes

# The trace, and the parameters of the run.
RUNS: dict[str, tuple[Any, dict[str, Any]]] = {
    "suite": (lambda: datasets.bifurcation("hopf_pitchfork"), {"n_components": 3}),
    "har": (lambda: CASES["har-127x128x30x6"].trace(), {}),
    "walk": (lambda: datasets.random_walk(1600, 6, 10), {}),
    "small": (lambda: datasets.random_walk(600, 10, 8), {"n_landmark": 400, "n_svd": 50}),
}


def capped_run(trace: Trace, options: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The numbers of the plan, and of the run or its refusal."""
    trace = trace.to(device)
    available, held = available_bytes(device), held_bytes(device)
    planned = plan(trace, device=device, **options)
    numbers = {"available_bytes": available, "planned_form": planned.storage, "planned_to_fit": planned.fits}
    meter, started = PeakMeter(device), time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            op = MMPHATE(**options, device=device, random_state=0, callback=meter).fit(trace)
        except InputError as error:
            return {**numbers, "refused": str(error)}
    return {
        **numbers,
        "form": op.affinity_.storage,
        "engine": getattr(op.affinity_, "engine", None),
        "t": op.t_,
        "finite": bool(torch.as_tensor(op.embedding_).isfinite().all()),
        "predicted_peak_bytes": held + planned.peak_bytes,
        "peak_bytes": max(meter.spans.values()),
        "reserved_bytes": torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None,
        "fallbacks": [str(warning.message) for warning in caught if "gives way" in str(warning.message)],
        "seconds": round(time.perf_counter() - started, 2),
    }


def set_cap(cap: float, device: torch.device) -> None:
    """Set the limit of the library, which then plans with it, and on CUDA the limit of the allocator."""
    os.environ[MEMORY_LIMIT_VARIABLE] = str(int(cap))
    if device.type == "cuda":
        whole = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, cap / whole), device)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", choices=RUNS)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--storage", default="auto")
    parser.add_argument("--cap", type=float, help="bytes; none if not given")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=NUMBER", help="a parameter of the run")
    options = parser.parse_args(argv)
    device = use_device(options.device)
    if options.cap is not None:
        set_cap(options.cap, device)
    make, settings = RUNS[options.run]
    changed = {name: int(value) for name, _, value in (setting.partition("=") for setting in options.set)}
    print(json.dumps(capped_run(make(), {**settings, "storage": options.storage, **changed}, device)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
