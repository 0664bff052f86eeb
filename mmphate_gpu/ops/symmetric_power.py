"""High powers of a symmetric matrix from its few eigenvalues that survive them."""

from __future__ import annotations

import torch

from .top_eigenpairs import top_eigenpairs

# Up to this size repeated squaring costs next to nothing.
DENSE_UP_TO = 1000
# The probes take t thin products; beyond this repeated squaring, which knows no long powers, is the cheaper way.
PROBED_UP_TO = 300
# Columns of a block and passes: 14 powers of 64 columns converge what a diffusion over a connected graph leaves.
BLOCK, PASSES = 64, 14
# Residual on random probes of norm 1. It means about 1e-16 per entry at 4000 rows: the rounding of float64 itself.
TOLERANCE = 1e-14


def symmetric_power(matrix: torch.Tensor, t: int) -> torch.Tensor:  # (n, n) float64 -> (n, n)
    """``matrix^t`` for a symmetric matrix of spectral radius at most about 1.

    Above 1000 rows as a low-rank product V diag(w^t) V^T by block Krylov, accepted only if it reproduces ``matrix^t``
    on random probes (t thin products) to 1e-14; otherwise by repeated squaring. O(n^2) per column instead of O(n^3
    log t). Deterministic.
    """
    if matrix.shape[0] > DENSE_UP_TO and t <= PROBED_UP_TO:
        probes, image = _probe(matrix, t)
        values, vectors = _leading(matrix)
        powers = values**t
        error = (vectors @ (powers[:, None] * (vectors.T @ probes)) - image).norm(dim=0).max()
        if float(error) < TOLERANCE:
            return (vectors * powers) @ vectors.T
    return torch.linalg.matrix_power(matrix, t)


def _leading(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The better half of the Ritz pairs of a block Krylov space; the others have not converged."""
    return top_eigenpairs(
        lambda block: matrix @ block,
        matrix.shape[0],
        BLOCK * PASSES // 2,
        block=BLOCK,
        n_passes=PASSES,
        device=matrix.device,
        generator=torch.Generator().manual_seed(0),
    )


def _probe(matrix: torch.Tensor, t: int) -> tuple[torch.Tensor, torch.Tensor]:  # (n, 4) each
    signs = torch.randint(0, 2, (matrix.shape[0], 4), generator=torch.Generator().manual_seed(1))
    probes = (2.0 * signs.to(matrix) - 1) / matrix.shape[0] ** 0.5
    image = probes
    for _ in range(t):
        image = matrix @ image
    return probes, image
