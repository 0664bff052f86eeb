"""The folds of a cross-validation, and the features that its fits share."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ..trace.scale import power_of_two

# Squares of coordinates below this share of the largest are rounding errors of the eigenvalues.
_NO_SQUARE = 1e-13


class Folds(NamedTuple):
    """Which fold tests each sample, and the training samples of every fold, padded to the same number."""

    of_sample: torch.Tensor  # (P,) int64
    rows: torch.Tensor  # (folds, n) int64
    weights: torch.Tensor  # (folds, n) float64: 1, or 0 for padding

    @property
    def n_folds(self) -> int:
        return len(self.rows)

    def take(self, values: torch.Tensor) -> torch.Tensor:  # (B, folds, P, p) -> (B, folds, n, p)
        """The rows of the training samples of each fold."""
        return values[:, torch.arange(self.n_folds, device=values.device)[:, None], self.rows]


def stratified_folds(groups: torch.Tensor, n_folds: int, generator: torch.Generator) -> Folds:
    """Random folds, over which the samples of each group spread evenly; ``groups`` (P,) are integers.

    The sizes of two folds, and the numbers of samples of a group in them, differ by at most 1.
    """
    order = torch.randperm(len(groups), generator=generator, device="cpu").to(groups.device)
    order = order[groups[order].argsort(stable=True)]
    of_sample = torch.empty_like(order)
    of_sample[order] = torch.arange(len(order), device=order.device) % n_folds
    outside = of_sample != torch.arange(n_folds, device=order.device)[:, None]  # (folds, P)
    n = int(outside.sum(1).max())
    rows = (~outside).long().argsort(dim=1, stable=True)[:, :n]
    return Folds(of_sample, rows, outside.gather(1, rows).double())


def permuted_within(folds: Folds, labels: torch.Tensor, n: int, generator: torch.Generator) -> torch.Tensor:  # (n, P)
    """``n`` copies of ``labels`` (P,), each permuted at random within every fold: the folds stay stratified."""
    keys = torch.rand(n, len(labels), generator=generator, dtype=torch.float64, device="cpu").to(labels.device)
    order = (folds.of_sample + keys).argsort(dim=1)
    places = folds.of_sample.argsort(stable=True)
    out = labels.new_empty(n, len(labels))
    out[:, places] = labels[order]
    return out


class Features(NamedTuple):
    """The states in coordinates in which all fits of a fold have a curvature near 1.

    These are standardized by the training samples, turned to their principal axes, and divided by the root of
    ``curvature * squares + penalty``. The last coordinate is the intercept. A penalty of w^2 / 2 on the standardized
    states is one of ``penalty * x^2 / 2`` here.
    """

    points: torch.Tensor  # (B, folds, P, p) float64
    penalty: torch.Tensor  # (B, folds, p)
    folds: Folds


def scaled_features(states: torch.Tensor, folds: Folds, penalty: float, curvature: float) -> Features:
    """`Features` of the states (B, P, M), for each fold."""
    points = _standardized(states, folds)
    axes, squares = _principal_axes(folds.take(points) * folds.weights[..., None])
    points = torch.cat([points @ axes, points.new_ones(*points.shape[:3], 1)], -1)
    sizes = folds.weights.sum(1).expand(len(states), -1)[..., None]
    bend = torch.cat([curvature * squares + penalty, curvature * sizes], -1)
    shrink = torch.cat([torch.full_like(squares, penalty), torch.zeros_like(sizes)], -1) / bend
    return Features(points.mul_(bend.rsqrt()[:, :, None]), shrink, folds)


def _standardized(states: torch.Tensor, folds: Folds) -> torch.Tensor:  # (B, P, M) -> (B, folds, P, M)
    """(x - mean) / deviation by the training samples of each fold, with ddof 0; 0 for constant units."""
    states = states * power_of_two(states.abs().amax(1, keepdim=True))  # squares of states like 1e-200 would vanish
    sizes = folds.weights.sum(1)[:, None, None]
    share = torch.zeros(folds.n_folds, states.shape[1], dtype=states.dtype, device=states.device)
    share.scatter_add_(1, folds.rows, folds.weights)  # (folds, P): 1 in training
    share = (share / sizes[:, 0]).expand(len(states), -1, -1)
    mean = (share @ states)[:, :, None]
    points = states[:, None] - mean
    variance = (share[:, :, None] @ points.square()).clamp_min(0)
    # A constant unit has a variance of rounding errors. This bound is that of scikit-learn's StandardScaler.
    eps = torch.finfo(torch.float64).eps
    constant = variance <= sizes * eps * variance + (sizes * mean * eps).square()
    return points.mul_(torch.where(constant, 0, variance.rsqrt()))


def _principal_axes(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Orthonormal axes (..., p, r) of the points (..., n, p), and the sums of the squares along them (..., r).

    r is the smaller of n and p. With p > n the n axes are computed from the products of the points, and an axis
    along which the points do not differ is zero.
    """
    n, p = points.shape[-2:]
    if p <= n:
        squares, axes = torch.linalg.eigh(points.mT @ points)
        return axes, squares.clamp_min_(0)
    squares, sides = torch.linalg.eigh(points @ points.mT)
    kept = squares > _NO_SQUARE * squares[..., -1:]
    inverse = torch.where(kept, squares.rsqrt(), 0)
    return points.mT @ (sides * inverse[..., None, :]), torch.where(kept, squares, 0)
