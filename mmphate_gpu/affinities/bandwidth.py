"""Bandwidths of the two affinities (METHOD steps 3 and 4)."""

from __future__ import annotations

import warnings

import torch

from ..neighbors import kth_neighbor_distance, median_kth_neighbor_distance

# The floor METHOD puts under every bandwidth: duplicates would make it 0.
FLOOR = torch.finfo(torch.float64).eps


def intraslice_bandwidth(points: torch.Tensor, knn: int, *, backend: str = "auto") -> torch.Tensor:
    """Per node: distance to its ``knn``-th nearest other unit of the same slice; (S, M, D) -> (S, M).

    ``knn`` is clamped to M - 1. With one unit there is no other: the bandwidth is the floor, the affinity the diagonal.
    """
    n_units = points.shape[1]
    if n_units == 1:
        return points.new_full(points.shape[:2], FLOOR)
    return kth_neighbor_distance(points, min(knn, n_units - 1), backend=backend).clamp_min(FLOOR)


def interslice_bandwidth(unit_points: torch.Tensor, knn: int, *, backend: str = "auto") -> torch.Tensor:
    """One number: mean over units of the median over slices of the distance to the ``knn``-th nearest other slice.

    Parameters
    ----------
    unit_points : (M, S, D) float64
        One point set per unit. S is at least 2.
    knn : int
        Clamped to S - 1, with a warning.

    Returns
    -------
    () float64 tensor, at least the float64 epsilon.
    """
    n_slices = unit_points.shape[1]
    if knn > n_slices - 1:
        warnings.warn(
            f"interslice_knn={knn} is clamped to {n_slices - 1}: the trace has {n_slices} slices",
            UserWarning,
            stacklevel=2,
        )
        knn = n_slices - 1
    return median_kth_neighbor_distance(unit_points, knn, backend=backend).clamp_min(FLOOR).mean()
