"""Exact neighbours by KeOps reductions: no distance is stored, batched over the sets."""

from __future__ import annotations

import torch

from ..runtime.keops import keops


def knn(points: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:  # (B, n, p) -> 2 x (B, n, k)
    """See `kneighbors`. O(B n^2 p) time, O(B n k) memory. KeOps compiles the reduction at its first use for a (p,
    k)."""
    from . import drop_self

    points = points.contiguous()
    with keops(purpose='knn_backend="keops"') as module:
        x = module.LazyTensor(points[:, :, None, :])
        y = module.LazyTensor(points[:, None, :, :])
        squared, indices = ((x - y) ** 2).sum(-1).Kmin_argKmin(K=k + 1, dim=2)
    return drop_self(squared.clamp_min(0).sqrt(), indices.long())
