"""The dominant eigenpairs of a symmetric operator from a handful of block products."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..params import check_choice


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
        (n, c) -> (n, c), the product with the operator; called with ``dtype``.
    order : {"magnitude", "algebraic"}
        Largest absolute value first, or largest value first.

    Returns
    -------
    values : (k,) float64
    vectors : (n, k) ``dtype``, orthonormal; the largest entry of each column is positive.

    Notes
    -----
    O(n_passes) products, O(n (n_passes b)^2) time and O(n n_passes b) memory for blocks of b columns. Deterministic for
    one generator state. Source: Musco & Musco, "Randomized block Krylov methods", NeurIPS 2015.
    """
    check_choice("order", order, ("magnitude", "algebraic"))
    k = min(k, n)
    width = min(n, k + 10 if block is None else block)
    n_blocks = max(1, min(n_passes, -(-n // width)))
    # Random numbers are drawn on the CPU, so that one seed gives one start on every device.
    start = torch.randn(n, width, generator=generator, dtype=torch.float64).to(device=device, dtype=dtype)
    newest = orthonormalize(start, None)
    basis, images = [newest], [matmul(newest)]
    while len(images) < n_blocks:
        newest = orthonormalize(images[-1], torch.cat(basis, dim=1))
        if newest.shape[1] == 0:  # the subspace is invariant: nothing is left to find in it
            break
        basis.append(newest)
        images.append(matmul(newest))
    return _rayleigh_ritz(torch.cat(basis, dim=1), torch.cat(images, dim=1), k, order)


def _rayleigh_ritz(basis: torch.Tensor, product: torch.Tensor, k: int, order: str) -> tuple[torch.Tensor, torch.Tensor]:
    small = (basis.T @ product).double()
    values, vectors = torch.linalg.eigh((small + small.T) / 2)
    ranking = values.abs() if order == "magnitude" else values
    top = torch.argsort(ranking, descending=True, stable=True)[:k]
    return values[top], fix_signs(basis @ vectors[:, top].to(basis.dtype))


def orthonormalize(block: torch.Tensor, against: torch.Tensor | None) -> torch.Tensor:
    """Orthonormal basis of the columns of ``block`` (n, c), orthogonal to ``against``; dependent columns are
    dropped."""
    scale = block.norm(dim=0).max()
    if against is not None:
        for _ in range(2):  # twice is enough (Kahan, Parlett)
            block = block - against @ (against.T @ block)
    left, triangle = torch.linalg.qr(block)
    floor = 50 * torch.finfo(block.dtype).eps * scale
    keep = triangle.diagonal().abs() > floor
    if not bool(keep.all()):
        left, singular, _ = torch.linalg.svd(block, full_matrices=False)
        left = left[:, singular > floor]
    if against is not None and left.shape[1]:
        left = torch.linalg.qr(left - against @ (against.T @ left))[0]
    return left


def fix_signs(vectors: torch.Tensor) -> torch.Tensor:  # (n, k)
    """Flip columns so that the entry of largest magnitude is positive: eigenvectors have no sign of their own."""
    if vectors.shape[0] == 0:
        return vectors
    peak = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return torch.where(peak < 0, -vectors, vectors)
