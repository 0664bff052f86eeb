"""Eigenvalues and eigenpairs by the fastest solver."""

from __future__ import annotations

import math

import pytest
import torch

from mmphate_gpu.linalg import eigenvalues as module
from mmphate_gpu.linalg.eigenvalues import Task, fastest_solver, symmetric_eigenpairs, symmetric_eigenvalues
from mmphate_gpu.linalg.random import seeded_generator

from ..twins.fake_cupy import FakeCupy, without_cuda

CPU = torch.device("cpu")
TASK = "eigenvalues"


@pytest.fixture
def clock(monkeypatch):
    """Solvers with given times, by a clock that only they advance."""
    now, calls = [0.0], []

    def solver(name: str, *seconds: float):
        left = list(seconds)

        def solve(matrix: torch.Tensor) -> torch.Tensor:
            calls.append(name)
            now[0] += left.pop(0)
            return torch.linalg.eigvalsh(matrix)

        return solve

    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    fastest_solver.cache_clear()
    yield lambda **solvers: monkeypatch.setitem(
        module.TASKS, TASK, Task(8, {name: solver(name, *seconds) for name, seconds in solvers.items()})
    )
    fastest_solver.cache_clear()


def second_difference(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix with the eigenvalues 2 - 2 cos(k pi / (n + 1)), and these eigenvalues."""
    ones = torch.ones(n - 1, dtype=torch.float64)
    angles = torch.arange(1, n + 1, dtype=torch.float64) * math.pi / (n + 1)
    return 2 * torch.eye(n, dtype=torch.float64) - torch.diag(ones, 1) - torch.diag(ones, -1), 2 - 2 * angles.cos()


def assert_solves(matrix: torch.Tensor, expected: torch.Tensor, values: torch.Tensor, vectors: torch.Tensor) -> None:
    """The relative error on the CPU was 3e-15 for 300 and 1100 rows (measured)."""
    torch.testing.assert_close(values.cpu(), expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(len(values)).to(values), rtol=0, atol=1e-13)
    torch.testing.assert_close(matrix @ vectors, vectors * values, rtol=0, atol=1e-13)


def test_ascending_and_right(device):
    n = 1100 if device.type == "cuda" else 300  # CUDA: where the solvers are measured
    matrix, expected = second_difference(n)
    matrix = matrix.to(device)
    torch.testing.assert_close(symmetric_eigenvalues(matrix).cpu(), expected, rtol=0, atol=1e-13)
    assert_solves(matrix, expected, *symmetric_eigenpairs(matrix))


def test_one_triangle_is_read(device):
    matrix, expected = second_difference(40)
    lower = matrix.tril().to(device)
    torch.testing.assert_close(symmetric_eigenvalues(lower).cpu(), expected, rtol=0, atol=1e-13)
    assert_solves(matrix.to(device), expected, *symmetric_eigenpairs(lower))


def test_cupy_solves_without_a_stream_of_its_own(monkeypatch):
    """CuPy 14 deprecates the class that took torch's stream: the conversions by DLPack order the streams."""
    cupy = FakeCupy()
    without_cuda(monkeypatch)
    monkeypatch.setattr(module, "require_cupy", lambda **_: cupy)
    matrix, expected = second_difference(40)
    for lower in (matrix, matrix.tril()):
        torch.testing.assert_close(module._values_by_cupy(lower), expected, rtol=0, atol=1e-13)
        assert_solves(matrix, expected, *module._pairs_by_cupy(lower))
    assert not cupy.devices and not cupy.allocators


@pytest.mark.cuda
@pytest.mark.parametrize("on_side_stream", [False, True])
def test_cupy_and_torch_agree(on_side_stream):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    pytest.importorskip("cupy")
    stream = torch.cuda.Stream() if on_side_stream else torch.cuda.current_stream()
    with torch.cuda.stream(stream):
        for n in (512, 1100):
            points = torch.randn(n, n, dtype=torch.float64, generator=seeded_generator(n)).cuda()
            matrix = points @ points.T  # not finished when CuPy is asked
            values, vectors = module._pairs_by_cupy(matrix)
            scale = float(values[-1])
            for other in (module._values_by_cupy(matrix), torch.linalg.eigvalsh(matrix)):
                # Backward stable solvers: a small multiple of n units in the last place of the largest eigenvalue.
                torch.testing.assert_close(other, values, rtol=0, atol=1e-12 * scale)
            torch.testing.assert_close(matrix @ vectors, vectors * values, rtol=0, atol=1e-12 * scale)


def test_the_second_run_counts_and_the_choice_is_kept(clock):
    clock(torch=(1.0, 3.0), cupy=(9.0, 1.0))  # the first run of cupy loads its libraries
    assert fastest_solver(TASK, CPU, torch.float64) == "cupy"
    assert fastest_solver(TASK, CPU, torch.float64) == "cupy"  # it is not timed again, since no clock has a time left


def test_torch_is_chosen_unless_another_is_twice_as_fast(clock):
    clock(torch=(1.0, 3.0), cupy=(9.0, 2.0))
    assert fastest_solver(TASK, CPU, torch.float64) == "torch"


@pytest.mark.parametrize("error", [RuntimeError, ImportError, OSError, MemoryError, BufferError, DeprecationWarning])
def test_a_solver_that_fails_is_reported_and_left_out(error, clock, monkeypatch):
    clock(torch=(1.0, 3.0), cupy=(0.1, 0.1))

    def fail(matrix):
        raise error("no libcusolver")

    monkeypatch.setitem(module.TASKS[TASK].solvers, "cupy", fail)
    with pytest.warns(RuntimeWarning, match="cupy do not work on cpu: no libcusolver"):
        assert fastest_solver(TASK, CPU, torch.float64) == "torch"
