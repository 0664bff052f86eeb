"""The nearest of many centers to every point, by matrix products."""

from __future__ import annotations

import torch

from .chunks import row_chunks
from .launch import native
from .launch.kernel import blocks_of
from .launch.twins import PORTABLE, cpp_twin, triton_twin, twins


@twins("(Tensor points, Tensor centers) -> (Tensor, Tensor)")
def assign_nearest(
    points: torch.Tensor,  # (n, p) or (B, n, p), finite
    centers: torch.Tensor,  # (k, p) or (B, k, p), k >= 1, finite
) -> tuple[torch.Tensor, torch.Tensor]:  # (..., n) int64, (..., n)
    """The label of the nearest center of the same set, and the squared distance to it.

    The distance is |x|^2 - 2 x.c + |c|^2 in the dtype of ``points``, which loses fewest digits for centered points.
    O(B n k p) time. The portable version needs chunks of memory; the twins keep the products in registers, on CUDA
    those of float32 points. Deterministic.
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


@cpp_twin(assign_nearest)
def assign_nearest_cpp(points, centers):
    points, centers = points.contiguous(), centers.contiguous()
    n, n_features = points.shape[-2:]
    labels = points.new_empty(points.shape[:-1], dtype=torch.int64)
    squared = points.new_empty(points.shape[:-1])
    sizes = (points.shape[:-2].numel(), n, centers.shape[-2], n_features)
    native.call("assign_nearest", "fflf", points, points.dtype, centers, *sizes, labels, squared)
    return labels, squared


@triton_twin(assign_nearest, rehearse=lambda device: [(torch.zeros(2, 100, dtype=torch.float32, device=device),) * 2])
def assign_nearest_triton(points, centers):
    if points.dtype != torch.float32:  # not every card has tensor cores for float64
        return PORTABLE["assign_nearest"](points, centers)
    from .triton.nearest import BLOCK, OPTIONS, assign_nearest_kernel

    points, centers = points.contiguous(), centers.contiguous()
    n, n_features = points.shape[-2:]
    n_centers, n_sets = centers.shape[-2], points.shape[:-2].numel()
    labels = torch.empty(points.shape[:-1], dtype=torch.int64, device=points.device)
    least = torch.empty(points.shape[:-1], dtype=points.dtype, device=points.device)
    grid = blocks_of(n, BLOCK["POINTS"]), n_sets
    norms = centers.square().sum(-1)
    with torch.cuda.device_of(points):
        assign_nearest_kernel[grid](
            points, centers, norms, labels, least, n, n_centers, D=n_features, **BLOCK, **OPTIONS
        )
    return labels, least.add_(points.square().sum(-1)).clamp_min_(0)
