"""The dominant eigenpairs of a symmetric operator from a handful of block products."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..params import check_choice
from .chunks import CHUNK_ELEMENTS, row_chunks


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

    Builds an orthonormal basis of [X, AX, A^2 X, ...] by ``n_passes`` products with blocks of ``k + 10``
    columns (or of ``block`` columns; fewer passes where n is small), then solves the projected problem (Rayleigh-Ritz).

    Parameters
    ----------
    matmul : callable
        (n, c) -> (n, c), the product with the operator; called with ``dtype``, its result is overwritten.
    order : {"magnitude", "algebraic"}
        Largest absolute value first, or largest value first.

    Returns
    -------
    values : (k,) float64
    vectors : (n, k) ``dtype``, orthonormal; the largest entry of each column is positive.

    Notes
    -----
    O(n_passes) products, O(n (n_passes b)^2) time and O(n n_passes b) memory for blocks of b columns. Deterministic for
    one generator state. What is not symmetric in the operator, as products in half precision are not to 3e-4, goes into
    the values. Source: Musco & Musco, "Randomized block Krylov methods", NeurIPS 2015.
    """
    check_choice("order", order, ("magnitude", "algebraic"))
    k = min(k, n)
    width = min(n, k + 10 if block is None else block)
    n_blocks = max(1, min(n_passes, -(-n // width)))
    # Random numbers are drawn on the CPU, so that one seed gives one start on every device.
    start = torch.randn(n, width, generator=generator, dtype=torch.float64).to(device=device, dtype=dtype)
    basis = torch.empty(n, width * n_blocks, dtype=dtype, device=device)
    small = torch.zeros(basis.shape[1], basis.shape[1], dtype=torch.float64, device=device)
    newest, before, known = orthonormalize(start, None), 0, 0
    del start
    for step in range(n_blocks):
        own = slice(known, known + newest.shape[1])
        basis[:, own] = newest
        known = own.stop
        del newest  # a block of a large problem is hundreds of megabytes
        image = matmul(basis[:, own])
        if image.data_ptr() == basis[:, own].data_ptr():  # the identity may hand back what it was given
            image = image.clone()
        # The operator is symmetric: the image of a block is orthogonal to all blocks but itself and the one before.
        near, before = slice(before, known), own.start
        coefficients = basis[:, near].T @ image
        small[near, own] = coefficients.double()
        if step + 1 == n_blocks:
            break
        scale = image.norm(dim=0).max()
        image.addmm_(basis[:, near], coefficients, alpha=-1)
        # The image of a block lies in the span of what is known and of the next block: no image need be kept.
        newest = _orthonormal_beside(image, basis[:, :known], scale)
        small[known : known + newest.shape[1], own] = (newest.T @ image).double()
        if newest.shape[1] == 0:  # the subspace is invariant: nothing is left to find in it
            break
    return _ritz_pairs(basis[:, :known], small[:known, :known], k, order)


def _ritz_pairs(basis: torch.Tensor, small: torch.Tensor, k: int, order: str) -> tuple[torch.Tensor, torch.Tensor]:
    values, vectors = torch.linalg.eigh((small + small.T) / 2)
    ranking = values.abs() if order == "magnitude" else values
    top = torch.argsort(ranking, descending=True, stable=True)[:k]
    return values[top], fix_signs(basis @ vectors[:, top].to(basis.dtype))


def orthonormalize(block: torch.Tensor, against: torch.Tensor | None) -> torch.Tensor:
    """Orthonormal basis of the columns of ``block`` (n, c), orthogonal to ``against``; dependent columns are
    dropped."""
    scale = block.norm(dim=0).max()
    if against is None:
        return _orthonormal_beside(block, block[:, :0], scale)
    return _orthonormal_beside(block - against @ (against.T @ block), against, scale)


def _orthonormal_beside(block: torch.Tensor, against: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Basis of a ``block`` that is orthogonal to ``against`` but for rounding; columns small beside ``scale`` are what
    rounding left."""
    eps = torch.finfo(block.dtype).eps
    left = _nearly_orthonormal(block, 50 * eps * scale)
    if left.shape[1]:  # twice is enough, beside one another (Cholesky-QR) and beside ``against`` (Kahan, Parlett)
        left.addmm_(against, against.T @ left, alpha=-1)
        # Of unit columns: one that nearly vanishes lay in the span of ``against``, and its rest is rounding.
        left = _nearly_orthonormal(left, eps**0.25 * scale.new_ones(()))
    return left


def _nearly_orthonormal(block: torch.Tensor, floor: torch.Tensor) -> torch.Tensor:
    """Basis of the columns, without directions of which less than ``floor`` is there; of a basis that is nearly
    orthonormal, one that is."""
    quick = _cholesky_qr(block, floor)
    if quick is not None:
        return quick
    left, triangle = torch.linalg.qr(block)
    if bool((triangle.diagonal().abs() > floor).all()):
        return left
    turned, singular, _ = torch.linalg.svd(triangle)
    return left @ turned[:, singular > floor]


# Least pivot of the Gram matrix of unit columns at which two rounds of Cholesky-QR are as good as Householder's; after
# one of them the columns are orthogonal to about 1e-12.
LEAST_PIVOT = 1e-2
# Elements of the rows that are multiplied at once: these stay in the second-level cache.
ROWS_AT_ONCE = 1 << 17


def _cholesky_qr(block: torch.Tensor, floor: torch.Tensor) -> torch.Tensor | None:
    """One round of Cholesky-QR: matrix products only, many times as fast as `torch.linalg.qr` on tall blocks.

    What is left of its rounding grows with the square of the condition; a second round takes that away. None where the
    columns are too nearly dependent for it. Source: Yamamoto et al., "Roundoff error analysis of the CholeskyQR2
    algorithm", 2015.
    """
    norms = block.norm(dim=0)
    if block.dtype != torch.float64 or not bool((norms > floor).all()):
        return None
    scale = 1 / norms
    factor, info = torch.linalg.cholesky_ex(scale[:, None] * (block.T @ block) * scale)
    if int(info) or float(factor.diagonal().min()) < LEAST_PIVOT:
        return None
    # The factor is well conditioned: its inverse by a product instead of a triangular solve.
    eye = torch.eye(len(norms), dtype=block.dtype, device=block.device)
    inverse = scale[:, None] * torch.linalg.solve_triangular(factor.T, eye, upper=True)
    left = torch.empty_like(block)
    for rows in row_chunks(*block.shape, ROWS_AT_ONCE if block.device.type == "cpu" else CHUNK_ELEMENTS):
        torch.mm(block[rows], inverse, out=left[rows])
    return left


def fix_signs(vectors: torch.Tensor) -> torch.Tensor:  # (n, k)
    """Flip columns so that the entry of largest magnitude is positive: eigenvectors have no sign of their own."""
    if vectors.shape[0] == 0:
        return vectors
    peak = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return torch.where(peak < 0, -vectors, vectors)
