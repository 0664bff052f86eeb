"""Exact neighbours by KeOps reductions: no distance is stored, batched over the sets."""

from __future__ import annotations

import torch

from .._optional import require_keops


def knn(points: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:  # (B, n, p) -> 2 x (B, n, k)
    """See `kneighbors`. O(B n^2 p) time, O(B n k) memory. KeOps compiles the reduction at its first use for a (p,
    k)."""
    from . import drop_self

    lazy_tensor = require_keops(purpose='knn_backend="keops"').LazyTensor
    points = points.contiguous()
    x = lazy_tensor(points[:, :, None, :])
    y = lazy_tensor(points[:, None, :, :])
    squared, indices = ((x - y) ** 2).sum(-1).Kmin_argKmin(K=k + 1, dim=2)
    return drop_self(squared.clamp_min(0).sqrt(), indices.long())
