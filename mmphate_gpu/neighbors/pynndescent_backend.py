"""Approximate neighbours by NN-descent on the CPU, one index per set."""

from __future__ import annotations

import numpy as np
import torch

from ..runtime.optional import require
from . import torch_backend

# Below this NN-descent has nothing to gain over the exact search, and needs more points than neighbours anyway.
MIN_POINTS = 256


def knn(points: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:  # (B, n, p) -> 2 x (B, n, k)
    """See `kneighbors`. About O(B n^1.1) time. Approximate; one seed, so the same result on every run.

    NN-descent works in float32; the distances to the neighbours it names are computed anew in float64.
    """
    if points.shape[1] < max(MIN_POINTS, 2 * (k + 1)):
        return torch_backend.knn(points, k)
    found = np.stack([_knn_of_set(one, k) for one in points.cpu().numpy()])
    indices = torch.from_numpy(found).to(points.device)
    return _sorted_by_distance(points, indices)


def _knn_of_set(points: np.ndarray, k: int) -> np.ndarray:  # (n, p) -> (n, k)
    pynndescent = require("pynndescent", extra="pynndescent", purpose='knn_backend="pynndescent"')
    index = pynndescent.NNDescent(points.astype(np.float32), n_neighbors=k + 1, random_state=0)
    found = index.neighbor_graph[0].astype(np.int64)
    own = np.arange(len(points))[:, None]
    found = np.where(found < 0, (own + 1) % len(points), found)  # lists it could not fill, on many duplicates
    # Stable: the point itself goes to the end of its row, then the row is cut to k.
    order = np.argsort(found == own, axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1)[:, :k]


def _sorted_by_distance(points: torch.Tensor, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    distances = torch.empty(indices.shape, dtype=points.dtype, device=points.device)
    for one in range(len(points)):
        for column in range(indices.shape[2]):
            distances[one, :, column] = (points[one][indices[one, :, column]] - points[one]).norm(dim=-1)
    distances, order = torch.sort(distances, dim=-1, stable=True)
    return distances, indices.gather(-1, order)
