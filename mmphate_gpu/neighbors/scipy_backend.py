"""Exact neighbors by k-d trees of SciPy on the CPU, a tree for each set."""

from __future__ import annotations

import numpy as np
import torch

from ..errors import InputError
from .keops_backend import drop_self


def knn(points: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:  # (B, n, p) -> 2 x (B, n, k)
    """See `kneighbors`. O(B n log n) time for paths and few features, O(B n^2 p) for noise; O(B n (k + p)) memory."""
    from scipy.spatial import cKDTree

    shape = (*points.shape[:2], k + 1)
    distances, indices = np.empty(shape), np.empty(shape, np.int64)
    for i, point_set in enumerate(points.detach().cpu().double()):
        if not bool((4 * point_set.square().sum(-1)).isfinite().all()):  # the tree would leave neighbors out
            raise InputError(f"points[{i}] has a distance that is not finite; accepted: finite numbers up to 1e+150")
        tree = cKDTree(point_set.numpy(), balanced_tree=False)
        distances[i], indices[i] = tree.query(tree.data, k + 1, workers=torch.get_num_threads())
    return drop_self(torch.from_numpy(distances).to(points), torch.from_numpy(indices).to(points.device))
