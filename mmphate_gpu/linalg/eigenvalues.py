"""Eigenvalues and eigenpairs of a large symmetric matrix by the fastest solver of the device."""

from __future__ import annotations

import functools
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import InputError
from ..runtime.optional import available, require_cupy

# From a matrix to its eigenvalues (n,), or to eigenvalues and eigenvectors (n, n).
Solver = Callable[[torch.Tensor], Any]


@dataclass(frozen=True)
class Task:
    """A problem of a symmetric matrix, and the solvers that can solve it."""

    # Rows of the matrix on which the solvers are timed, about as many as in the problems of this package. For smaller
    # matrices torch's solver is taken untimed: the choice would cost more than it gains.
    rows: int
    solvers: dict[str, Solver]


def _values_by_cupy(matrix: torch.Tensor) -> torch.Tensor:
    return _by_cupy(matrix, lambda cupy, array: [cupy.linalg.eigvalsh(array)])[0]


def _pairs_by_cupy(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    values, vectors = _by_cupy(matrix, lambda cupy, array: cupy.linalg.eigh(array))
    return values, vectors


def _by_cupy(matrix: torch.Tensor, solve: Callable[[Any, Any], Any]) -> list[torch.Tensor]:
    """The arrays that ``solve`` makes of CuPy and of ``matrix``, as tensors.

    CuPy works on its default stream. Both conversions by DLPack make the stream that reads wait for the stream that
    wrote. So torch's work before and after does not overlap CuPy's, and CuPy may take its memory from torch's pool.
    """
    cupy = require_cupy(purpose="an eigendecomposition on CUDA")
    torch_pool = cupy.cuda.PythonFunctionAllocator(
        torch.cuda.caching_allocator_alloc, lambda pointer, device: torch.cuda.caching_allocator_delete(pointer)
    )
    with (
        torch.cuda.device(matrix.device),
        cupy.cuda.Device(matrix.device.index),
        cupy.cuda.using_allocator(torch_pool.malloc),
    ):
        return [torch.from_dlpack(array).clone() for array in solve(cupy, cupy.from_dlpack(matrix))]


# torch chooses between cuSOLVER's drivers by rules that changed with its versions, and the time by up to a factor of a
# hundred. CuPy always takes divide and conquer.
TASKS = {
    "eigenvalues": Task(1024, {"torch": torch.linalg.eigvalsh, "cupy": _values_by_cupy}),
    "eigenpairs": Task(512, {"torch": torch.linalg.eigh, "cupy": _pairs_by_cupy}),
}


def symmetric_eigenvalues(matrix: torch.Tensor) -> torch.Tensor:  # (n, n) -> (n,) ascending
    """Eigenvalues of the symmetric ``matrix``, of which one triangle is read.

    On CUDA, from 1024 rows on, the solver is that of `fastest_solver`. O(n^3) time, O(n^2) memory.
    """
    return _solver("eigenvalues", matrix)(matrix)


def symmetric_eigenpairs(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # (n, n) -> (n,), (n, n)
    """Eigenvalues of the symmetric ``matrix``, ascending, and its orthonormal eigenvectors as columns.

    Only one triangle is read. On CUDA, from 512 rows on, the solver is that of `fastest_solver`. The signs of the
    eigenvectors depend on the solver. O(n^3) time, O(n^2) memory.
    """
    return _solver("eigenpairs", matrix)(matrix)


def _solver(task: str, matrix: torch.Tensor) -> Solver:
    solvers = TASKS[task].solvers
    if matrix.device.type != "cuda" or matrix.shape[0] < TASKS[task].rows or not available("cupy"):
        return solvers["torch"]
    return solvers[fastest_solver(task, matrix.device, matrix.dtype)]


@functools.cache
def fastest_solver(task: str, device: torch.device, dtype: torch.dtype) -> str:
    """The name of the solver of ``task`` for ``device``: torch's, unless another is twice as fast.

    The solvers differ in the last bits, and the factor of two makes two runs on a machine choose alike. A solver that
    fails is left out, with a warning.
    """
    rows = TASKS[task].rows
    generator = torch.Generator("cpu").manual_seed(0)
    points = torch.randn(rows, rows, generator=generator, dtype=torch.float64, device="cpu")
    sample = (points @ points.T / rows).to(device, dtype)
    seconds = {name: _seconds(task, name, sample) for name in TASKS[task].solvers}
    quickest = min(seconds, key=seconds.__getitem__)
    return quickest if seconds[quickest] < seconds["torch"] / 2 else "torch"


def _seconds(task: str, name: str, sample: torch.Tensor) -> float:
    """The seconds of the second of two runs, because the first loads libraries; infinite if the solver fails."""
    solve = TASKS[task].solvers[name]
    try:
        solve(sample)
        _finish(sample.device)
        started = time.perf_counter()
        solve(sample)
        _finish(sample.device)
    # A library is missing or too new for the driver, memory is short, or the user turns warnings into errors: in each
    # case torch's solver is taken.
    except (InputError, ImportError, OSError, MemoryError, BufferError, RuntimeError, Warning) as error:
        message = f"{task} by {name} do not work on {sample.device}: {error}"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
        return math.inf
    return time.perf_counter() - started


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
