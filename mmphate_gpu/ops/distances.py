"""Distances between points by differences of coordinates."""

from __future__ import annotations

import torch


def distances_by_difference(
    x: torch.Tensor, y: torch.Tensor
) -> torch.Tensor:  # (..., n, p), (..., k, p) -> (..., n, k)
    """Euclidean distances, each from the differences of its two points.

    The matrix-product form loses every digit of a small distance; training that has converged is
    made of small distances. Symmetric to the last bit. O(n k p) time, O(n k) memory.
    """
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
