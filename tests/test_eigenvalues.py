"""Eigenvalues by the solver that was fastest."""

from __future__ import annotations

import math

import pytest
import torch

from mmphate_gpu.ops import eigenvalues as module
from mmphate_gpu.ops.eigenvalues import fastest_solver, symmetric_eigenvalues

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    """Solvers that take as long as they say, by a clock of their own."""
    now, calls = [0.0], []

    def solver(name: str, *seconds: float):
        left = list(seconds)

        def solve(matrix: torch.Tensor) -> torch.Tensor:
            calls.append(name)
            now[0] += left.pop(0)
            return torch.linalg.eigvalsh(matrix)

        return solve

    monkeypatch.setattr(module, "SAMPLE", 8)
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    fastest_solver.cache_clear()
    yield lambda **solvers: monkeypatch.setattr(
        module, "SOLVERS", {name: solver(name, *seconds) for name, seconds in solvers.items()}
    )
    fastest_solver.cache_clear()


def test_ascending_and_right(device):
    """Of a matrix with known eigenvalues: 2 - 2 cos(k pi / (n + 1)) of the second difference."""
    n = 1100 if device.type == "cuda" else 300  # CUDA: where the solvers are measured
    matrix = (
        2 * torch.eye(n, dtype=torch.float64) - torch.diag(torch.ones(n - 1), 1) - torch.diag(torch.ones(n - 1), -1)
    )
    angles = torch.arange(1, n + 1, dtype=torch.float64) * math.pi / (n + 1)
    # Measured on the CPU: 3e-15.
    torch.testing.assert_close(symmetric_eigenvalues(matrix.to(device)).cpu(), 2 - 2 * angles.cos(), rtol=0, atol=1e-13)


def test_the_second_run_counts_and_the_choice_is_kept(clock):
    clock(torch=(1.0, 3.0), cupy=(9.0, 1.0))  # the first run of cupy loads its libraries
    assert fastest_solver(CPU, torch.float64) == "cupy"
    assert fastest_solver(CPU, torch.float64) == "cupy"  # not measured again: the clock of each has run out


def test_torch_serves_where_no_other_is_twice_as_fast(clock):
    clock(torch=(1.0, 3.0), cupy=(9.0, 2.0))
    assert fastest_solver(CPU, torch.float64) == "torch"


@pytest.mark.parametrize("kind", [RuntimeError, ImportError, OSError, MemoryError])
def test_a_solver_that_fails_is_told_of_and_left_out(kind, clock, monkeypatch):
    clock(torch=(1.0, 3.0), cupy=(0.1, 0.1))

    def fail(matrix):
        raise kind("no libcusolver")

    monkeypatch.setitem(module.SOLVERS, "cupy", fail)
    with pytest.warns(RuntimeWarning, match="cupy do not serve on cpu: no libcusolver"):
        assert fastest_solver(CPU, torch.float64) == "torch"
