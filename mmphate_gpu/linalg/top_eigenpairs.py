"""The leading eigenpairs of a symmetric operator from a few block products."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..errors import check_choice
from ..runtime.isolation import isolated
from .block_krylov import BlockKrylov, combine
from .random import random_signs


@isolated()
def top_eigenpairs(
    matmul: Callable[[torch.Tensor], torch.Tensor],
    n: int,
    k: int,
    *,
    n_passes: int = 5,
    block: int | None = None,
    order: str = "magnitude",
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    generator: torch.Generator | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``k`` leading eigenpairs of a symmetric operator, approximately, by a randomized block Krylov method.

    It builds an orthonormal basis of [X, AX, A^2 X, ...] from random signs X, and solves the projected problem
    (Rayleigh-Ritz). There are ``n_passes`` products, fewer if n is small, with blocks of ``block`` columns, by default
    ``k + 10``.

    Parameters
    ----------
    matmul : callable
        (n, b) -> (n, b), the product with the operator, for blocks of ``dtype``; its result is overwritten.
    order : {"magnitude", "algebraic"}
        Largest absolute value first, or largest value first.
    dtype : torch.float32 or torch.float64
        The dtype of the basis. Inner products of its columns are always summed in float64.

    Returns
    -------
    values : (k,) float64
    vectors : (n, k) ``dtype``, orthonormal up to its rounding; the largest entry of each column is positive.

    Notes
    -----
    O(n_passes) products, O(n (n_passes b)^2) time and O(n n_passes b) memory for blocks of b columns. Deterministic for
    a generator state. An operator that is not exactly symmetric, such as products in half precision (to 3e-4), changes
    the values. Source: Musco & Musco, "Randomized block Krylov methods", NeurIPS 2015.
    """
    check_choice("order", order, ("magnitude", "algebraic"))
    k = min(k, n)
    width = min(n, k + 10 if block is None else block)
    n_blocks = max(1, min(n_passes, -(-n // width)))
    if width == n:  # a small square matrix of random signs may be singular
        start = torch.eye(n, dtype=dtype, device=device)
    else:
        start = random_signs(n, width, generator=generator, dtype=dtype, device=device)
    krylov = BlockKrylov(matmul, start, width * n_blocks)
    del start
    for _ in range(n_blocks - 1):
        krylov.multiply()
        if not krylov.extend():  # the subspace is invariant
            break
    else:
        krylov.multiply()
    values, vectors = krylov.ritz()
    ranking = values.abs() if order == "magnitude" else values
    top = torch.argsort(ranking, descending=True, stable=True)[:k]
    return values[top], fix_signs(combine(krylov.basis, vectors[:, top]))


def fix_signs(vectors: torch.Tensor) -> torch.Tensor:  # (n, k)
    """Flip columns so that the entry of largest magnitude is positive: the sign of an eigenvector is arbitrary."""
    if vectors.shape[0] == 0:
        return vectors
    peak = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return vectors.mul_(torch.where(peak < 0, -1, 1))
