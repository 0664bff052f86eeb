"""A step of `first_light`: seconds and rates of the ops at the size of the suite and at that of HAR, median of five.

The calls and inputs are those of suite "ops". Results are not compared with anything.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from benchmarks.cases import CASES
from benchmarks.gpu.expected import HAR
from benchmarks.gpu.parts import Work, run
from benchmarks.measure.devices import let_go
from benchmarks.measure.timer import cold_and_warm
from benchmarks.suites.op_calls import OPS, TILE_OPS
from benchmarks.suites.op_inputs import Data
from mmphate_gpu.trace import normalize

REPEATS = 5
AT_HAR = (
    "radius_counts",
    "median_kth_neighbor_distance",
    *TILE_OPS,
    "assign_nearest",
    "orthonormalize",
    "radius_fill",
    "csr_matmul",
    "landmark_aggregate",
)


class HarData(Data):
    """The same inputs, made from a trace of HAR's size."""

    @functools.cached_property
    def points(self) -> torch.Tensor:  # (S, M, p)
        return normalize(CASES[HAR].trace(None)).to(self.device)


def parts(options: argparse.Namespace) -> Iterator[tuple[str, Work]]:
    suite = Data(options.device, options.small)
    for op in [*OPS, *TILE_OPS]:
        yield f"suite: {op}", functools.partial(times, op, suite)
    del suite
    if not options.small:
        har = HarData(options.device, False)
        for op in AT_HAR:
            yield f"har: {op}", functools.partial(times, op, har)


def times(op: str, data: Data) -> dict[str, Any]:
    """Every call of an op in suite "ops": cold and warm seconds, and the rate."""
    lines = []
    for entry in {**OPS, **TILE_OPS}[op](data):
        cold, warm = cold_and_warm(entry.call, data.device, REPEATS, entry.restore)
        seconds = sorted(warm)[REPEATS // 2]
        line = {"what": entry.what, "by": entry.by, "cold_seconds": round(cold, 4), "warm_us": round(1e6 * seconds, 2)}
        lines.append({**line, "rate": entry.work / seconds, "unit": f"{entry.unit}/s", "needs": dict(entry.needs)})
        let_go(data.device)
    return {"calls": lines}


if __name__ == "__main__":
    sys.exit(run(__doc__.splitlines()[0], parts))
