"""Metric MDS by majorization, with quasi-Newton steps that can never do worse than plain SMACOF."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..ops import descent_step as descent
from ..ops.guttman_transform import guttman_transform
from ..ops.launch.repeat import repeat_until

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
    return guttman_transform(distances, points, COINCIDENT[distances.dtype])


def smacof(
    distances: torch.Tensor,  # (L, L)
    init: torch.Tensor,  # (L, C)
    *,
    max_iter: int = 3000,
    eps: float = 1e-6,
    sweep: Sweep = one_sweep,
) -> Descent:
    """Minimize sum (D - d)^2 from ``init`` by Guttman transforms, sped up by L-BFGS.

    The plain step x -> g(x) is a step along the negative gradient; from the last ones L-BFGS guesses the curvature
    and takes longer steps. One that does not lower the stress is shortened, then thrown away for the plain step, which
    can only lower it. Ends when a plain step lowers the stress by less than ``eps`` of itself, or after ``max_iter``
    sweeps; what is returned is always the outcome of a plain step.
    With many landmarks the way there is gone in float32 and the end in float64: the rounding of one pair in 1e7 moves
    the fixed point of a sweep by far less than ``eps`` allows, and the float64 sweeps decide when it is reached.
    On CUDA ``sweep`` may be captured in a graph: it reads nothing back. Deterministic.
    Source: de Leeuw 1977; Nocedal, "Updating quasi-Newton matrices with limited storage", 1980.
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
    way = Way(distances, points, max_iter, eps, sweep)
    with torch.inference_mode():  # a microsecond less for each of some ten calls of torch in a sweep
        repeat_until(way.done, way.advance)
    return Descent(way.moved, way.n_iter)


class Way:
    """A descent under way: all that decides lies on the device, in tensors that `descent_step` changes in place."""

    def __init__(
        self, distances: torch.Tensor, points: torch.Tensor, max_iter: int, eps: float, sweep: Sweep = one_sweep
    ) -> None:
        self.distances, self.max_iter, self.eps, self.sweep = distances, max_iter, eps, sweep
        moved, raw = sweep(distances, points)
        # A plain step comes next. In order of memory, whatever the start was: kernels go along what is flat.
        self.points, self.moved, self.trial = (
            place.clone(memory_format=torch.contiguous_format) for place in (points, moved, moved)
        )
        step, kept = torch.zeros_like(self.points), points.new_zeros(descent.ROWS, points.numel())
        self.state = points.new_zeros(descent.N_STATE)
        self.state[descent.BEST] = raw
        self.state[descent.N_ITER] = self.state[descent.PLAIN] = 1
        self.places = (self.points, self.moved, self.trial, step, kept, self.state)
        self.done = self.state[descent.DONE]
        self.done.copy_((raw > 0).logical_not() | (max_iter <= 1))

    def advance(self) -> None:
        """One sweep and what follows from it. Reads nothing back; changes nothing once the descent has ended."""
        descent.descent_step(*self.sweep(self.distances, self.trial), *self.places, self.eps, self.max_iter)

    @property
    def n_iter(self) -> int:
        return int(self.state[descent.N_ITER])
