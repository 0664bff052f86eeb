"""A high power of a symmetric matrix from its leading eigenpairs."""

from __future__ import annotations

import torch

from .block_krylov import BlockKrylov, combine
from .random import random_signs, seeded_generator
from .symmetric_power import power_chain
from .symmetric_product import symmetric_product

# Eigenvalues whose t-th power is smaller are left out, and so are smaller entries of the power.
NOISE = 1e-16
# Columns of a block. The basis that 32 need is half of what 100 need, and a product with 32 is still bound by reading
# the matrix.
BLOCK = 32
# Share of the rows that the basis may take: beyond it, products of the whole matrix cost as much.
LARGEST_SHARE = 0.25
# Columns after which the convergence is judged: the eigenpairs of the projection cost more than a block.
JUDGED_EVERY = 128
# Share of the basis in leading eigenvectors from which it will not converge before it is full; 0.3 to 0.55 on operators
# where it does.
HOPELESS_SHARE = 0.75
# Error of the power, as a norm, that residuals may cause. Entries are far below it: see docs/decisions.md.
CONVERGED = 1e-12
# Trace of what is left out, as random probes see it, in multiples of `NOISE`; 40 was the most on landmark operators.
LARGEST_REST = 1000
N_PROBES = 8
# Products of whole matrices that a power must take before this way can win.
FEWEST_PRODUCTS = 4


def low_rank_power(matrix: torch.Tensor, t: int) -> torch.Tensor | None:  # (n, n) float64 -> (n, n)
    """``matrix^t`` for a symmetric matrix of norm 1 without negative entries; None where few eigenpairs do not give it.

    Entries are right to about 1e-14 (of a largest one of at most 1), and those below 1e-16 are 0. `symmetric_power` is
    right to a share of every entry, at about four times the cost.

    Notes
    -----
    Leading eigenpairs by block Krylov until the residual of each, times the (t - 1)-th power of its value, is small:
    small eigenvalues need few digits. Directions that the space has missed, as more copies of one eigenvalue than a
    block has columns, show in random probes of what is left. O(n^2 (m + 4 t)) time for a basis of m columns, at most
    n / 4; memory of the result, the basis and the leading eigenvectors. Deterministic: the seed is fixed.
    """
    if len(power_chain(t)) < FEWEST_PRODUCTS:
        return None
    leading = _leading_pairs(matrix, t)
    if leading is None:
        return None
    values, vectors = leading
    power = symmetric_product(vectors * values.pow(t), vectors.T)
    return power.masked_fill_(power < NOISE, 0)


def _leading_pairs(matrix: torch.Tensor, t: int) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Eigenvalues (k,) and eigenvectors (n, k) that make up the ``t``-th power, or None."""
    n = len(matrix)
    start = random_signs(n, min(BLOCK, n), generator=seeded_generator(0), device=matrix.device)
    most = int(LARGEST_SHARE * n)
    # Room for one block more than the basis takes: residuals are its products, and a block that is cut off hides some.
    krylov = BlockKrylov(lambda block: _product(matrix, block), start, most + BLOCK)
    while krylov.n_columns + BLOCK <= most:
        krylov.multiply()
        goes_on = krylov.extend()
        if goes_on and krylov.n_columns % JUDGED_EVERY:
            continue
        values, weights = krylov.ritz()
        leads = values.abs().pow(t) > NOISE
        values, weights = values[leads], weights[:, leads]
        residuals = (krylov.coupling @ weights[-krylov.coupling.shape[1] :]).norm(dim=0)
        error = float((residuals * values.abs().pow(t - 1)).norm())
        if len(values) and error <= CONVERGED:
            vectors = combine(krylov.basis, weights)
            if _rest(matrix, t, vectors) <= LARGEST_REST * NOISE:
                return values, vectors
        if not goes_on or len(values) > HOPELESS_SHARE * krylov.n_columns:
            break
    return None


def _product(matrix: torch.Tensor, block: torch.Tensor) -> torch.Tensor:  # (n, n), (n, c) -> (n, c)
    """``matrix @ block`` for a symmetric matrix: few columns as rows take libraries a third of the time."""
    return (block.T.contiguous() @ matrix).T


def _rest(matrix: torch.Tensor, t: int, vectors: torch.Tensor) -> float:
    """An estimate of the trace of |matrix|^t without the invariant subspace of ``vectors`` (n, k).

    For random signs z without their share in the subspace the squared length of matrix^(t/2) z has that mean.
    """
    probes = random_signs(len(matrix), N_PROBES, generator=seeded_generator(1), device=matrix.device)
    probes -= vectors @ (vectors.T @ probes)
    for _ in range(t // 2):
        probes = _product(matrix, probes)
    return float(probes.square().sum() / N_PROBES)
