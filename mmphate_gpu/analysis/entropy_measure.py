"""One measure of entropy with its options, applied to all clouds and to halves of their members."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from ..errors import InputError, check_choice, check_number, warn_caller
from ..stages import Callback
from .entropy_clouds import REMAINING, Clouds, clouds, half_samples, half_size, root_mean_square_radius
from .entropy_estimators import histogram_entropy, kde_entropy, knn_entropy, present, sampled_indices
from .progress import progress
from .spectral_entropy import MOST_T, diffusion_spectral_entropy, median_distance

ESTIMATORS = ("histogram", "kde", "knn", "spectral")
# An eigenvalue decomposition costs more than the other estimators, and a node cloud is large.
N_BOOTSTRAP = {"histogram": 50, "kde": 50, "knn": 50, "spectral": 20}
# Below this number of points every estimator is biased by about as much as entropies differ.
FEW_POINTS = 10
# Below this number of members their halves say nothing.
FEW_MEMBERS = 4
# From clouds (B, n, C) to entropies in nats and to the number of floored distances of each.
Estimate = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class Measured(NamedTuple):
    """The entropies of B clouds, and the lengths that were used."""

    values: torch.Tensor  # (B,)
    replicates: torch.Tensor | None  # (n_bootstrap, B)
    n_points: torch.Tensor  # (B,)
    n_floored: torch.Tensor  # (B,)
    shape: tuple[int, ...]  # of the axes that remain; their product is B
    scale: float
    bandwidth: float | None


@dataclass(frozen=True)
class Measure:
    """The options of `entropy`, checked."""

    over: str
    estimator: str
    bins: int
    k: int
    t: int
    base: float
    scale: float | None
    bandwidth: float | None
    n_bootstrap: int | None
    random_state: int | None

    def __post_init__(self) -> None:
        check_choice("over", self.over, REMAINING)
        check_choice("estimator", self.estimator, ESTIMATORS)
        check_number("base", self.base, low=1, open_low=True)
        for name, high in (("bins", 2**61), ("k", math.inf), ("t", MOST_T)):
            check_number(name, getattr(self, name), low=1, high=high, integer=True)
        if self.n_bootstrap is not None:
            check_number("n_bootstrap", self.n_bootstrap, low=0, integer=True)
        if self.n_bootstrap == 1:
            raise InputError("n_bootstrap=1 gives no spread of replicates; accepted: 0, or an integer >= 2")
        for name in ("scale", "bandwidth"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), low=0, open_low=True)

    def __call__(self, points: torch.Tensor, verbose: int | bool, callback: Callback | None) -> Measured:
        """The entropies of the clouds of ``points`` (E, T, M, C)."""
        scale = root_mean_square_radius(points) if self.scale is None else float(self.scale)
        stack = clouds(points / scale, self.over)
        n_points = present(stack.points).sum(1)
        bandwidth = self._bandwidth(stack.points, scale)
        values, floored = self._estimate(stack, bandwidth, self.k)(stack.points)
        _warn_of_few(n_points, int(values.isnan().sum()))
        # A half of few members may have fewer neighbors than k.
        n_half = half_size(stack.n_members) * len(stack.members) // stack.n_members
        of_half = self._estimate(stack, bandwidth, min(self.k, max(1, n_half - 1)))
        replicates = self._replicates(of_half, stack, values, verbose, callback)
        unit = math.log(self.base)
        return Measured(
            values / unit,
            None if replicates is None else replicates / unit,
            n_points,
            floored,
            stack.shape,
            scale,
            None if bandwidth is None else bandwidth * scale,
        )

    def _bandwidth(self, points: torch.Tensor, scale: float) -> float | None:
        """The common bandwidth of "spectral" in units of ``scale``."""
        if self.estimator != "spectral" or self.bandwidth is not None:
            return None if self.bandwidth is None else self.bandwidth / scale
        several = points[present(points).sum(1) > 1]
        return float(median_distance(_part(several)).median()) if len(several) else 0.0

    def _estimate(self, stack: Clouds, bandwidth: float | None, k: int) -> Estimate:
        if self.estimator == "kde":
            return kde_entropy
        if self.estimator == "knn":
            return functools.partial(knn_entropy, k=k)
        if self.estimator == "spectral":
            return _without_floor(
                lambda points: diffusion_spectral_entropy(_part(points), self.t, math.e, bandwidth=bandwidth)
            )
        low, width = _grid(stack.points, self.bins)
        return _without_floor(functools.partial(histogram_entropy, low=low, width=width, bins=self.bins))

    def _replicates(
        self, estimate: Estimate, stack: Clouds, values: torch.Tensor, verbose: int | bool, callback: Callback | None
    ) -> torch.Tensor | None:  # (n_bootstrap, B)
        """Entropies of random halves, moved to ``values`` as their mean and spread as those of all members."""
        n, n_samples = stack.n_members, self.n_bootstrap
        if n_samples is None:
            n_samples = 0 if self.over == "nodes" else N_BOOTSTRAP[self.estimator]
        if n_samples == 0 or n < FEW_MEMBERS:
            return None
        halves = values.new_empty(n_samples, len(values))
        with progress(n_samples, verbose, callback, "entropy") as advance:
            for half, members in zip(halves, half_samples(stack, n_samples, self.random_state), strict=True):
                half.copy_(estimate(stack.points[:, members])[0])
                advance()
        size = half_size(n)
        return values + (halves - halves.nanmean(0)) * math.sqrt(size / (n - size))


def _grid(points: torch.Tensor, bins: int) -> tuple[torch.Tensor, torch.Tensor]:  # (C,), (C,)
    """The lower edge and the width of the cells, from the least to the largest coordinate of all clouds."""
    rows = points[present(points)]
    if not len(rows):
        return points.new_zeros(points.shape[2]), points.new_ones(points.shape[2])
    low, high = rows.aminmax(dim=0)
    width = (high - low) / bins
    return low, torch.where(width > 0, width, 1)


def _part(points: torch.Tensor) -> torch.Tensor:
    return points[:, sampled_indices(points.shape[1], points.device)]


def _without_floor(entropies: Callable[[torch.Tensor], torch.Tensor]) -> Estimate:
    def estimate(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return entropies(points), torch.zeros(len(points), dtype=torch.int64, device=points.device)

    return estimate


def _warn_of_few(n_points: torch.Tensor, n_undefined: int) -> None:
    fewest, clouds = int(n_points.min()), n_points.numel()
    if fewest < FEW_POINTS:
        few = int((n_points < FEW_POINTS).sum())
        warn_caller(
            f"{few} of {clouds} clouds have fewer than {FEW_POINTS} points (the least {fewest}), so their "
            "entropies are biased; compare them only with those of clouds of the same number of points"
        )
    elif n_undefined:  # k is large
        warn_caller(f"{n_undefined} of {clouds} clouds have too few points for k neighbors, so their entropies are NaN")
