"""Metric MDS by majorisation, with quasi-Newton steps that can never do worse than plain SMACOF."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..ops.guttman_transform import guttman_transform

DEPTH = 5  # past steps from which the curvature is guessed
# Gain of a plain step, as a share of the stress, from which on long steps are taken: at the start, where a sweep takes
# off half of the stress, they may leap into the basin of a higher minimum.
NEAR = 1e-3
SHORTENED = 2  # times a step that does not lower the stress is shortened before a plain one takes its place
# Curvature along a step, as a share of what majorisation grants, below which it is taken for rounding.
LEAST_CURVATURE = 1e-10
# Points this close, as a share of the largest coordinate, count as one: D / d times the rounding of a coordinate would
# outweigh the step itself.
COINCIDENT = {torch.float64: 1e-8, torch.float32: 1e-6}
# From this many landmarks on most sweeps are done in float32: half of the bytes and twice the lanes.
ROUGH_FROM = 256

Sweep = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Descent:
    """Where a run of SMACOF ended."""

    coordinates: torch.Tensor  # (L, C) float64
    n_iter: int  # sweeps done


def one_sweep(distances: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The Guttman transform of ``points`` and their raw stress; pairs in the dtype of ``distances``."""
    return guttman_transform(distances, points, COINCIDENT[distances.dtype] * float(points.abs().max()))


def smacof(
    distances: torch.Tensor,  # (L, L)
    init: torch.Tensor,  # (L, C)
    *,
    max_iter: int = 3000,
    eps: float = 1e-6,
    sweep: Sweep = one_sweep,
) -> Descent:
    """Minimise sum (D - d)^2 from ``init`` by Guttman transforms, sped up by L-BFGS.

    The plain step x -> g(x) is a step along the negative gradient; from the last ones L-BFGS guesses the curvature
    and takes longer steps. One that does not lower the stress is shortened, then thrown away for the plain step, which
    can only lower it. Ends when a plain step lowers the stress by less than ``eps`` of itself, or after ``max_iter``
    sweeps; what is returned is always the outcome of a plain step.
    With many landmarks the way there is gone in float32 and the end in float64: the rounding of one pair in 1e7 moves
    the fixed point of a sweep by far less than ``eps`` allows, and the float64 sweeps decide when it is reached.
    Deterministic. Source: de Leeuw 1977; Nocedal, "Updating quasi-Newton matrices with limited storage", 1980.
    """
    points = init.double() - init.double().mean(0)
    distances = distances.double()
    largest = float(distances.max())
    if distances.shape[0] < ROUGH_FROM or max_iter < 4 or largest == 0:
        return _descend(distances, points, max_iter, eps, sweep)
    # Scaled, so that no size of the distances leaves the range of float32.
    rough = _descend((distances / largest).float(), points / largest, max_iter - 2, eps, sweep)
    end = _descend(distances, rough.coordinates * largest, max_iter - rough.n_iter, eps, sweep)
    return Descent(end.coordinates, rough.n_iter + end.n_iter)


def _descend(distances: torch.Tensor, points: torch.Tensor, max_iter: int, eps: float, sweep: Sweep) -> Descent:
    moved, raw = sweep(distances, points)
    best, n_iter = float(raw), 1
    memory, step, refused, near = Memory(), None, 0, False
    while n_iter < max_iter and best > 0:
        trial = moved if step is None else points + step
        trial_moved, raw = sweep(distances, trial)
        n_iter += 1
        gain = best - float(raw)
        if step is not None and not gain > 0:
            refused += 1
            step = _shortened(step, moved - points, gain) if refused <= SHORTENED else None
            continue
        plain, small = step is None, gain < eps * best
        memory.learn(trial - points, (moved - points) - (trial_moved - trial), trial_moved - trial)
        points, moved, best, refused = trial, trial_moved, best - max(gain, 0.0), 0
        if small:
            if plain:  # it decides about the end
                break
            memory.forget()  # too small a gain to go on so: let a plain step confirm
        near = near or (gain < NEAR * best and n_iter > DEPTH)
        step = memory.step(moved - points) if near else None
    return Descent(moved, n_iter)


def _shortened(step: torch.Tensor, residual: torch.Tensor, gain: float) -> torch.Tensor:
    """``step`` cut to the minimum of the parabola through the stress at both ends and its slope at the start."""
    slope = -4 * len(residual) * float((residual * step).sum())  # of the sum over ordered pairs
    bend = -gain - slope
    share = -slope / (2 * bend) if bend > 0 else 0.0
    return step * min(max(share, 0.1), 0.5)


class Memory:
    """Past steps of a fixed-point iteration x -> g(x) and the changes of its residual r = g(x) - x along them.

    L-BFGS by inner products only: one product with what is kept, and one exchange with the device, per sweep.
    """

    def __init__(self) -> None:
        self.order: list[int] = []  # slots in use, the oldest first
        self.kept: torch.Tensor | None = None  # (2 DEPTH, n): steps, then the falls of the residual along them
        self.gram = [[0.0] * (2 * DEPTH) for _ in range(2 * DEPTH)]
        self.along = [0.0] * (2 * DEPTH)  # kept @ residual

    def forget(self) -> None:
        """The next step is a plain one."""
        self.order.clear()

    def learn(self, step: torch.Tensor, fall: torch.Tensor, residual: torch.Tensor) -> None:
        """A ``step`` was taken, along which the residual fell by ``fall`` to ``residual``."""
        if self.kept is None:
            self.kept = step.new_zeros(2 * DEPTH, step.numel())
        slot = self.order.pop(0) if len(self.order) == DEPTH else min(set(range(DEPTH)) - set(self.order))
        other = DEPTH + slot
        self.kept[slot], self.kept[other] = step.flatten(), fall.flatten()
        products = self.kept @ torch.stack([step, fall, residual]).flatten(1).T
        for i, (with_step, with_fall, with_residual) in enumerate(products.tolist()):
            self.gram[i][slot] = self.gram[slot][i] = with_step
            self.gram[i][other] = self.gram[other][i] = with_fall
            self.along[i] = with_residual
        if self.gram[slot][other] > LEAST_CURVATURE * self.gram[slot][slot]:
            self.order.append(slot)

    def step(self, residual: torch.Tensor) -> torch.Tensor | None:
        """The quasi-Newton step where the residual is ``residual``, the one last learned; None if nothing is kept."""
        if not self.order:
            return None
        # The vector of the two loops is scale * residual + weights @ kept throughout.
        weights, shares = [0.0] * (2 * DEPTH), {}
        for slot in reversed(self.order):
            shares[slot] = self._product(slot, weights, 1.0) / self.gram[slot][DEPTH + slot]
            weights[DEPTH + slot] -= shares[slot]
        newest = self.order[-1]
        scale = max(1.0, self.gram[newest][DEPTH + newest] / self.gram[DEPTH + newest][DEPTH + newest])
        weights = [scale * weight for weight in weights]
        for slot in self.order:
            weights[slot] += shares[slot] - self._product(DEPTH + slot, weights, scale) / self.gram[slot][DEPTH + slot]
        return scale * residual + (residual.new_tensor(weights) @ self.kept).view_as(residual)

    def _product(self, i: int, weights: list[float], scale: float) -> float:
        return scale * self.along[i] + sum(weight * found for weight, found in zip(weights, self.gram[i], strict=True))
