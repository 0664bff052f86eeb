"""Row sums of a sparse matrix by the label of the column: K @ onehot(labels) without the one-hot matrix."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .chunks import row_chunks
from .csr import Csr, of_dense_rows
from .launch.twins import twins
from .scatter_sum import scatter_sum


def aggregate(csr: Csr, labels: torch.Tensor, n: int) -> Csr:  # (rows, m), (m,) int64 -> (rows, n)
    """``csr @ onehot(labels)`` for entries from 0, summed in float64; labels 0 .. n - 1. O(nnz) time. Deterministic."""
    indptr, indices, values = landmark_aggregate(csr.indptr, csr.indices, csr.values, labels, n)
    return Csr(indptr, indices, values, (csr.shape[0], n))


@twins("(Tensor indptr, Tensor indices, Tensor values, Tensor labels, int n) -> (Tensor, Tensor, Tensor)")
def landmark_aggregate(
    indptr: torch.Tensor, indices: torch.Tensor, values: torch.Tensor, labels: torch.Tensor, n: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """See `aggregate`; parts in, parts out."""
    return of_dense_rows(_sums(indptr, indices, values, labels, n), n)[:3]


def _sums(
    indptr: torch.Tensor, indices: torch.Tensor, values: torch.Tensor, labels: torch.Tensor, n: int
) -> Iterator[torch.Tensor]:
    """Dense blocks (r, n) of the result."""
    for rows in row_chunks(indptr.numel() - 1, n):
        part = slice(int(indptr[rows.start]), int(indptr[rows.stop]))
        counts = (indptr[rows.start + 1 : rows.stop + 1] - indptr[rows.start : rows.stop]).long()
        flat = torch.repeat_interleave(torch.arange(counts.numel(), device=indptr.device) * n, counts)
        flat += labels[indices[part].long()]
        yield scatter_sum(flat, values[part].double(), counts.numel() * n).view(-1, n).to(values.dtype)
