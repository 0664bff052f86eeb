"""Metric MDS by majorisation, with Anderson acceleration that can never do worse than plain SMACOF."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..ops.guttman_transform import guttman_transform

DEPTH = 5  # differences kept for the acceleration
# Plain sweeps before the first mix: at the start, where a sweep takes off half of the stress, a mix may leap into the
# basin of another minimum.
WARM_UP = 20
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
    """Minimise sum (D - d)^2 from ``init`` by Guttman transforms with Anderson mixing.

    A mixed point is kept only if its stress is not above that of the plain step's start; otherwise the plain step,
    which can only lower the stress, is taken from the best point. Ends when a plain step lowers the stress by less
    than ``eps`` of itself, or after ``max_iter`` sweeps; what is returned is always the outcome of a plain step.
    With many landmarks the way there is gone in float32 and the end in float64: the rounding of one pair in 1e7 moves
    the fixed point of a sweep by far less than ``eps`` allows, and the float64 sweeps decide when it is reached.
    Deterministic. Source: Walker & Ni, "Anderson acceleration for fixed-point iterations", 2011.
    """
    points = init.double() - init.double().mean(0)
    distances = distances.double()
    largest = float(distances.max())
    if distances.shape[0] < ROUGH_FROM or max_iter < 4 or largest == 0:
        return _descend(distances, points, max_iter, eps, sweep, warm_up=WARM_UP)
    # Scaled, so that no size of the distances leaves the range of float32.
    rough = _descend((distances / largest).float(), points / largest, max_iter - 2, eps, sweep, warm_up=WARM_UP)
    end = _descend(distances, rough.coordinates * largest, max_iter - rough.n_iter, eps, sweep, warm_up=0)
    return Descent(end.coordinates, rough.n_iter + end.n_iter)


def _descend(
    distances: torch.Tensor, points: torch.Tensor, max_iter: int, eps: float, sweep: Sweep, *, warm_up: int
) -> Descent:
    moved, best = sweep(distances, points)
    history = History()
    n_iter = 1
    while n_iter < max_iter and float(best) > 0:
        trial = history.mix(points, moved) if n_iter > warm_up else moved
        trial_moved, trial_raw = sweep(distances, trial)
        n_iter += 1
        if not history.mixed:  # the plain step: it decides about the end
            done = float(best - trial_raw) < eps * float(best)
            points, moved, best = trial, trial_moved, torch.minimum(best, trial_raw)
            if done:
                break
        elif float(trial_raw) < float(best):
            done = float(best - trial_raw) < eps * float(best)
            points, moved, best = trial, trial_moved, trial_raw
            if done:  # too small a gain to mix again: let a plain step confirm
                history.clear()
        else:
            history.clear()
    return Descent(moved, n_iter)


class History:
    """Past steps of a fixed-point iteration x -> g(x), and the mix of them that makes the next one."""

    def __init__(self) -> None:
        self.steps: deque[tuple[torch.Tensor, torch.Tensor]] = deque(maxlen=DEPTH + 1)
        self.mixed = False

    def clear(self) -> None:
        """Forget: the next step is a plain one."""
        self.steps.clear()

    def mix(self, points: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
        """The next point: ``moved`` if nothing is known yet, else the least-squares mix of past images."""
        self.steps.append((moved.flatten(), (moved - points).flatten()))
        self.mixed = len(self.steps) > 1
        if not self.mixed:
            return moved
        images = torch.stack([step[0] for step in self.steps])
        residuals = torch.stack([step[1] for step in self.steps])
        changes = residuals.diff(dim=0)
        gram = changes @ changes.T
        gram.diagonal().add_(1e-12 * gram.diagonal().max() + torch.finfo(gram.dtype).tiny)
        weights = torch.linalg.solve(gram, changes @ residuals[-1])
        return (images[-1] - weights @ images.diff(dim=0)).view_as(moved)
