"""Points that are equal but for rounding, made equal before their affinity is computed."""

from __future__ import annotations

import torch

from ..ops.chunks import chunk_elements, row_chunks
from ..ops.distances import distances_by_difference


def merge_equal_units(
    points: torch.Tensor, resolution: torch.Tensor, kth: torch.Tensor
) -> torch.Tensor:  # (S, M, D), (S, M), (S, M) -> (S, M, D)
    """``points``, with one place for units of a slice that are equal but for rounding.

    A bandwidth that is rounding makes an affinity of rounding too, anything from 0 to 1. Such are the bandwidths of
    units whose ``kth`` neighbor, which sets them, is within twice the resolution. Those units move to the best resolved
    one in their reach; the affinity of equal points is 1.
    """
    loose = kth <= 2 * resolution
    loose &= (loose & (kth > 0)).any(1, keepdim=True)  # units at distance 0 are equal already
    return _merged(points, resolution, loose, 0)


def merge_equal_slices(
    unit_points: torch.Tensor, resolution: torch.Tensor, bandwidth: torch.Tensor, knn: int
) -> torch.Tensor:  # (M, S, D), (M, S), () -> (M, S, D)
    """As `merge_equal_units`, for slices of a unit whose rounding is not small beside the ``bandwidth``."""
    return _merged(unit_points, resolution, 8 * resolution >= bandwidth, min(knn, unit_points.shape[1] - 1))


def _merged(
    points: torch.Tensor, resolution: torch.Tensor, candidates: torch.Tensor, k: int
) -> torch.Tensor:  # (B, n, p), (B, n), (B, n) bool -> (B, n, p)
    """A copy in which the ``candidates`` that have ``k`` others within twice their resolution have moved.

    Each moves to the best resolved point of its set within its resolution. ``points`` itself is returned where there
    are no candidates. O(n p) time for each of them; chunks of memory beside the copy. Deterministic.
    """
    sets, rows = torch.nonzero(candidates, as_tuple=True)
    if not len(sets):
        return points
    merged, n_numbers = points.clone(), points.shape[1] * points.shape[2]
    for part in row_chunks(len(sets), n_numbers, chunk_elements(points.device)):
        its_set, row = sets[part], rows[part]
        reach = resolution[its_set, row, None]
        distances = distances_by_difference(points[its_set, row][:, None], points[its_set])[:, 0]  # (c, n)
        best = torch.where(distances <= reach, resolution[its_set], torch.inf).argmin(1)
        crowded = (distances <= 2 * reach).sum(1) > k
        merged[its_set, row] = points[its_set, torch.where(crowded, best, row)]
    return merged
