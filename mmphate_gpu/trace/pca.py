"""Principal component scores of a stack of points: step 2 of docs/method.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from ..errors import check_number
from ..linalg.eigenvalues import symmetric_eigenpairs
from ..linalg.symmetric_product import symmetric_product
from .points import Points
from .stored import blockwise, columns, rows

# Above this width an exact eigendecomposition takes minutes; a randomized one keeps the leading scores.
EXACT_PCA = 3000


def reduce(points: Points, n_pca: int | None, *, seed: int = 0) -> torch.Tensor:  # (S, M, min(D, n_pca))
    """The ``n_pca`` leading principal component scores of points with more features than that.

    Points are centered over all nodes. Up to min(N, P) = 3000 the scores are exact: eigenvectors of the covariance or
    of the Gram matrix, whichever is smaller. Above, they come from randomized subspace iteration from ``seed``. The
    entry of largest magnitude of each loading is positive. Directions beyond the N nodes score 0.

    Parameters
    ----------
    points : (S, M, P) tensor, or `LazyPoints` of that shape, with the same bits; a tensor is returned unchanged when
        ``n_pca`` is None or P <= n_pca, or if a sample is missing (NaN), because a score needs every sample.

    Notes
    -----
    O(N P min(N, P)) time; beside the scores (N, n_pca) and the loadings (P, n_pca) a few blocks of 32 MiB and the
    smaller of covariance and Gram matrix; deterministic for one device and thread count. Points are read twice, and 16
    times by the randomized iteration.
    """
    return on_axes(points, principal_axes(points, n_pca, seed=seed))


def on_axes(points: Points, axes: PrincipalAxes | None) -> torch.Tensor:  # (S, M, P) -> (S, M, n_pca)
    """The scores of ``points`` on ``axes``; without axes the points themselves, which are a tensor then."""
    return axes.scores(points) if axes is not None else points  # type: ignore[return-value]


class PrincipalAxes(NamedTuple):
    """The mean and the loadings that turn a point into its principal component scores."""

    mean: torch.Tensor  # (P,)
    loadings: torch.Tensor  # (P, n_pca)

    def scores(self, points: Points) -> torch.Tensor:  # (S, M, P) -> (S, M, n_pca)
        return (_CenteredRows(points, self.mean) @ self.loadings).reshape(*points.shape[:2], self.loadings.shape[1])


def principal_axes(points: Points, n_pca: int | None, *, seed: int = 0) -> PrincipalAxes | None:
    """The axes that `reduce` uses; None where it returns the points unchanged."""
    n_features = points.shape[-1]
    if n_pca is None or n_features <= check_number("n_pca", n_pca, low=1, integer=True) or _has_missing(points):
        return None
    centered = _CenteredRows(points, blockwise(points).mean())
    loadings = _loadings(centered, min(int(n_pca), centered.n_rows), seed)  # (P, k)
    lead = loadings.gather(0, loadings.abs().argmax(0, keepdim=True))
    loadings *= torch.where(lead < 0, -1, 1)
    return PrincipalAxes(centered.mean, torch.nn.functional.pad(loadings, (0, int(n_pca) - loadings.shape[1])))


def _has_missing(points: Points) -> bool:
    """Whether a sample is missing. `LazyPoints` have all."""
    return isinstance(points, torch.Tensor) and any(bool(block.isnan().any()) for block in rows(points))


class _CenteredRows:
    """The matrix ``rows - mean`` (N, P), applied block by block and never stored."""

    def __init__(self, points: Points, mean: torch.Tensor) -> None:
        self.points, self.mean = points, mean
        self.n_rows, self.n_features = points.shape[0] * points.shape[1], points.shape[2]

    def blocks(self) -> Iterator[torch.Tensor]:  # (n, P), one below the other
        return (block - self.mean for block in rows(self.points))

    def columns(self) -> Iterator[torch.Tensor]:  # (N, p), side by side
        return (block - self.mean[features] for features, block in columns(self.points))

    def __matmul__(self, right: torch.Tensor) -> torch.Tensor:  # (N, C)
        # Write into the final array: small results allocated between large temporaries would fragment the heap.
        return _stacked((block @ right for block in self.blocks()), right.new_empty(self.n_rows, right.shape[1]))

    def transposed_matmul(self, right: torch.Tensor) -> torch.Tensor:  # (P, C)
        total, start = right.new_zeros(self.n_features, right.shape[1]), 0
        for block in self.blocks():
            total += block.T @ right[start : start + len(block)]
            start += len(block)
        return total

    def columns_matmul(self, left: torch.Tensor) -> torch.Tensor:  # (P, C): the transpose times left, by columns
        return _stacked((block.T @ left for block in self.columns()), left.new_empty(self.n_features, left.shape[1]))

    def covariance(self) -> torch.Tensor:  # (P, P), times N
        total = self.mean.new_zeros(self.n_features, self.n_features)
        for block in self.blocks():
            total += symmetric_product(block.T, block)
        return total

    def gram(self) -> torch.Tensor:  # (N, N)
        total = self.mean.new_zeros(self.n_rows, self.n_rows)
        for block in self.columns():
            total += symmetric_product(block, block.T)
        return total


def _stacked(parts: Iterator[torch.Tensor], out: torch.Tensor) -> torch.Tensor:
    start = 0
    for part in parts:
        out[start : start + len(part)] = part
        start += len(part)
    return out


def _loadings(centered: _CenteredRows, k: int, seed: int) -> torch.Tensor:  # (P, k) orthonormal
    if min(centered.n_rows, centered.n_features) > EXACT_PCA:
        return _randomized_loadings(centered, k, seed)
    if centered.n_features <= centered.n_rows:
        return symmetric_eigenpairs(centered.covariance())[1].flip(1)[:, :k]
    left = symmetric_eigenpairs(centered.gram())[1].flip(1)[:, :k]
    # QR, not a division by singular values, keeps directions without variance orthonormal.
    return torch.linalg.qr(centered.columns_matmul(left)).Q


def _randomized_loadings(centered: _CenteredRows, k: int, seed: int, n_iter: int = 7) -> torch.Tensor:
    width = min(k + 10, centered.n_rows, centered.n_features)
    generator = torch.Generator("cpu").manual_seed(seed)
    start = torch.randn(centered.n_features, width, dtype=torch.float64, device="cpu", generator=generator)
    basis = start.to(centered.mean.device)
    for _ in range(n_iter):
        basis = torch.linalg.qr(centered @ basis).Q
        basis = torch.linalg.qr(centered.transposed_matmul(basis)).Q
    # torch's default on CUDA is Jacobi's method, which is slow and warns where it does not converge.
    driver = "gesvd" if basis.is_cuda else None
    right = torch.linalg.svd(centered @ basis, full_matrices=False, driver=driver).Vh
    return (basis @ right.T)[:, :k]
