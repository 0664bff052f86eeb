"""Landmark clusters from the leading singular vectors of the diffusion affinity."""

from __future__ import annotations

import torch

from ..operators import AffinityOperator
from ..ops.kmeans import kmeans
from ..ops.top_eigenpairs import top_eigenpairs


def diffusion_features(
    operator: AffinityOperator, degrees: torch.Tensor, n_svd: int, generator: torch.Generator | None
) -> torch.Tensor:  # (N, n_svd)
    """Rows of P V, V the first ``n_svd`` right singular vectors of A = D^-1/2 K D^-1/2 (symmetric: eigenvectors).

    About six products with n_svd + 10 columns, in float64: where the graph nearly falls apart more than ``n_svd``
    eigenvalues lie next to 1, and float32 rounding, another in every form of the operator, would pick among them.
    """
    root = degrees.rsqrt()[:, None]

    def diff_aff(block: torch.Tensor) -> torch.Tensor:
        return operator.product(root * block).mul_(root)

    _, vectors = top_eigenpairs(diff_aff, operator.shape[0], n_svd, device=operator.device, generator=generator)
    return operator.product(vectors).div_(degrees[:, None])


def spectral_clusters(
    operator: AffinityOperator,
    degrees: torch.Tensor,
    n_landmark: int,
    *,
    n_svd: int = 100,
    generator: torch.Generator | None = None,
) -> torch.Tensor:  # (N,) int64
    """k-means clusters of the diffusion features; at most ``n_landmark``, none empty."""
    features = diffusion_features(operator, degrees, n_svd, generator)
    # Clusters are no finer than float32, and its products take half the time.
    return kmeans(features.float(), n_landmark, generator=generator)
