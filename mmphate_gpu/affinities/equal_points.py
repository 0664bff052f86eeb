"""Points that are equal but for rounding, made equal before their affinity is computed."""

from __future__ import annotations

import torch

from ..ops.chunks import chunk_elements, row_chunks
from ..ops.distances import distances_by_difference


def merge_equal_units(
    points: torch.Tensor, resolution: torch.Tensor, kth: torch.Tensor
) -> torch.Tensor:  # (S, M, D), (S, M), (S, M) -> (S, M, D)
    """``points``, with one place for units of a slice that are equal but for rounding.

    An affinity is a function of distance divided by bandwidth. Where both are rounding, the affinity is anything from 0
    to 1. The bandwidth of a unit is rounding if its ``kth`` neighbor, which sets the bandwidth, lies within twice the
    resolution. Such a unit moves to the best resolved unit within its resolution; the affinity of equal points is 1.
    """
    rounded = kth <= 2 * resolution
    rounded &= (rounded & (kth > 0)).any(1, keepdim=True)  # units at distance 0 are equal already
    return _merged(points, resolution, rounded)


def merge_equal_slices(
    unit_points: torch.Tensor, resolution: torch.Tensor, bandwidth: torch.Tensor
) -> torch.Tensor:  # (M, S, D), (M, S), () -> (M, S, D)
    """As `merge_equal_units`, for the slices whose resolution is not small beside the interslice ``bandwidth``."""
    return _merged(unit_points, resolution, 8 * resolution >= bandwidth)


def _merged(
    points: torch.Tensor, resolution: torch.Tensor, moving: torch.Tensor
) -> torch.Tensor:  # (B, n, p), (B, n), (B, n) bool -> (B, n, p)
    """A copy in which each of the ``moving`` points lies at the best resolved point of its set in its reach.

    ``points`` itself is returned where none is moving. O(n p) time for each that is; beside the copy chunks of memory.
    Deterministic.
    """
    sets, rows = torch.nonzero(moving, as_tuple=True)
    if not len(sets):
        return points
    merged, n_numbers = points.clone(), points.shape[1] * points.shape[2]
    for part in row_chunks(len(sets), n_numbers, chunk_elements(points.device)):
        at, row = sets[part], rows[part]
        distances = distances_by_difference(points[at, row][:, None], points[at])[:, 0]  # (c, n)
        in_reach = distances <= resolution[at, row, None]
        merged[at, row] = points[at, torch.where(in_reach, resolution[at], torch.inf).argmin(1)]
    return merged
