"""Classical MDS, which is also the start of metric MDS."""

from __future__ import annotations

import torch

from ..linalg.top_eigenpairs import top_eigenpairs


def classic(
    distances: torch.Tensor,  # (L, L)
    n_components: int,
    *,
    generator: torch.Generator | None = None,
) -> torch.Tensor:  # (L, n_components) float64
    """Coordinates from the leading eigenpairs of -1/2 J D^2 J, where J = 1 - 1/L centers rows or columns.

    The axes are in the order of falling eigenvalues, and the largest entry of each is positive. An eigenvalue below 0
    gives an axis of zeros. The eigenpairs come from a block Krylov method with about eight products of O(L^2) time.
    Source: Torgerson, "Multidimensional scaling: I. Theory and method", 1952; Borg & Groenen, "Modern
    Multidimensional Scaling", 2005.
    """
    squared = distances.double().square()
    row_means = squared.mean(1)
    centered = squared.sub_(row_means[:, None]).sub_(row_means).add_(row_means.mean()).mul_(-0.5)
    values, vectors = top_eigenpairs(
        # The matrix is symmetric. A product from the left with few contiguous rows takes half of the time.
        lambda block: (block.T.contiguous() @ centered).T,
        centered.shape[0],
        n_components,
        n_passes=8,
        order="algebraic",
        device=centered.device,
        generator=generator,
    )
    coordinates = vectors * values.clamp_min(0).sqrt()
    missing = n_components - coordinates.shape[1]
    return torch.nn.functional.pad(coordinates, (0, missing)) if missing else coordinates
