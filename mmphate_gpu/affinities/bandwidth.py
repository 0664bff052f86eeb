"""Bandwidths of both affinities (steps 3 and 4 of docs/method.md)."""

from __future__ import annotations

import warnings

import torch

from ..neighbors import kth_neighbor_distance, median_kth_neighbor_distance
from ..ops.kth_neighbor_distance import median
from ..trace.points import FLOOR


def kth_unit_distance(points: torch.Tensor, knn: int, *, backend: str = "auto") -> torch.Tensor:  # (S, M, D) -> (S, M)
    """Distance to the ``knn``-th nearest other unit of the slice, ``knn`` clamped to M - 1. A single unit has 0."""
    n_units = points.shape[1]
    if n_units == 1:
        return points.new_zeros(points.shape[:2])
    return kth_neighbor_distance(points, min(knn, n_units - 1), backend=backend)


def interslice_bandwidth(
    unit_points: torch.Tensor, knn: int, resolution: torch.Tensor | None = None, *, backend: str = "auto"
) -> torch.Tensor:
    """One number: mean over units of the median over slices of the distance to the ``knn``-th nearest other slice.

    Parameters
    ----------
    unit_points : (M, S, D) float64
        One point set per unit. S is at least 2.
    knn : int
        Clamped to S - 1, with a warning.
    resolution : (M, S), optional
        Smaller distances are rounding. The median of a unit is at least the median of its resolution over slices, and
        without ``resolution`` at least the float64 epsilon.

    Returns
    -------
    () float64 tensor, > 0.
    """
    n_slices = unit_points.shape[1]
    if knn > n_slices - 1:
        warnings.warn(
            f"interslice_knn={knn} is clamped to {n_slices - 1}: the trace has {n_slices} slices",
            UserWarning,
            stacklevel=2,
        )
        knn = n_slices - 1
    medians = median_kth_neighbor_distance(unit_points, knn, backend=backend)
    return torch.maximum(medians, unit_floor(medians, resolution)).mean()


def unit_floor(like: torch.Tensor, resolution: torch.Tensor | None) -> torch.Tensor:  # (M,), (M, S) -> (M,)
    """The least median of every unit in `interslice_bandwidth`; ``like`` has its dtype and device."""
    return torch.full_like(like, FLOOR) if resolution is None else median(resolution)
