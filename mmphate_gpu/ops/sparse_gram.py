"""The weighted Gram matrix of a tall sparse matrix, by dense products over groups of alike rows."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .chunks import row_chunks
from .csr import Csr, indptr_of_counts, take_rows

GROUP = 64  # landmarks whose rows are multiplied together


def sparse_gram(matrix: Csr, weights: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:  # -> (n, n) float64
    """``matrix^T diag(weights) matrix`` in float64, exactly symmetric.

    Parameters
    ----------
    matrix : Csr (N, n)
    weights : (N,)
    labels : (N,) int64
        Group of every row, 0 .. n-1; rows of one label are taken to have much the same columns. Only the speed depends
        on it.

    Notes
    -----
    Rows are gathered by groups of `GROUP` labels with strong ties to one another. The columns such a group touches are few, so a
    small dense product per group does what a general sparse product would take entry by entry. With U columns touched:
    O(N U^2) time; memory n^2 and a few chunks. Deterministic.
    """
    n = matrix.shape[1]
    out = torch.zeros(n, n, dtype=torch.float64, device=matrix.values.device)
    for rows in _groups_of_rows(matrix, labels):
        columns = torch.unique(take_rows(matrix, rows).indices.long())
        block = torch.zeros(columns.numel(), columns.numel(), dtype=torch.float64, device=out.device)
        for part in row_chunks(rows.numel(), columns.numel()):
            dense = _dense_columns(take_rows(matrix, rows[part]), columns)
            block.addmm_(dense.T, dense * weights[rows[part], None].double())
        out[columns[:, None], columns] += block
    return (out + out.T) / 2


def _dense_columns(part: Csr, columns: torch.Tensor) -> torch.Tensor:  # (rows, columns.numel()) float64
    dense = torch.zeros(part.shape[0], columns.numel(), dtype=torch.float64, device=columns.device)
    dense[part.row_of_entry(), torch.searchsorted(columns, part.indices.long())] = part.values.double()
    return dense


def _groups_of_rows(matrix: Csr, labels: torch.Tensor) -> Iterator[torch.Tensor]:
    """Row numbers, a group of alike labels at a time."""
    n = matrix.shape[1]
    by_label = torch.argsort(labels, stable=True)
    indptr = indptr_of_counts(torch.bincount(labels, minlength=n))
    for group in _alike_labels(matrix, by_label, indptr):
        rows = [by_label[indptr[label] : indptr[label + 1]] for label in group.tolist()]
        yield torch.cat(rows)


def _alike_labels(matrix: Csr, by_label: torch.Tensor, indptr: torch.Tensor) -> Iterator[torch.Tensor]:
    """Greedy groups: a label not taken yet and those with which its first row has the strongest ties."""
    n = matrix.shape[1]
    left = indptr[1:] > indptr[:-1]
    while bool(left.any()):
        seed = int(torch.nonzero(left)[0])
        row = take_rows(matrix, by_label[indptr[seed] : indptr[seed] + 1])
        ties = torch.zeros(n, dtype=torch.float64, device=matrix.values.device)
        ties[row.indices.long()] = row.values.double()
        ties[~left] = -1
        ties[seed] = torch.inf
        group = torch.topk(ties, min(GROUP, int(left.sum()))).indices
        yield group
        left = left.clone()
        left[group] = False
