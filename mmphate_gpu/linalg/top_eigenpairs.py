"""The dominant eigenpairs of a symmetric operator from a handful of block products."""

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
    """Randomised block Krylov approximation of the ``k`` leading eigenpairs of a symmetric operator.

    Builds an orthonormal basis of [X, AX, A^2 X, ...] from random signs X by ``n_passes`` products with blocks of
    ``k + 10`` columns (or of ``block`` columns; fewer passes where n is small), then solves the projected problem
    (Rayleigh-Ritz).

    Parameters
    ----------
    matmul : callable
        (n, c) -> (n, c), the product with the operator; called with ``dtype``, its result is overwritten.
    order : {"magnitude", "algebraic"}
        Largest absolute value first, or largest value first.
    dtype : torch.float32 or torch.float64
        The dtype of the basis. Inner products of its columns are in float64 either way.

    Returns
    -------
    values : (k,) float64
    vectors : (n, k) ``dtype``, orthonormal to its rounding; the largest entry of each column is positive.

    Notes
    -----
    O(n_passes) products, O(n (n_passes b)^2) time and O(n n_passes b) memory for blocks of b columns. Deterministic for
    one generator state. An operator that is not exactly symmetric changes the values; products in half precision are
    symmetric to 3e-4 only. Source: Musco & Musco, "Randomized block Krylov methods", NeurIPS 2015.
    """
    check_choice("order", order, ("magnitude", "algebraic"))
    k = min(k, n)
    width = min(n, k + 10 if block is None else block)
    n_blocks = max(1, min(n_passes, -(-n // width)))
    if width == n:  # a small square of random signs may be singular
        start = torch.eye(n, dtype=dtype, device=device)
    else:
        start = random_signs(n, width, generator=generator, dtype=dtype, device=device)
    krylov = BlockKrylov(matmul, start, width * n_blocks)
    del start
    for _ in range(n_blocks - 1):
        krylov.multiply()
        if not krylov.extend():  # the subspace is invariant: nothing is left to find in it
            break
    else:
        krylov.multiply()
    values, vectors = krylov.ritz()
    ranking = values.abs() if order == "magnitude" else values
    top = torch.argsort(ranking, descending=True, stable=True)[:k]
    return values[top], fix_signs(combine(krylov.basis, vectors[:, top]))


def fix_signs(vectors: torch.Tensor) -> torch.Tensor:  # (n, k)
    """Flip columns so that the entry of largest magnitude is positive: eigenvectors have no sign of their own."""
    if vectors.shape[0] == 0:
        return vectors
    peak = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return vectors.mul_(torch.where(peak < 0, -1, 1))
