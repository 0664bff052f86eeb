"""Principal component scores of a stack of points: METHOD step 2."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from .params import check_number

# Elements per chunk of rows: bounds the centred copy to 32 MiB.
_CHUNK = 2**22
# Above this width an exact eigendecomposition costs minutes; a randomised one keeps the leading scores.
_EXACT_PCA = 3000


def reduce(points: torch.Tensor, n_pca: int | None, *, seed: int = 0) -> torch.Tensor:  # (L, M, min(D, n_pca))
    """The ``n_pca`` leading principal component scores, if there are more features (METHOD step 2).

    Centred over all nodes. Exact (eigenvectors of the covariance or of the Gram matrix, whichever
    is smaller) up to min(N, D) = 3000, above that randomised subspace iteration from ``seed``; each
    loading's entry of largest magnitude is positive. Directions beyond the N nodes score 0.

    Parameters
    ----------
    points : (L, M, D) tensor; returned unchanged when ``n_pca`` is None or D <= n_pca.

    Notes
    -----
    O(N D min(N, D)) time; deterministic for one device and thread count.
    """
    axes = principal_axes(points, n_pca, seed=seed)
    return points if axes is None else axes.scores(points)


class PrincipalAxes(NamedTuple):
    """What turns a point into its principal component scores."""

    mean: torch.Tensor  # (D,)
    loadings: torch.Tensor  # (D, n_pca)

    def scores(self, points: torch.Tensor) -> torch.Tensor:  # (..., D) -> (..., n_pca)
        rows = _CenteredRows(points.reshape(-1, points.shape[-1]).double(), self.mean)
        return (rows @ self.loadings).reshape(*points.shape[:-1], self.loadings.shape[1])


def principal_axes(points: torch.Tensor, n_pca: int | None, *, seed: int = 0) -> PrincipalAxes | None:
    """The axes that `reduce` uses; None where it returns the points unchanged."""
    n_features = points.shape[-1]
    if n_pca is None or n_features <= check_number("n_pca", n_pca, low=1, integer=True):
        return None
    rows = _CenteredRows(points.reshape(-1, n_features).double())
    loadings = _loadings(rows, min(int(n_pca), rows.n_rows), seed)  # (D, k)
    lead = loadings.gather(0, loadings.abs().argmax(0, keepdim=True))
    loadings = loadings * torch.where(lead < 0, -1.0, 1.0)
    return PrincipalAxes(rows.mean, torch.nn.functional.pad(loadings, (0, int(n_pca) - loadings.shape[1])))


class _CenteredRows:
    """The matrix ``rows - mean`` (N, D), applied chunk by chunk and never stored."""

    def __init__(self, rows: torch.Tensor, mean: torch.Tensor | None = None) -> None:
        self.rows, self.mean = rows, rows.mean(0) if mean is None else mean
        self.n_rows, self.n_features = rows.shape
        self.step = max(1, _CHUNK // self.n_features)

    def chunks(self) -> Iterator[torch.Tensor]:
        return (part - self.mean for part in self.rows.split(self.step))

    def __matmul__(self, right: torch.Tensor) -> torch.Tensor:  # (N, C)
        return torch.cat([part @ right for part in self.chunks()])

    def transposed_matmul(self, right: torch.Tensor) -> torch.Tensor:  # (D, C)
        parts = zip(self.chunks(), right.split(self.step), strict=True)
        return sum((part.T @ block for part, block in parts), right.new_zeros(self.n_features, right.shape[1]))

    def covariance(self) -> torch.Tensor:  # (D, D), times N
        return sum((part.T @ part for part in self.chunks()), self.rows.new_zeros(self.n_features, self.n_features))


def _loadings(rows: _CenteredRows, k: int, seed: int) -> torch.Tensor:  # (D, k) orthonormal
    if min(rows.n_rows, rows.n_features) > _EXACT_PCA:
        return _randomised_loadings(rows, k, seed)
    if rows.n_features <= rows.n_rows:
        return torch.linalg.eigh(rows.covariance()).eigenvectors.flip(1)[:, :k]
    centred = torch.cat(list(rows.chunks()))
    left = torch.linalg.eigh(centred @ centred.T).eigenvectors.flip(1)[:, :k]
    # QR rather than a division by singular values: directions of no variance stay orthonormal.
    return torch.linalg.qr(centred.T @ left).Q


def _randomised_loadings(rows: _CenteredRows, k: int, seed: int, n_iter: int = 7) -> torch.Tensor:
    width = min(k + 10, rows.n_rows, rows.n_features)
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(rows.n_features, width, dtype=torch.float64, generator=generator)
    basis = start.to(rows.rows.device)
    for _ in range(n_iter):
        basis = torch.linalg.qr(rows @ basis).Q
        basis = torch.linalg.qr(rows.transposed_matmul(basis)).Q
    right = torch.linalg.svd(rows @ basis, full_matrices=False).Vh
    return (basis @ right.T)[:, :k]
