"""A high power of a symmetric matrix from its leading eigenpairs."""

from __future__ import annotations

import torch

from .block_krylov import BlockKrylov, combine
from .random import random_signs, seeded_generator
from .symmetric_power import power_chain
from .symmetric_product import symmetric_product

# Eigenvalues whose t-th power is smaller are left out, and so are smaller entries of the power.
NOISE = 1e-16
# Columns of a block. Blocks of 32 need half the basis that blocks of 100 need, and a product with 32 columns is still
# bound by reading the matrix.
BLOCK = 32
# Share of the rows that the basis may take: beyond it, products of the whole matrix cost as much.
LARGEST_SHARE = 0.25
# Convergence is judged each time this many columns have been added: the eigenpairs of the projection cost more than a
# block.
JUDGED_EVERY = 128
# If leading eigenvectors make up more than this share of the basis, it will not converge before it is full. Where it
# converged the share began at 0.50 to 0.75 and fell; it was 0.79 at once on an operator with t = 14, where 0.6 that did
# not fall (t = 34) took all of the basis to show.
HOPELESS_SHARE = 0.77
# Error of the power, as a norm, that residuals may cause. Entries are far below it: see docs/decisions.md.
CONVERGED = 1e-12
# The largest trace, in multiples of `NOISE`, that random probes may find outside the eigenpairs; landmark operators had
# at most 40.
LARGEST_REST = 1000
N_PROBES = 8
# A power of fewer products of whole matrices is cheaper by these products.
FEWEST_PRODUCTS = 4


def low_rank_power(matrix: torch.Tensor, t: int) -> torch.Tensor | None:  # (n, n) float64 -> (n, n)
    """``matrix^t`` for a symmetric matrix of norm 1 without negative entries; None if it takes too many eigenpairs.

    Entries are right to about 1e-14 (of a largest one of at most 1), and those below 1e-16 are 0. `symmetric_power` is
    right to a share of every entry, at about four times the cost.

    Notes
    -----
    Block Krylov runs until the residual of every leading eigenpair, times the (t - 1)-th power of its eigenvalue, is
    small; so small eigenvalues need few digits. The space may miss directions, such as more copies of one eigenvalue
    than a block has columns. Random probes of the rest find them. O(n^2 (m + 4 t)) time for a basis of m columns, at
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
    # Leave room for one more block than the basis takes: residuals come from it, and a cut-off block would hide some.
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
    """``matrix @ block`` for a symmetric matrix, transposed: libraries multiply few rows in a third of the time."""
    return (block.T.contiguous() @ matrix).T


def _rest(matrix: torch.Tensor, t: int, vectors: torch.Tensor) -> float:
    """An estimate of the trace of |matrix|^t without the invariant subspace of ``vectors`` (n, k).

    For random signs z, projected out of the subspace, the squared length of matrix^(t/2) z has this trace as its mean.
    """
    probes = random_signs(len(matrix), N_PROBES, generator=seeded_generator(1), device=matrix.device)
    probes -= vectors @ (vectors.T @ probes)
    for _ in range(t // 2):
        probes = _product(matrix, probes)
    return float(probes.square().sum() / N_PROBES)
