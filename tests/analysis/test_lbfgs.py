"""Many small problems, minimized together, have their minima."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from mmphate_gpu.analysis.lbfgs import minimize


@dataclass
class Quadratics:
    """(x - center)^T A (x - center) / 2 with a diagonal A, and the number of problems of each evaluation."""

    curvature: torch.Tensor  # (B, n)
    center: torch.Tensor  # (B, n)
    sizes: list[int] = field(default_factory=list)

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.sizes.append(len(x))
        gradient = self.curvature * (x - self.center)
        return (gradient * (x - self.center)).sum(1) / 2, gradient

    def select(self, problems: torch.Tensor) -> Quadratics:
        return Quadratics(self.curvature[problems], self.center[problems], self.sizes)


class Rosenbrock:
    """The curved valley (1 - a)^2 + 100 (b - a^2)^2, whose minimum is at (1, 1)."""

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = x.T
        value = (1 - a) ** 2 + 100 * (b - a**2) ** 2
        return value, torch.stack([-2 * (1 - a) - 400 * a * (b - a**2), 200 * (b - a**2)], 1)

    def select(self, problems: torch.Tensor) -> Rosenbrock:
        return self


def quadratics(n_problems: int = 40, n: int = 12) -> Quadratics:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(2, n_problems, n, generator=generator, dtype=torch.float64)
    return Quadratics(10 ** (4 * values[0] - 2), 10 * values[1])  # curvatures from 0.01 to 100


def test_quadratics_of_any_curvature():
    problems = quadratics()
    x, n_unsolved = minimize(problems, torch.zeros_like(problems.center), tol=1e-8)
    assert n_unsolved == 0
    # A gradient of 1e-8 is an error of at most 1e-8 / 0.01.
    assert float((x - problems.center).abs().max()) <= 1e-6


def test_solved_problems_are_left_out():
    problems = quadratics()
    problems.curvature[:30] = 1  # the first step solves these
    x, _ = minimize(problems, torch.zeros_like(problems.center), tol=1e-8)
    assert problems.sizes[0] == 40 and problems.sizes[2] == 10
    assert float((x - problems.center).abs().max()) <= 1e-6


def test_steps_that_lead_upwards_are_halved():
    starts = torch.tensor([[-1.2, 1.0], [2.0, -3.0], [0.0, 0.0]], dtype=torch.float64)
    x, n_unsolved = minimize(Rosenbrock(), starts, tol=1e-8)
    assert n_unsolved == 0
    assert float((x - 1).abs().max()) < 1e-6  # the least curvature at the minimum is 0.4


def test_unsolved_problems_are_counted():
    problems = quadratics()
    problems.curvature[0] = 1
    _, n_unsolved = minimize(problems, torch.zeros_like(problems.center), tol=1e-8, max_iter=2)
    assert n_unsolved == 39


def test_a_start_at_the_minimum_is_returned():
    problems = quadratics()
    x, n_unsolved = minimize(problems, problems.center, tol=1e-8)
    assert torch.equal(x, problems.center) and n_unsolved == 0
