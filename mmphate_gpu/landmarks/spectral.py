"""Landmark clusters from the leading singular vectors of the diffusion affinity."""

from __future__ import annotations

import torch

from ..linalg.kmeans import kmeans
from ..linalg.top_eigenpairs import top_eigenpairs
from ..operators import AffinityOperator


def diffusion_features(
    operator: AffinityOperator, degrees: torch.Tensor, n_svd: int, generator: torch.Generator | None
) -> torch.Tensor:  # (N, n_svd) float32
    """Rows of diff_op V, where V has the first ``n_svd`` right singular vectors of diff_aff.

    diff_aff is symmetric, so its eigenvectors are its singular vectors. They take about six products with n_svd + 10
    columns. Blocks and features are in float32, which halves memory and time; the subspace differs from that of float64
    by an angle of 1e-4 (docs/decisions.md).
    """
    root = degrees.rsqrt().float()[:, None]

    def diff_aff(block: torch.Tensor) -> torch.Tensor:
        return operator.product(root * block).mul_(root)

    _, vectors = top_eigenpairs(
        diff_aff, operator.shape[0], n_svd, dtype=torch.float32, device=operator.device, generator=generator
    )
    return operator.product(vectors).div_(degrees.float()[:, None])


def spectral_clusters(
    operator: AffinityOperator,
    degrees: torch.Tensor,
    n_landmark: int,
    *,
    n_svd: int = 100,
    generator: torch.Generator | None = None,
) -> torch.Tensor:  # (N,) int64
    """Clusters of nodes, by k-means of the diffusion features: at most ``n_landmark``, none empty."""
    return kmeans(diffusion_features(operator, degrees, n_svd, generator), n_landmark, generator=generator)
