"""Exact neighbors by k-d trees of SciPy on the CPU, a tree for each set."""

from __future__ import annotations

import numpy as np
import torch

from .keops_backend import drop_self


def knn(points: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:  # (B, n, p) -> 2 x (B, n, k)
    """See `kneighbors`. O(B n log n) time for paths and few features, O(B n^2 p) for noise; O(B n (k + p)) memory."""
    from scipy.spatial import cKDTree

    shape = (*points.shape[:2], k + 1)
    distances, indices = np.empty(shape), np.empty(shape, np.int64)
    for i, point_set in enumerate(points.cpu().double().numpy()):
        near = cKDTree(point_set, balanced_tree=False).query(point_set, k + 1, workers=torch.get_num_threads())
        distances[i], indices[i] = near
    return drop_self(torch.from_numpy(distances).to(points), torch.from_numpy(indices).to(points.device))
