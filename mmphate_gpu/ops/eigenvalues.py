"""Eigenvalues of a large symmetric matrix by whichever solver of the device is fastest."""

from __future__ import annotations

import functools
import math
import time
import warnings
from collections.abc import Callable

import torch

from .._optional import available, require
from ..params import InputError

# Rows of the matrix on which the solvers are timed, and below which torch's own serves untimed: the choice costs more
# than it gains.
SAMPLE = 1024


def _by_torch(matrix: torch.Tensor) -> torch.Tensor:
    return torch.linalg.eigvalsh(matrix)


def _by_cupy(matrix: torch.Tensor) -> torch.Tensor:
    cupy = require("cupy", extra="cuda12", purpose="eigenvalues on CUDA")
    torch_pool = cupy.cuda.PythonFunctionAllocator(
        torch.cuda.caching_allocator_alloc, lambda pointer, device: torch.cuda.caching_allocator_delete(pointer)
    )
    stream = torch.cuda.current_stream(matrix.device).cuda_stream
    # One stream, so nothing is to wait for, and one pool, so no memory lies idle in another.
    with (
        torch.cuda.device(matrix.device),
        cupy.cuda.Device(matrix.device.index),
        cupy.cuda.ExternalStream(stream),
        cupy.cuda.using_allocator(torch_pool.malloc),
    ):
        return torch.from_dlpack(cupy.linalg.eigvalsh(cupy.from_dlpack(matrix))).clone()


Solver = Callable[[torch.Tensor], torch.Tensor]
# torch decides between cuSOLVER's drivers by rules that have changed with its versions, by up to a hundredfold in time;
# CuPy always takes divide and conquer.
SOLVERS: dict[str, Solver] = {"torch": _by_torch, "cupy": _by_cupy}


def symmetric_eigenvalues(matrix: torch.Tensor) -> torch.Tensor:  # (n, n) -> (n,) ascending
    """Eigenvalues of the symmetric ``matrix``, of which one triangle is read.

    On CUDA from 1024 rows on, by the solver that `fastest_solver` names when first asked on this device.
    O(n^3) time, O(n^2) memory.
    """
    if matrix.device.type != "cuda" or matrix.shape[0] < SAMPLE or not available("cupy"):
        return _by_torch(matrix)
    return SOLVERS[fastest_solver(matrix.device, matrix.dtype)](matrix)


@functools.cache
def fastest_solver(device: torch.device, dtype: torch.dtype) -> str:
    """Name of the solver for ``device``: torch's, if none is twice as fast; one that fails is told of and left out.

    Twice, so that two runs on one machine choose alike: the solvers differ in the last bits.
    """
    points = torch.randn(SAMPLE, SAMPLE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sample = (points @ points.T / SAMPLE).to(device, dtype)
    seconds = {name: _seconds(name, sample) for name in SOLVERS}
    quickest = min(seconds, key=seconds.__getitem__)
    return quickest if seconds[quickest] < seconds["torch"] / 2 else "torch"


def _seconds(name: str, sample: torch.Tensor) -> float:
    """Of the second of two runs: the first one loads libraries."""
    try:
        SOLVERS[name](sample)
        _finish(sample.device)
        started = time.perf_counter()
        SOLVERS[name](sample)
        _finish(sample.device)
    # A library that is missing or too new for the driver, and memory that is not there.
    except (InputError, ImportError, OSError, MemoryError, RuntimeError) as error:
        warnings.warn(f"eigenvalues by {name} do not serve on {sample.device}: {error}", RuntimeWarning, stacklevel=2)
        return math.inf
    return time.perf_counter() - started


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
