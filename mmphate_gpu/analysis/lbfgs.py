"""Limited-memory BFGS for many small smooth problems at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch

# Steps that the curvature is computed from.
_MEMORY = 8
# A step is accepted if the value falls by this share of what the slope promises, or by no more than rounding allows.
_SUFFICIENT, _ROUNDING = 1e-4, 1e-13
# Solved problems are removed from the stack when their share is this large, because a removal copies the others.
_SOLVED_SHARE = 0.25


class Objective(Protocol):
    """B smooth functions of n variables each."""

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(values (B,), gradients (B, n)) at the points (B, n)."""

    def select(self, problems: torch.Tensor) -> Objective:
        """The functions with these numbers."""


def minimize(
    objective: Objective, start: torch.Tensor, *, tol: float, max_iter: int = 1000
) -> tuple[torch.Tensor, int]:
    """Minimize every function of ``objective`` from its row of ``start``.

    Parameters
    ----------
    start : (B, n) float64
    tol : the largest absolute entry that the gradient of a solved problem may have
    max_iter : evaluations of every function

    Returns
    -------
    (x, n_unsolved) : the points (B, n), and the number of problems whose gradient is still larger than ``tol``

    Notes
    -----
    The variables should be scaled so that the curvature is near 1, because the first step is the negative gradient.
    A step that does not lower its function is halved. O(B n) memory and time for each step beside the evaluations.
    Deterministic. Source: Nocedal and Wright, Numerical Optimization, section 7.2.
    """
    solution, rows = start.clone(), torch.arange(len(start), device=start.device)
    steps = _Steps.first(objective, start)
    for _ in range(max_iter):
        unsolved = steps.gradient.abs().amax(1) > tol
        if not bool(unsolved.any()):
            break
        if int(unsolved.sum()) <= (1 - _SOLVED_SHARE) * len(rows):
            solution[rows] = steps.x
            rows, steps = rows[unsolved], steps.select(unsolved.nonzero()[:, 0])
        steps.advance()
    solution[rows] = steps.x
    return solution, int((steps.gradient.abs().amax(1) > tol).sum())


@dataclass
class _Steps:
    """Where each problem stands, and the direction and length of its next step."""

    objective: Objective
    x: torch.Tensor  # (B, n)
    value: torch.Tensor  # (B,)
    gradient: torch.Tensor  # (B, n)
    direction: torch.Tensor  # (B, n)
    length: torch.Tensor  # (B,)
    # For each earlier step: the step (B, n), the change of the gradient (B, n), and 1 / their product (B,).
    history: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = field(default_factory=list)

    @classmethod
    def first(cls, objective: Objective, start: torch.Tensor) -> _Steps:
        value, gradient = objective(start)
        return cls(objective, start, value, gradient, -gradient, torch.ones_like(value))

    def select(self, rows: torch.Tensor) -> _Steps:
        """The steps of these problems."""
        parts = (self.x, self.value, self.gradient, self.direction, self.length)
        x, value, gradient, direction, length = (part[rows] for part in parts)
        history = [(step[rows], change[rows], inverse[rows]) for step, change, inverse in self.history]
        return _Steps(self.objective.select(rows), x, value, gradient, direction, length, history)

    def advance(self) -> None:
        """Take the step of every problem whose value falls, and halve the step of the others."""
        x = torch.addcmul(self.x, self.direction, self.length[:, None])
        value, gradient = self.objective(x)
        slope = torch.linalg.vecdot(self.gradient, self.direction) * self.length
        fell = value <= self.value + _SUFFICIENT * slope + _ROUNDING * self.value.abs()
        if not bool(fell.all()):
            x, gradient = (torch.where(fell[:, None], *pair) for pair in ((x, self.x), (gradient, self.gradient)))
            value = torch.where(fell, value, self.value)
        self._remember(x - self.x, gradient - self.gradient)
        self.x, self.value, self.gradient = x, value, gradient
        self.direction = torch.where(fell[:, None], self._next_direction(), self.direction)
        self.length = torch.where(fell, 1.0, self.length / 2)

    def _remember(self, step: torch.Tensor, change: torch.Tensor) -> None:
        product = torch.linalg.vecdot(step, change)
        # A refused step, or one along which the function is flat, says nothing about the curvature.
        inverse = torch.where(product > 0, 1 / product, 0.0)
        self.history = [*self.history, (step, change, inverse)][-_MEMORY:]

    def _next_direction(self) -> torch.Tensor:  # (B, n)
        """The negative gradient times the inverse of the curvature, by the two loops over the history."""
        vector, shares = -self.gradient, []
        for step, change, inverse in reversed(self.history):
            share = torch.linalg.vecdot(step, vector) * inverse
            shares.append(share)
            vector.addcmul_(change, share[:, None], value=-1)
        vector *= self._scale()[:, None]
        for (step, change, inverse), share in zip(self.history, reversed(shares), strict=True):
            rest = share - torch.linalg.vecdot(change, vector) * inverse
            vector.addcmul_(step, rest[:, None])
        return vector

    def _scale(self) -> torch.Tensor:  # (B,)
        """The inverse curvature along the last step; 1 if the last step says nothing."""
        _, change, inverse = self.history[-1]
        squares = torch.linalg.vecdot(change, change) * inverse
        return torch.where(squares > 0, 1 / squares, 1.0)
