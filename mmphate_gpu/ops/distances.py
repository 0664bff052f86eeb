"""Distances between points by differences of coordinates."""

from __future__ import annotations

import torch

from .chunks import Chunk


def distances_by_difference(
    x: torch.Tensor, y: torch.Tensor
) -> torch.Tensor:  # (..., n, p), (..., k, p) -> (..., n, k)
    """Euclidean distances, each from the differences of the coordinates of its two points.

    Distances by a matrix product lose every digit of a small distance, and once training has converged, distances are
    small. Symmetric to the last bit. O(n k p) time, O(n k) memory.
    """
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def chunk_distances(
    points: torch.Tensor, chunk: Chunk, *, to_itself: float | None = None
) -> torch.Tensor:  # (B, n, p) -> (sets, rows, n)
    """Distances of the points of ``chunk`` to all points of their set; ``to_itself`` replaces those of 0 to itself."""
    distances = distances_by_difference(points[chunk.sets, chunk.rows], points[chunk.sets])
    if to_itself is not None:
        rows = torch.arange(chunk.rows.start, chunk.rows.stop, device=points.device)
        distances[:, rows - chunk.rows.start, rows] = to_itself
    return distances
