"""Out-of-sample placement: the coordinates of new slices of the fitted units."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..errors import InputError
from ..ops.chunks import row_chunks
from ..ops.distances import distances_by_difference
from ..slices import unit_major
from ..trace import PrincipalAxes, Trace, trace_points
from ..trace.pca import on_axes


@dataclass(frozen=True, eq=False)
class Placement:
    """The parameters and tensors of a fitted run from which the coordinates of new slices follow."""

    n_samples: int  # P, of the fitted trace
    normalize: bool
    axes: PrincipalAxes | None
    points: torch.Tensor  # (M, S, D) float64
    targets: torch.Tensor  # (M, S, C), for every fitted node the coordinates of its landmark
    bandwidth: torch.Tensor  # ()
    thresh: float

    def coordinates(self, trace: Trace) -> torch.Tensor:  # (S_new M, C)
        """Coordinates of the nodes of ``trace``, on the device of the fitted points.

        Raises
        ------
        InputError
            ``trace`` has other units or samples than the fitted trace.
        """
        fitted = (self.points.shape[0], self.n_samples)
        if trace.shape[2:] != fitted:
            raise InputError(f"X has (units, samples) = {trace.shape[2:]}; accepted: {fitted}, as fitted")
        n_pca = None if self.axes is None else self.axes.loadings.shape[1]
        points, _ = trace_points(trace.to(self.points.device), normalize=self.normalize, n_pca=n_pca)
        rows = place(
            unit_major(on_axes(points, self.axes)), self.points, self.targets, self.bandwidth, thresh=self.thresh
        )
        return rows.transpose(0, 1).reshape(-1, rows.shape[-1])


def place(
    points: torch.Tensor,  # (M, S_new, D) float64
    fitted: torch.Tensor,  # (M, S, D) float64
    targets: torch.Tensor,  # (M, S, C)
    bandwidth: torch.Tensor,  # ()
    *,
    thresh: float,
) -> torch.Tensor:  # (M, S_new, C)
    """Means of ``targets`` with the weights exp(-(d / bandwidth)^2), which are 0 below ``thresh``.

    If all weights of a point are below ``thresh``, none is set to 0, so a point far from all fitted points has
    coordinates too. Up to rounding, a row depends only on its point. O(M S_new S (D + C)) time; chunks of memory.
    Deterministic.
    """
    coordinates = targets.new_empty(*points.shape[:2], targets.shape[-1])
    least = math.log(thresh) if thresh > 0 else -math.inf
    for unit in range(points.shape[0]):
        for rows in row_chunks(points.shape[1], fitted.shape[1]):
            scores = -(distances_by_difference(points[unit, rows], fitted[unit]) / bandwidth).square()
            best = scores.amax(1, keepdim=True)
            cut = (scores < least) & (best >= least)
            weights = (scores - best).exp_().masked_fill_(cut, 0)  # only the ratios of the weights matter
            coordinates[unit, rows] = (weights / weights.sum(1, keepdim=True)) @ targets[unit]
    return coordinates
