"""Classical MDS: the start of the metric one."""

from __future__ import annotations

import torch

from ..linalg.top_eigenpairs import top_eigenpairs


def classic(
    distances: torch.Tensor,  # (L, L)
    n_components: int,
    *,
    generator: torch.Generator | None = None,
) -> torch.Tensor:  # (L, n_components) float64
    """Coordinates from the leading eigenpairs of -1/2 J D^2 J (Torgerson 1952).

    Axes by falling eigenvalue, the largest entry of each positive; an eigenvalue below 0 gives an axis of zeros. Block
    Krylov: about eight products, O(L^2) time each. Source: Borg & Groenen, "Modern Multidimensional Scaling", 2005.
    """
    squared = distances.double().square()
    row_means = squared.mean(1)
    centered = squared.sub_(row_means[:, None]).sub_(row_means).add_(row_means.mean()).mul_(-0.5)
    values, vectors = top_eigenpairs(
        # Symmetric: from the left, with the few rows contiguous, the product takes half of the time.
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
