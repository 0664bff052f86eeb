"""Metric MDS by majorisation, with Anderson acceleration that can never do worse than plain SMACOF."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..ops.chunks import row_chunks
from ..ops.distances import distances_by_difference

DEPTH = 5  # differences kept for the acceleration
# Plain sweeps before the first mix: at the start, where a sweep takes off half of the stress, a mix may leap into the
# basin of another minimum.
WARM_UP = 20


@dataclass(frozen=True)
class Descent:
    """Where a run of SMACOF ended."""

    coordinates: torch.Tensor  # (L, C) float64
    n_iter: int  # sweeps done


def guttman_transform(distances: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One SMACOF sweep: the Guttman transform of ``points`` and the sum of squared residuals *before* it.

    ``x_i <- (1/L) sum_j D_ij / d_ij (x_i - x_j)`` with 0 where d_ij = 0; the stress comes free with the distances.
    (L, L), (L, C) float64 -> (L, C), (). O(L^2 C) time, chunks of memory. Source: de Leeuw 1977; Borg & Groenen 2005.
    """
    n = points.shape[0]
    # Points this close count as one: D / d times the rounding of a coordinate would outweigh the step itself.
    together = COINCIDENT * points.abs().max()
    with_one = torch.nn.functional.pad(points, (0, 1), value=1)  # one product gives the row sums as well
    sums = torch.zeros_like(with_one)
    raw = points.new_zeros(())
    for rows in row_chunks(n, n, SWEEP_ELEMENTS):
        # The pairs on and right of the diagonal block serve both ends.
        right, own = slice(rows.start, n), rows.stop - rows.start
        wanted, between = distances[rows, right], distances_by_difference(points[rows], points[right])
        raw += 2 * torch.dist(wanted, between) ** 2 - torch.dist(wanted[:, :own], between[:, :own]) ** 2
        ratio = (wanted / between).masked_fill_(between <= together, 0)
        sums[rows] += ratio @ with_one[right]
        sums[rows.stop :] += ratio[:, own:].T @ with_one[rows]
    return (sums[:, -1:] * points - sums[:, :-1]) / n, raw


COINCIDENT = 1e-8
# Elements of one block of a sweep, so that its temporaries stay within a CPU's second-level cache.
SWEEP_ELEMENTS = 1 << 18


def smacof(
    distances: torch.Tensor,  # (L, L)
    init: torch.Tensor,  # (L, C)
    *,
    max_iter: int = 3000,
    eps: float = 1e-6,
    sweep: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]] = guttman_transform,
) -> Descent:
    """Minimise sum (D - d)^2 from ``init`` by Guttman transforms with Anderson mixing.

    A mixed point is kept only if its stress is not above that of the plain step's start; otherwise the plain step,
    which can only lower the stress, is taken from the best point. Ends when a plain step lowers the stress by less
    than ``eps`` of itself, or after ``max_iter`` sweeps; what is returned is always the outcome of a plain step.
    Deterministic. Source: Walker & Ni, "Anderson acceleration for fixed-point iterations", 2011.
    """
    points = init.double() - init.double().mean(0)
    distances = distances.double()
    moved, best = sweep(distances, points)
    history = History()
    n_iter = 1
    while n_iter < max_iter and float(best) > 0:
        trial = history.mix(points, moved) if n_iter > WARM_UP else moved
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
