"""Make points equal that are equal but for rounding, before their affinity is computed."""

from __future__ import annotations

import torch

from ..neighbors import kth_neighbor_distance


def merge_equal_points(
    points: torch.Tensor, resolution: torch.Tensor, kth: torch.Tensor
) -> torch.Tensor:  # (B, n, p), (B, n), (B, n) -> (B, n, p)
    """Move points of a set that are closer than their ``resolution`` to one place.

    A bandwidth that is nothing but rounding gives arbitrary affinities from 0 to 1. The bandwidth of a point is
    rounding if the distance ``kth`` to its k-th neighbor is at most twice its resolution. Only such points move. Each
    moves to the best resolved of them within its own resolution; the affinity of equal points is 1. ``points`` is not
    modified, and is returned itself if no point has to move. O(B n p) time for each shared place. Deterministic.
    """
    loose = kth <= 2 * resolution
    sets = torch.nonzero((loose & (kth > 0)).any(1)).flatten()  # points at distance 0 are equal already
    if not len(sets):
        return points
    some, loose, resolution = points[sets], loose[sets], resolution[sets]
    every = torch.arange(len(sets), device=points.device)
    while bool(loose.any()):
        leader = torch.where(loose, resolution, torch.inf).argmin(1)
        place = some[every, leader][:, None]
        near = loose & (torch.linalg.vector_norm(some - place, dim=-1) <= resolution)  # none in a finished set
        some = torch.where(near[..., None], place, some)
        loose = loose & ~near
    merged = points.clone()
    merged[sets] = some
    return merged


def merge_equal_slices(
    unit_points: torch.Tensor,  # (M, S, D)
    resolution: torch.Tensor,  # (M, S)
    bandwidth: torch.Tensor,  # ()
    knn: int,
    *,
    backend: str = "auto",
) -> torch.Tensor:  # (M, S, D)
    """`merge_equal_points` for the slices of those units whose resolution is not small beside the ``bandwidth``."""
    units = torch.nonzero(8 * resolution.median(1).values >= bandwidth).flatten()
    if not len(units):
        return unit_points
    kth = torch.full_like(resolution, torch.inf)
    kth[units] = kth_neighbor_distance(unit_points[units], min(knn, unit_points.shape[1] - 1), backend=backend)
    return merge_equal_points(unit_points, resolution, kth)
