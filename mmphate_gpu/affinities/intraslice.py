"""Affinities between the units of one slice (METHOD step 3)."""

from __future__ import annotations

import torch

from ..neighbors import kneighbors
from ..ops.csr import Csr, index_dtype, indptr_of_counts
from ..ops.radius_affinity import radius_affinity
from .bandwidth import intraslice_bandwidth


def intraslice_affinity(
    points: torch.Tensor,  # (S, M, D) float64
    *,
    knn: int = 2,
    decay: float | None = 5,
    thresh: float = 1e-4,
    backend: str = "auto",
    dtype: torch.dtype = torch.float64,
) -> Csr:
    """Symmetrised adaptive-bandwidth affinity of every slice, the diagonal (1) included.

    Returns a CSR with one row per node (S*M rows) whose columns are unit indices (M columns).
    ``decay=None``: 1 for the ``knn`` nearest, averaged with its transpose. O(S M^2 D) time. Deterministic.
    """
    if decay is None:
        return _nearest_unit_affinity(points, knn, backend, dtype)
    bandwidth = intraslice_bandwidth(points, knn, backend=backend)
    return radius_affinity(points, bandwidth, decay=decay, thresh=thresh, diagonal=True, dtype=dtype)


def _nearest_unit_affinity(points: torch.Tensor, knn: int, backend: str, dtype: torch.dtype) -> Csr:
    n_slices, n_units, _ = points.shape
    nodes = torch.arange(n_slices * n_units, device=points.device)
    keys = [nodes * n_units + nodes % n_units]  # the diagonal
    if n_units > 1:
        _, near = kneighbors(points, min(knn, n_units - 1), backend=backend)
        column = near.reshape(nodes.numel(), -1)
        neighbor = column + (nodes - nodes % n_units)[:, None]
        keys += [(nodes[:, None] * n_units + column).flatten()]
        keys += [(neighbor * n_units + (nodes % n_units)[:, None]).flatten()]
    entry, times = torch.unique(torch.cat(keys), return_counts=True)
    row, column = entry // n_units, entry % n_units
    # An edge named from both ends occurs twice (affinity 1), from one end once (1/2).
    values = torch.where(column == row % n_units, 1.0, times / 2).to(dtype)
    indptr = indptr_of_counts(torch.bincount(row, minlength=nodes.numel()))
    kind = index_dtype(entry.numel(), n_units)
    return Csr(indptr.to(kind), column.to(kind), values, (nodes.numel(), n_units))
