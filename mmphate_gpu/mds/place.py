"""Out-of-sample placement: the coordinates of new slices of the fitted units."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..errors import InputError
from ..operators.graph_nodes import warn_left_out
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
    points: torch.Tensor  # (M, S, D) float64, NaN where a sample is missing
    targets: torch.Tensor  # (M, S, C), for every fitted node the coordinates of its landmark
    bandwidth: torch.Tensor  # ()
    thresh: float
    masked: bool = False  # whether samples are missing in ``points``

    def coordinates(self, trace: Trace) -> torch.Tensor:  # (S_new M, C)
        """Coordinates of the nodes of ``trace``, on the device of the fitted points.

        Raises
        ------
        InputError
            ``trace`` has other units or samples than the fitted trace.
        """
        self._check(trace)
        n_pca = None if self.axes is None else self.axes.loadings.shape[1]
        points, resolution = trace_points(trace.to(self.points.device), normalize=self.normalize, n_pca=n_pca)
        warn_left_out(resolution, self.normalize)
        new, masked = unit_major(on_axes(points, self.axes)), self.masked or trace.mask is not None
        rows = place(new, self.points, self.targets, self.bandwidth, thresh=self.thresh, masked=masked)
        return rows.transpose(0, 1).reshape(-1, rows.shape[-1])

    def _check(self, trace: Trace) -> None:
        fitted = (self.points.shape[0], self.n_samples)
        if trace.shape[2:] != fitted:
            raise InputError(f"X has (units, samples) = {trace.shape[2:]}; accepted: {fitted}, as fitted")
        if trace.mask is not None and self.axes is not None:
            raise InputError(
                "X is masked, and the fit reduced the samples by PCA; accepted: no mask, or n_pca=None at fit"
            )


def place(
    points: torch.Tensor,  # (M, S_new, D) float64
    fitted: torch.Tensor,  # (M, S, D) float64
    targets: torch.Tensor,  # (M, S, C)
    bandwidth: torch.Tensor,  # ()
    *,
    thresh: float,
    masked: bool = False,
) -> torch.Tensor:  # (M, S_new, C)
    """Means of ``targets`` with the weights exp(-(d / bandwidth)^2), which are 0 below ``thresh``.

    If all weights of a point are below ``thresh``, none is set to 0, so a point far from all fitted points has
    coordinates too. Up to rounding, a row depends only on its point. In ``masked`` points NaN is a missing sample; a
    point that shares no sample with a fitted point has NaN. O(M S_new S (D + C)) time; chunks of memory. Deterministic.
    """
    coordinates = targets.new_empty(*points.shape[:2], targets.shape[-1])
    least = math.log(thresh) if thresh > 0 else -math.inf
    for unit in range(points.shape[0]):
        for rows in row_chunks(points.shape[1], fitted.shape[1]):
            distances = distances_by_difference(points[unit, rows], fitted[unit], masked)
            scores = -(distances / bandwidth).square()
            best = scores.amax(1, keepdim=True)
            cut = (scores < least) & (best >= least)
            weights = (scores - best).exp_().masked_fill_(cut, 0)  # only the ratios of the weights matter
            coordinates[unit, rows] = (weights / weights.sum(1, keepdim=True)) @ targets[unit]
    return coordinates
