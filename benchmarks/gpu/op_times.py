"""A step of `first_light`: median seconds and rates of the ops at the size of the bifurcation suite and of HAR.

The calls are those of suite "ops". Results are not compared with anything.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.cases import CASES
from benchmarks.gpu.expected import HAR
from benchmarks.gpu.parts import Work, run
from benchmarks.measure.device import let_go
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
    """The same inputs from a trace of HAR's size."""

    @functools.cached_property
    def points(self) -> torch.Tensor:  # (S, M, D)
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
    """Cold and warm seconds and the rate of every call of an op."""
    lines = []
    for call in {**OPS, **TILE_OPS}[op](data):
        cold, warm = cold_and_warm(call.run, data.device, REPEATS, call.restore)
        seconds = sorted(warm)[REPEATS // 2]
        line = {"what": call.case, "by": call.by, "cold_seconds": round(cold, 4), "warm_us": round(1e6 * seconds, 2)}
        lines.append({**line, "rate": call.work / seconds, "unit": f"{call.unit}/s", "needs": dict(call.needs)})
        let_go(data.device)
    return {"calls": lines}


if __name__ == "__main__":
    sys.exit(run(__doc__.splitlines()[0], parts))
