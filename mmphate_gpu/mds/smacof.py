"""Metric MDS by SMACOF sweeps, sped up by quasi-Newton steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..ops import descent_step as descent
from ..ops.guttman_transform import guttman_transform
from ..ops.launch.repeat import repeat_until
from .parting import TOGETHER, parted

# Points this close, as a share of the largest coordinate, count as coincident: for closer points D / d times the
# rounding of a coordinate is larger than the step.
COINCIDENT = {torch.float64: 1e-8, torch.float32: 1e-6}
# Times that coincident points are moved apart at the end of a descent.
PARTINGS = 5
# Fewer landmarks take plain sweeps first, until one lowers the stress by less than this share: among few points a long
# step may leap into the basin of a higher minimum.
PLAIN_BELOW, PLAIN_EPS = 256, 1e-5
# With at least this many landmarks most sweeps are in float32, which has half of the bytes and twice the lanes.
ROUGH_FROM = 256

Sweep = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Descent:
    """The end of a run of SMACOF."""

    coordinates: torch.Tensor  # (L, C) float64
    n_iter: int  # sweeps done


def one_sweep(distances: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The Guttman transform of ``points`` and their raw stress, computed in the dtype of ``distances``."""
    return guttman_transform(distances, points, COINCIDENT[distances.dtype])


def plain_sweep(distances: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`one_sweep` in which every two points pull each other that differ in any bit."""
    return guttman_transform(distances, points, 0.0)


def smacof(
    distances: torch.Tensor,  # (L, L)
    init: torch.Tensor,  # (L, C)
    *,
    max_iter: int = 3000,
    eps: float = 1e-6,
    sweep: Sweep = one_sweep,
) -> Descent:
    """Minimize sum (D - d)^2 from ``init`` by Guttman transforms, sped up by L-BFGS.

    A plain step x -> g(x) is a step along the negative gradient. L-BFGS estimates the curvature from the last steps
    and takes longer steps. A long step that does not lower the stress is shortened, and if that does not help it is
    replaced by the plain step, which never raises the stress. The run ends when a plain step lowers the stress by less
    than the share ``eps``, or after ``max_iter`` sweeps. The result is always that of a plain step.

    Landmarks that lie on one place part, unless their distance is 0: before the first sweep, and where a descent ends
    with such a place. Fewer than 256 landmarks take plain sweeps first. With more, the first
    sweeps are in float32 and the last in float64. A pair in float32 has a rounding of 1e-7, which moves the fixed point
    of a sweep by far less than ``eps`` allows, and float64 sweeps decide when it is reached. On CUDA ``sweep`` may be
    captured in a graph, because it reads nothing from the device. Deterministic. Source: de Leeuw, "Applications of
    convex analysis to multidimensional scaling", 1977; Nocedal, "Updating quasi-Newton matrices with limited storage",
    1980.
    """
    distances, points = distances.double(), init.double() - init.double().mean(0)
    # Plain sweeps part few landmarks by themselves, if rounding has left them the least bit apart.
    apart = parted(distances, points, 0.0 if len(points) < PLAIN_BELOW else TOGETHER)
    end = _descended(distances, points if apart is None else apart, max_iter, eps, sweep)
    for _ in range(PARTINGS):
        apart = parted(distances, end.coordinates, TOGETHER)
        if apart is None or end.n_iter == max_iter:
            break
        further = _descended(distances, apart, max_iter - end.n_iter, eps, sweep)
        end = Descent(further.coordinates, end.n_iter + further.n_iter)
    return end


def _descended(distances: torch.Tensor, points: torch.Tensor, max_iter: int, eps: float, sweep: Sweep) -> Descent:
    """First plain sweeps for few landmarks, or sweeps in float32 for many; then the others."""
    if len(distances) < PLAIN_BELOW:
        first = run_to_end(
            PlainRun(distances, points, max_iter, max(eps, PLAIN_EPS), plain_sweep if sweep is one_sweep else sweep)
        )
    elif len(distances) < ROUGH_FROM or max_iter < 4 or not bool(distances.any()):
        return run_to_end(SmacofRun(distances, points, max_iter, eps, sweep))
    else:
        largest = distances.max()
        rough = run_to_end(SmacofRun(in_float32(distances), points / largest, max_iter - 2, eps, sweep))
        first = Descent(rough.coordinates * largest, rough.n_iter)
    if first.n_iter == max_iter:
        return first
    end = run_to_end(SmacofRun(distances, first.coordinates, max_iter - first.n_iter, eps, sweep))
    return Descent(end.coordinates, first.n_iter + end.n_iter)


def in_float32(distances: torch.Tensor) -> torch.Tensor:
    """``distances`` in float32, scaled to at most 1, so that those of any size are within its range."""
    return (distances / distances.max()).float()


def run_to_end(run: SmacofRun | PlainRun) -> Descent:
    with torch.inference_mode():  # saves a microsecond in each of about ten torch calls of a sweep
        repeat_until(run.done, run.advance)
    return Descent(run.moved, run.n_iter)


class PlainRun:
    """The state of plain sweeps, on the device."""

    def __init__(self, distances: torch.Tensor, points: torch.Tensor, max_iter: int, eps: float, sweep: Sweep) -> None:
        self.distances, self.max_iter, self.eps, self.sweep = distances, max_iter, eps, sweep
        self.moved = points.clone(memory_format=torch.contiguous_format)
        self.sweeps, self.done = points.new_zeros(()), points.new_zeros(())
        self.last = points.new_full((), torch.inf)

    def advance(self) -> None:
        """Do one sweep, without reading from the device. No effect after the sweeps have ended."""
        moved, raw = self.sweep(self.distances, self.moved)
        going = 1 - self.done
        self.moved.copy_(torch.where(going > 0, moved, self.moved))
        self.sweeps += going
        small = (self.last - raw < self.eps * raw) | (raw <= 0)
        self.done.copy_(small | (self.sweeps >= self.max_iter))
        self.last.copy_(raw)

    @property
    def n_iter(self) -> int:
        return int(self.sweeps)


class SmacofRun:
    """The state of a descent. It lies on the device, in tensors that `descent_step` changes in place."""

    def __init__(
        self, distances: torch.Tensor, points: torch.Tensor, max_iter: int, eps: float, sweep: Sweep = one_sweep
    ) -> None:
        self.distances, self.max_iter, self.eps, self.sweep = distances, max_iter, eps, sweep
        moved, raw = sweep(distances, points)
        # The next step is a plain one. The kernels need contiguous tensors, and the start may have other strides.
        self.points, self.moved, self.trial = (
            tensor.clone(memory_format=torch.contiguous_format) for tensor in (points, moved, moved)
        )
        step, kept = torch.zeros_like(self.points), points.new_zeros(descent.ROWS, points.numel())
        self.state = points.new_zeros(descent.N_STATE)
        self.state[descent.BEST] = raw
        self.state[descent.N_ITER] = self.state[descent.PLAIN] = 1
        self.places = (self.points, self.moved, self.trial, step, kept, self.state)
        self.done = self.state[descent.DONE]
        self.done.copy_((raw > 0).logical_not() | (max_iter <= 1))

    def advance(self) -> None:
        """Do one sweep and update the state, without reading from the device. No effect after the descent has ended."""
        descent.descent_step(*self.sweep(self.distances, self.trial), *self.places, self.eps, self.max_iter)

    @property
    def n_iter(self) -> int:
        return int(self.state[descent.N_ITER])
