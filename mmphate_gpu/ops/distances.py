"""Distances between points by differences of coordinates."""

from __future__ import annotations

import torch


def distances_by_difference(
    x: torch.Tensor, y: torch.Tensor
) -> torch.Tensor:  # (..., n, p), (..., k, p) -> (..., n, k)
    """Euclidean distances, each from the differences of the coordinates of its two points.

    Distances by a matrix product lose every digit of a small distance, and once training has converged, distances are
    small. Symmetric to the last bit. O(n k p) time, O(n k) memory.
    """
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
