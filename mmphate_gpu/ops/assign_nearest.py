"""The nearest of many centres to every point, by products."""

from __future__ import annotations

import torch

from .chunks import row_chunks
from .launch.twins import TRITON, twins


@twins("(Tensor points, Tensor centers) -> (Tensor, Tensor)", cuda=TRITON)
def assign_nearest(
    points: torch.Tensor,  # (N, D) or (B, N, D), finite
    centers: torch.Tensor,  # (k, D) or (B, k, D), k >= 1, finite
) -> tuple[torch.Tensor, torch.Tensor]:  # (..., N) int64, (..., N)
    """Label of the nearest centre, set by set, and the squared distance to it.

    |x|^2 - 2 x.c + |c|^2 in the dtype of ``points``: centred points lose least. O(B N k D) time; chunks of memory, but
    in the twins the products never leave the registers (on CUDA those of float32 points). Deterministic.
    """
    labels = torch.empty(points.shape[:-1], dtype=torch.int64, device=points.device)
    squared = torch.empty(points.shape[:-1], dtype=points.dtype, device=points.device)
    product = torch.addmm if points.ndim == 2 else torch.baddbmm
    center_norms = centers.square().sum(-1)[..., None, :]
    for rows in row_chunks(points.shape[-2], center_norms.numel()):
        block = points[..., rows, :]
        least, labels[..., rows] = product(center_norms, block, centers.mT, alpha=-2).min(-1)
        squared[..., rows] = (least + block.square().sum(-1)).clamp_min(0)
    return labels, squared
