"""Approximate neighbors by NN-descent on the CPU, one index per set."""

from __future__ import annotations

import numpy as np
import torch

from ..runtime.optional import require
from . import torch_backend

# With fewer points NN-descent gains nothing over the exact search.
MIN_POINTS = 256


def knn(points: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:  # (B, n, p) -> 2 x (B, n, k)
    """See `kneighbors`. About O(B n^1.1) time. Approximate; the seed is fixed, so every run has the same result.

    NN-descent computes in float32. The distances to the neighbors that it names are computed again in float64.
    """
    if points.shape[1] < max(MIN_POINTS, 2 * (k + 1)):
        return torch_backend.knn(points, k)
    indices = np.stack([_knn_of_set(point_set, k) for point_set in points.cpu().numpy()])
    return _sorted_by_distance(points, torch.from_numpy(indices).to(points.device))


def _knn_of_set(points: np.ndarray, k: int) -> np.ndarray:  # (n, p) -> (n, k)
    pynndescent = require("pynndescent", extra="pynndescent", purpose='knn_backend="pynndescent"')
    index = pynndescent.NNDescent(points.astype(np.float32), n_neighbors=k + 1, random_state=0)
    indices = index.neighbor_graph[0].astype(np.int64)
    rows = np.arange(len(points))[:, None]
    indices = np.where(indices < 0, (rows + 1) % len(points), indices)  # lists left unfilled, with many duplicates
    # A stable sort puts the point itself at the end of its row; the row is then cut to k.
    order = np.argsort(indices == rows, axis=1, kind="stable")
    return np.take_along_axis(indices, order, axis=1)[:, :k]


def _sorted_by_distance(points: torch.Tensor, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    distances = torch.empty(indices.shape, dtype=points.dtype, device=points.device)
    for i, point_set in enumerate(points):
        for column in range(indices.shape[2]):
            distances[i, :, column] = (point_set[indices[i, :, column]] - point_set).norm(dim=-1)
    distances, order = torch.sort(distances, dim=-1, stable=True)
    return distances, indices.gather(-1, order)
