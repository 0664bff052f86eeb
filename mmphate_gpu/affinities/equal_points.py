"""Points that are equal but for rounding become equal before their affinity is computed."""

from __future__ import annotations

import torch

from ..ops.chunks import chunk_elements, row_chunks
from ..ops.distances import distances_by_difference


def merge_equal_units(
    points: torch.Tensor, resolution: torch.Tensor, kth: torch.Tensor, masked: bool = False
) -> torch.Tensor:  # (S, M, D), (S, M), (S, M) -> (S, M, D)
    """``points`` in which units of a slice that are equal but for rounding share one place.

    An affinity depends on distance divided by bandwidth. If both are rounding, the affinity could be anything from 0 to
    1. The bandwidth of a unit is rounding if the distance ``kth`` of the neighbor that sets it is at most twice the
    resolution. Such a unit moves to the best resolved unit within its resolution. The affinity of equal points is 1.
    ``masked`` units move only to units that have the same samples.
    """
    rounded = kth <= 2 * resolution
    rounded &= (rounded & (kth > 0)).any(1, keepdim=True)  # units at distance 0 are equal already
    return _merged(points, resolution, rounded, masked)


def merge_equal_slices(
    unit_points: torch.Tensor, resolution: torch.Tensor, bandwidth: torch.Tensor, masked: bool = False
) -> torch.Tensor:  # (M, S, D), (M, S), () -> (M, S, D)
    """As `merge_equal_units`, for slices whose resolution is not much smaller than the interslice ``bandwidth``."""
    return _merged(unit_points, resolution, 8 * resolution >= bandwidth, masked)


def _merged(
    points: torch.Tensor, resolution: torch.Tensor, moving: torch.Tensor, masked: bool
) -> torch.Tensor:  # (B, n, p), (B, n), (B, n) bool -> (B, n, p)
    """A copy in which each of the ``moving`` points lies at the best resolved point of its set within its resolution.

    If no point moves, the result is ``points`` itself. O(n p) time for each point that moves; the copy and some chunks
    of memory. Deterministic.
    """
    sets, rows = torch.nonzero(moving, as_tuple=True)
    if not len(sets):
        return points
    merged, n_numbers = points.clone(), points.shape[1] * points.shape[2]
    for part in row_chunks(len(sets), n_numbers, chunk_elements(points.device)):
        at, row = sets[part], rows[part]
        distances = distances_by_difference(points[at, row][:, None], points[at], masked)[:, 0]  # (c, n)
        within = distances <= resolution[at, row, None]
        if masked:
            within &= (points[at].isnan() == points[at, row].isnan()[:, None]).all(-1)
        merged[at, row] = points[at, torch.where(within, resolution[at], torch.inf).argmin(1)]
    return merged
