"""Nearest other points within each set of a stack, exactly."""

from __future__ import annotations

import torch

from .chunks import pair_chunks
from .distances import distances_by_difference
from .launch.twins import twins


def nearest_others(points: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:  # (B, n, p) -> 2 x (B, n, k)
    """Distances (ascending) and indices of the ``k`` nearest other points, by blocks of distances and a partial sort.

    O(B n^2 p) time, a few chunks of memory. Deterministic.
    """
    n_sets, n_points, _ = points.shape
    distances = points.new_empty(n_sets, n_points, k)
    indices = torch.empty(n_sets, n_points, k, dtype=torch.int64, device=points.device)
    for chunk in pair_chunks(n_sets, n_points):
        block = distances_by_difference(points[chunk.sets, chunk.rows], points[chunk.sets])
        rows = torch.arange(chunk.rows.start, chunk.rows.stop, device=points.device)
        block[:, rows - chunk.rows.start, rows] = -1  # the point itself comes first, whatever its duplicates
        near, where = torch.topk(block, k + 1, dim=-1, largest=False, sorted=True)
        distances[chunk.sets, chunk.rows] = near[..., 1:]
        indices[chunk.sets, chunk.rows] = where[..., 1:]
    return distances, indices


@twins("(Tensor points, int k) -> Tensor")
def kth_neighbor_distance(points: torch.Tensor, k: int) -> torch.Tensor:  # (B, n, p) float64 -> (B, n) float64
    """Distance of every point to its ``k``-th nearest other point, 1 <= k < n."""
    return nearest_others(points, k)[0][..., -1].contiguous()


@twins("(Tensor points, int k) -> Tensor")
def median_kth_neighbor_distance(points: torch.Tensor, k: int) -> torch.Tensor:  # (B, n, p) float64 -> (B,) float64
    """Median of that distance over each set; the mean of the middle two where n is even.

    The twins find it by counting within a bracket, without the distances of all points; the result is the same.
    """
    return median(nearest_others(points, k)[0][..., -1])


def median(values: torch.Tensor) -> torch.Tensor:  # (B, n) -> (B,)
    """Median over the last axis; the mean of the middle two where n is even (`torch.median` takes the lower)."""
    ordered = values.sort(dim=-1).values
    n = values.shape[-1]
    return (ordered[..., (n - 1) // 2] + ordered[..., n // 2]) / 2
