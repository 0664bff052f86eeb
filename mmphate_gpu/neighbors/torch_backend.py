"""Exact neighbours by blocks of distances and a partial sort; runs wherever torch does."""

from __future__ import annotations

import torch

from ..ops.chunks import pair_chunks
from ..ops.distances import distances_by_difference


def knn(points: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:  # (B, n, p) -> 2 x (B, n, k)
    """See `kneighbors`. O(B n^2 p) time, a few chunks of memory. Deterministic."""
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
