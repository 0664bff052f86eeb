"""The CUDA twins of csrc/cuda: launch geometry, outputs and arguments; compiled by CuPy (NVRTC) at first use.

One function per op, with the signature of its portable version. Outputs come from torch and kernels run on torch's
current stream, so nothing is to synchronise and there is one memory pool. A `Launch` says all about one start of one
kernel; who starts it is told to `Twins`: CuPy here, an emulation on the CPU in the tests.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from .._optional import require
from ._sources import kernel_source

# Points of a block, and its threads, in the kernels over pairs (csrc/common/pair_tiles.h).
TILE = 64
TILE_THREADS = 256

Argument = torch.Tensor | int | float | None


@dataclass(frozen=True)
class Launch:
    """One start of one kernel. Arguments are pointers (tensors, None), int64 or float64."""

    source: str  # csrc/cuda/<source>.cu
    kernel: str
    arguments: tuple[Argument, ...]
    blocks: int
    threads: int
    shared_bytes: int = 0
    defines: dict[str, str] = field(default_factory=dict)


Start = Callable[[Launch, torch.device], None]


def blocks_of(items: int, each: int) -> int:
    return -(-items // each)


def _types(indices: torch.dtype, values: torch.dtype) -> dict[str, str]:
    return {"MMP_INDEX": _c_type(indices), "MMP_VALUE": _c_type(values)}


def _c_type(dtype: torch.dtype) -> str:
    names = {torch.int32: "mmp_i32", torch.int64: "mmp_i64", torch.float32: "float", torch.float64: "double"}
    return names[dtype]


class Twins:
    """The ops over a way to start kernels."""

    def __init__(self, start: Start) -> None:
        self._start = start

    def _run(self, launch: Launch, device: torch.device) -> None:
        if launch.blocks > 0:
            self._start(launch, device)

    def _over_pairs(
        self, source: str, kernel: str, rows: int, points: torch.Tensor, *arguments: Argument, **types: str
    ) -> None:
        """A kernel that meets ``rows`` points with all points of their sets."""
        launch = Launch(source, kernel, (points, *arguments), blocks_of(rows, TILE), TILE_THREADS, defines=types)
        self._run(launch, points.device)

    def radius_counts(self, points: torch.Tensor, reach: float) -> torch.Tensor:
        points = points.contiguous()
        counts = torch.empty(points.shape[:2], dtype=torch.int64, device=points.device)
        types = _types(torch.int32, torch.float64)  # of no matter to a count
        self._over_pairs(
            "radius_affinity", "radius_count", counts.numel(), points, *points.shape, reach, counts, **types
        )
        return counts


# ---------------------------------------------------------------- CuPy


@functools.cache
def _kernel(device: int, source: str, kernel: str, defines: tuple[tuple[str, str], ...]) -> Any:
    """Compiled for the current device, ``device``; CuPy keeps what it compiles on disk."""
    cupy = require("cupy", extra="cuda12", purpose="a CUDA kernel")
    # No contraction: with it a pair at the cut could fall to another side than in the C++ twin.
    options = ("--std=c++17", "--fmad=false", *(f"-D{name}={value}" for name, value in defines))
    return cupy.RawModule(code=kernel_source(source), options=options, backend="nvrtc").get_function(kernel)


def _argument(value: Argument) -> np.generic:
    if isinstance(value, torch.Tensor):
        return np.uint64(value.data_ptr())
    if value is None:
        return np.uint64(0)
    return np.int64(value) if isinstance(value, int) else np.float64(value)


def start_with_cupy(launch: Launch, device: torch.device) -> None:
    """On torch's current stream of ``device``."""
    cupy = require("cupy", extra="cuda12", purpose="a CUDA kernel")
    with torch.cuda.device(device), cupy.cuda.Device(device.index):
        kernel = _kernel(device.index, launch.source, launch.kernel, tuple(sorted(launch.defines.items())))
        arguments = tuple(map(_argument, launch.arguments))
        with cupy.cuda.ExternalStream(torch.cuda.current_stream(device).cuda_stream):
            kernel((launch.blocks,), (launch.threads,), arguments, shared_mem=launch.shared_bytes)


_twins = Twins(start_with_cupy)
radius_counts = _twins.radius_counts
