"""An orthonormal basis of a block Krylov space, built block by block, and the operator projected on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from ..ops.chunks import chunk_elements, row_chunks
from .eigenvalues import symmetric_eigenpairs


class BlockKrylov:
    """The space of [X, AX, A^2 X, ...] for a symmetric operator A (n, n) and a block X (n, b).

    `multiply` and `extend` alternate: `multiply` puts the newest block into the basis and applies the operator to it,
    and `extend` makes the next block from the image.

    Parameters
    ----------
    matmul : callable
        (n, b) -> (n, b), the product with the operator; its result is overwritten.
    start : (n, b) float32 or float64
        X, which decides the dtype and the device of the basis.
    capacity : int
        The most columns that the basis can have.

    Notes
    -----
    The memory is that of ``capacity`` columns, a block and its image. Inner products are summed in float64, so that a
    basis in float32, which takes half of the memory, is orthonormal up to the rounding of float32.
    """

    def __init__(self, matmul: Callable[[torch.Tensor], torch.Tensor], start: torch.Tensor, capacity: int) -> None:
        n = start.shape[0]
        self._matmul = matmul
        self._basis = start.new_empty(n, min(capacity, n))
        self._projected = torch.zeros(
            self._basis.shape[1], self._basis.shape[1], dtype=torch.float64, device=start.device
        )
        self._newest: Any = orthonormalize(start, None)  # a block; None between `multiply` and `extend`
        self._image: Any = None  # of the newest block, between `multiply` and `extend`
        self._previous = self._last = slice(0, 0)
        self.coupling = start.new_zeros(0, 0)  # inner products of the next block with the image: the residuals

    @property
    def n_columns(self) -> int:
        """Columns of the basis."""
        return self._last.stop

    @property
    def basis(self) -> torch.Tensor:  # (n, n_columns)
        return self._basis[:, : self.n_columns]

    @property
    def projected(self) -> torch.Tensor:  # (n_columns, n_columns) float64
        """The operator on the basis, symmetric to the last bit."""
        square = self._projected[: self.n_columns, : self.n_columns]
        return (square + square.T) / 2

    def multiply(self) -> None:
        """Put the newest block into the basis and apply the operator to it."""
        self._previous, self._last = self._last, slice(self.n_columns, self.n_columns + self._newest.shape[1])
        block = self._basis[:, self._last]
        block.copy_(self._newest)
        self._newest = None  # free it at once: a block of a large problem takes gigabytes
        image = self._matmul(block)
        # The identity may return its argument.
        self._image = image.clone() if image.data_ptr() == block.data_ptr() else image
        near = slice(self._previous.start, self._last.stop)
        self._projected[near, self._last] = inner_products(self._basis[:, near], self._image)

    def extend(self) -> bool:
        """Make the next block from the image of the newest; False if the space is invariant, so that there is none.

        A block is truncated if the basis has no room for all of it.
        """
        image, self._image = self._image, None
        scale = image.norm(dim=0).max()
        # The operator is symmetric, so the image of a block is orthogonal to all blocks before the previous one.
        near = slice(self._previous.start, self._last.stop)
        _remove(image, self._basis[:, near], self._projected[near, self._last])
        # The image lies in the span of the basis and of the next block, so no image has to be stored.
        newest = _orthonormal_beside(image, self.basis, scale)[:, : self._basis.shape[1] - self.n_columns]
        self.coupling = inner_products(newest, image)
        next_rows = slice(self.n_columns, self.n_columns + newest.shape[1])
        self._projected[next_rows, self._last] = self.coupling
        self._newest = newest
        return newest.shape[1] > 0

    def ritz(self) -> tuple[torch.Tensor, torch.Tensor]:  # (m,), (m, m) float64
        """Eigenvalues, ascending, and eigenvectors of the projected operator. Frees the image, if there is one."""
        self._image = None
        return symmetric_eigenpairs(self.projected)


# Bytes of the rows that are multiplied at once on a CPU, where they stay in the second-level cache.
CACHED_BYTES = 1 << 20


def _chunks(block: torch.Tensor, n_columns: int) -> Iterator[slice]:
    """Chunks of the rows of ``block`` for products in which ``n_columns`` columns take part."""
    on_cpu = block.device.type == "cpu"
    return row_chunks(len(block), n_columns, CACHED_BYTES // block.itemsize if on_cpu else chunk_elements(block.device))


def _working_dtype(block: torch.Tensor) -> torch.dtype:
    """The dtype in which chunks are multiplied: float64 on CUDA, where TF32 or autocast may be on for float32."""
    return block.dtype if block.device.type == "cpu" else torch.float64


def inner_products(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:  # (n, a), (n, b) -> (a, b) float64
    """``left^T right``; the products of chunks of rows are summed in float64.

    In float32 on a CPU the product of a chunk has an error of 1e-8 of the norms, less than the rounding of the columns.
    """
    if left.dtype == torch.float64:
        return left.T @ right
    total = torch.zeros(left.shape[1], right.shape[1], dtype=torch.float64, device=left.device)
    dtype = _working_dtype(left)
    for rows in _chunks(left, left.shape[1] + right.shape[1]):
        total += left[rows].to(dtype).T @ right[rows].to(dtype)
    return total


def combine(basis: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:  # (n, a), (a, b) -> (n, b)
    """``basis @ weights`` for float64 ``weights``, in the dtype of ``basis``, chunk by chunk."""
    dtype, out = _working_dtype(basis), basis.new_empty(len(basis), weights.shape[1])
    weights = weights.to(dtype)
    for rows in _chunks(basis, sum(weights.shape)):
        out[rows] = basis[rows].to(dtype) @ weights
    return out


def _remove(block: torch.Tensor, basis: torch.Tensor, weights: torch.Tensor) -> None:
    """``block -= basis @ weights`` for float64 ``weights``, chunk by chunk."""
    dtype = _working_dtype(block)
    weights = weights.to(dtype)
    for rows in _chunks(block, sum(weights.shape)):
        rest = block[rows].to(dtype).addmm_(basis[rows].to(dtype), weights, alpha=-1)
        if rest.dtype != block.dtype:
            block[rows] = rest


def orthonormalize(block: torch.Tensor, against: torch.Tensor | None) -> torch.Tensor:
    """An orthonormal basis of the columns of ``block`` (n, b), orthogonal to ``against``, without dependent columns."""
    scale = block.norm(dim=0).max()
    if against is None:
        return _orthonormal_beside(block, block[:, :0], scale)
    rest = block.clone()
    _remove(rest, against, inner_products(against, block))
    return _orthonormal_beside(rest, against, scale)


def _orthonormal_beside(block: torch.Tensor, against: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """`orthonormalize` for a ``block`` orthogonal to ``against`` but for rounding.

    Columns far smaller than ``scale`` are rounding and are dropped.
    """
    eps = torch.finfo(block.dtype).eps
    left = _nearly_orthonormal(block, 50 * eps * scale)
    # Two rounds of Cholesky-QR and of the projection are enough (Kahan, Parlett).
    if left.shape[1]:
        _remove(left, against, inner_products(against, left))
        # The columns had length 1: one that nearly vanishes lay in the span of ``against``, and the rest is rounding.
        left = _nearly_orthonormal(left, eps**0.25 * scale.new_ones(()))
    return left


def _nearly_orthonormal(block: torch.Tensor, floor: torch.Tensor) -> torch.Tensor:
    """An orthonormal basis of the columns, but for rounding, without directions shorter than ``floor``."""
    quick = _cholesky_qr(block, floor)
    if quick is not None:
        return quick
    left, triangle = torch.linalg.qr(block)
    if bool((triangle.diagonal().abs() > floor).all()):
        return left
    turned, singular, _ = torch.linalg.svd(triangle)
    return left @ turned[:, singular > floor]


# The least pivot of the Gram matrix of unit columns for which two rounds of Cholesky-QR are as accurate as
# Householder's method. After the first round the columns of a float64 block are orthogonal to about 1e-12.
LEAST_PIVOT = 1e-2


def _cholesky_qr(block: torch.Tensor, floor: torch.Tensor) -> torch.Tensor | None:
    """A round of Cholesky-QR by matrix products, many times as fast as `torch.linalg.qr` on tall blocks.

    Its error grows with the square of the condition number, and a second round removes it. None if the columns are too
    close to dependent. Source: Yamamoto et al., "Roundoff error analysis of the CholeskyQR2 algorithm", 2015.
    """
    norms = block.norm(dim=0).double()
    if not bool((norms > floor).all()):
        return None
    scale = 1 / norms
    factor, info = torch.linalg.cholesky_ex(scale[:, None] * inner_products(block, block) * scale)
    if int(info) or float(factor.diagonal().min()) < LEAST_PIVOT:
        return None
    # The factor is well conditioned, so its inverse and a product may replace a triangular solve.
    eye = torch.eye(len(norms), dtype=torch.float64, device=block.device)
    return combine(block, scale[:, None] * torch.linalg.solve_triangular(factor.T, eye, upper=True))
