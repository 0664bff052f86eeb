"""A high power of a symmetric matrix from its leading eigenpairs."""

from __future__ import annotations

import torch

from .block_krylov import BlockKrylov, combine
from .random import random_signs, seeded_generator
from .symmetric_power import power_chain
from .symmetric_product import symmetric_product

# Eigenvalues whose t-th power is smaller are left out; entries of the power that are smaller become 0.
NOISE = 1e-16
# Columns of a block. Blocks of 32 need half the basis that blocks of 100 need, and the time of a product with 32
# columns is still that of reading the matrix.
BLOCK = 32
# The largest basis, as a share of n: with a larger one, powers of the whole matrix cost no more.
LARGEST_SHARE = 0.25
# Convergence is tested each time this many columns have been added: the eigenpairs of the projection cost more than a
# block.
TESTED_EVERY = 128
# If there are more leading eigenvectors than this share of the basis, it will not converge before it is full
# (docs/decisions.md, "When a low-rank power gives up").
HOPELESS_SHARE = 0.77
# The error of the power, as a norm, that residuals may cause. Errors of entries are far smaller: see docs/decisions.md.
CONVERGED = 1e-12
# The largest trace outside the eigenpairs, in multiples of `NOISE`, as random probes estimate it; landmark operators
# had at most 40.
LARGEST_REST = 1000
N_PROBES = 8
# A power that takes fewer products of whole matrices is cheaper by these products.
FEWEST_PRODUCTS = 4


def low_rank_power(matrix: torch.Tensor, t: int) -> torch.Tensor | None:  # (n, n) float64 -> (n, n)
    """``matrix^t`` for a symmetric matrix of norm 1 without negative entries; None if it takes too many eigenpairs.

    Entries, which are at most 1, have errors of about 1e-14, and those below 1e-16 become 0. `symmetric_power` has a
    small relative error in every entry, at about four times the cost.

    Notes
    -----
    Block Krylov runs until the residual of every leading eigenpair, times the (t - 1)-th power of its eigenvalue, is
    small; so small eigenvalues need few digits. The space may miss directions, such as more copies of an eigenvalue
    than a block has columns. Random probes of the rest detect them. O(n^2 (m + 4 t)) time for a basis of m columns, at
    most n / 4; memory of the result, the basis and the leading eigenvectors. Deterministic: the seed is fixed.
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
    # Leave room for another block than the basis takes: residuals come from it, and a truncated block would hide some.
    krylov = BlockKrylov(lambda block: _product(matrix, block), start, most + BLOCK)
    while krylov.n_columns + BLOCK <= most:
        krylov.multiply()
        goes_on = krylov.extend()
        if goes_on and krylov.n_columns % TESTED_EVERY:
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


def _product(matrix: torch.Tensor, block: torch.Tensor) -> torch.Tensor:  # (n, n), (n, b) -> (n, b)
    """``matrix @ block`` for a symmetric matrix, transposed: libraries multiply few rows in a third of the time."""
    return (block.T.contiguous() @ matrix).T


def _rest(matrix: torch.Tensor, t: int, vectors: torch.Tensor) -> float:
    """An estimate of the trace of |matrix|^t outside the invariant subspace of ``vectors`` (n, k).

    For random signs z, made orthogonal to the subspace, the squared length of matrix^(t/2) z has this trace as its
    mean.
    """
    probes = random_signs(len(matrix), N_PROBES, generator=seeded_generator(1), device=matrix.device)
    probes -= vectors @ (vectors.T @ probes)
    for _ in range(t // 2):
        probes = _product(matrix, probes)
    return float(probes.square().sum() / N_PROBES)
