"""Exact neighbors by KeOps reductions: no distance is stored, and all sets are one batch."""

from __future__ import annotations

import torch

from ..runtime.keops import keops


def knn(points: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:  # (B, n, p) -> 2 x (B, n, k)
    """See `kneighbors`. O(B n^2 p) time, O(B n k) memory. KeOps compiles a reduction for every pair (p, k)."""
    points = points.contiguous()
    with keops(purpose='knn_backend="keops"') as module:
        x = module.LazyTensor(points[:, :, None, :])
        y = module.LazyTensor(points[:, None, :, :])
        squared, indices = ((x - y) ** 2).sum(-1).Kmin_argKmin(K=k + 1, dim=2)
    return drop_self(squared.clamp_min(0).sqrt(), indices.long())


def drop_self(distances: torch.Tensor, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """From the k + 1 nearest points, the point itself included, the k nearest others; (B, n, k + 1) -> (B, n, k).

    A point with more than k duplicates may be missing in its own list. All distances in the list are 0 then, and the
    last one is dropped.
    """
    drop = indices == torch.arange(indices.shape[1], device=indices.device)[:, None]
    drop[..., -1] |= ~drop.any(-1)
    shape = (*indices.shape[:-1], indices.shape[-1] - 1)
    return distances[~drop].view(shape), indices[~drop].view(shape)
