"""Bandwidths of both affinities (steps 3 and 4 of docs/method.md)."""

from __future__ import annotations

import torch

from ..errors import warn_caller
from ..neighbors import kth_neighbor_distance, median_kth_neighbor_distance
from ..ops.kth_neighbor_distance import median
from ..trace.points import FLOOR
from .comparable import clamped_kth_distance, comparable_others


def kth_unit_distance(
    points: torch.Tensor, knn: int, *, backend: str = "auto", masked: bool = False
) -> torch.Tensor:  # (S, M, D) -> (S, M)
    """Distance to the ``knn``-th nearest other unit of the slice, ``knn`` clamped to M - 1. A single unit has 0.

    In ``masked`` points ``knn`` is clamped for every unit to the others that share a sample with it.
    """
    n_units = points.shape[1]
    if n_units == 1:
        return points.new_zeros(points.shape[:2])
    knn = min(knn, n_units - 1)
    if masked:
        return clamped_kth_distance(points, knn, backend=backend)
    return kth_neighbor_distance(points, knn, backend=backend)


def interslice_bandwidth(
    unit_points: torch.Tensor,
    knn: int,
    resolution: torch.Tensor | None = None,
    *,
    backend: str = "auto",
    masked: bool = False,
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
    masked : bool
        Whether NaN is a missing sample. Points without any sample do not count, and ``knn`` is clamped for every other
        point to the slices of its unit that share a sample with it.

    Returns
    -------
    () float64 tensor, > 0.
    """
    n_slices = unit_points.shape[1]
    if knn > n_slices - 1:
        warn_caller(f"interslice_knn={knn} is clamped to {n_slices - 1}: the trace has {n_slices} slices")
        knn = n_slices - 1
    if masked:
        return _masked_bandwidth(unit_points, knn, resolution, backend)
    medians = median_kth_neighbor_distance(unit_points, knn, backend=backend)
    return torch.maximum(medians, unit_floor(medians, resolution)).mean()


def _masked_bandwidth(
    unit_points: torch.Tensor, knn: int, resolution: torch.Tensor | None, backend: str
) -> torch.Tensor:  # (M, S, D), (M, S) -> ()
    """The bandwidth of the points that have a sample; units without such a point do not count."""
    widths = []
    for units, slices, others in comparable_others(unit_points):
        points = unit_points[units[:, None], slices]
        k = others.clamp_max(knn).unique()
        if k.numel() > 1:
            medians = median(clamped_kth_distance(points, int(k.max()), backend=backend))
        elif int(k):
            medians = median_kth_neighbor_distance(points, int(k), backend=backend, masked=True)
        else:  # no slice shares a sample with another slice
            medians = points.new_zeros(len(units))
        rounding = None if resolution is None else resolution[units[:, None], slices]
        widths.append(torch.maximum(medians, unit_floor(medians, rounding)))
    return torch.cat(widths).mean()


def unit_floor(like: torch.Tensor, resolution: torch.Tensor | None) -> torch.Tensor:  # (M,), (M, S) -> (M,)
    """The least median of every unit in `interslice_bandwidth`; ``like`` has its dtype and device."""
    return torch.full_like(like, FLOOR) if resolution is None else median(resolution)
