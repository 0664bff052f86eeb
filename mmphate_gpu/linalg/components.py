"""The connected components of a square matrix: the blocks into which a reordering of its indices splits it."""

from __future__ import annotations

import torch

from ..ops.chunks import chunk_elements, row_chunks

# For every size s that occurs, the members of the k components of this size: (k, s) int64.
Components = list[torch.Tensor]


def components(matrix: torch.Tensor) -> Components:  # (n, n)
    """The members of the components, a component a row.

    Indices i and j belong together if either of the entries (i, j) and (j, i) is not 0. The powers and the singular
    values of the matrix are those of its diagonal blocks. O(n^2) time for each of about ten rounds; bounded chunks of
    memory beside a mask of n^2 bytes. Deterministic.
    """
    if _reaches_all(matrix):
        return [torch.arange(matrix.shape[0], device=matrix.device)[None]]
    labels = _labels(matrix)
    order = torch.argsort(labels, stable=True)
    sizes = torch.unique_consecutive(labels[order], return_counts=True)[1]
    starts = sizes.cumsum(0) - sizes
    groups = []
    for size in torch.unique(sizes).tolist():
        first = starts[sizes == size]
        groups.append(order[first[:, None] + torch.arange(size, device=matrix.device)])
    return groups


def _reaches_all(matrix: torch.Tensor) -> bool:
    """Whether two steps from the first row reach every column, as they do in most matrices of a single component."""
    near = matrix[0] != 0
    return bool(near.all()) or bool((matrix[near] != 0).any(0).all())


def _labels(matrix: torch.Tensor) -> torch.Tensor:  # (n, n) -> (n,) int64
    """The least index of the component of every row.

    In each round a row takes the least label among its neighbors, and then the label of the row of that label. A chain
    of n rows takes about log n rounds.
    """
    n = matrix.shape[0]
    near = matrix != 0
    near |= near.T.clone()
    labels = torch.arange(n, dtype=torch.int32, device=matrix.device)
    while True:
        before, labels = labels, labels.clone()
        for rows in row_chunks(n, n, chunk_elements(matrix.device)):
            least = torch.where(near[rows], before, n).amin(1)
            labels[rows] = torch.minimum(labels[rows], least.to(torch.int32))
        jumped = labels[labels.long()]
        while not torch.equal(jumped, labels):
            labels, jumped = jumped, jumped[jumped.long()]
        if torch.equal(labels, before):
            return labels.long()


def diagonal_blocks(matrix: torch.Tensor, members: torch.Tensor) -> torch.Tensor:  # (n, n), (k, s) -> (k, s, s)
    """The blocks of ``matrix`` that belong to the components ``members``."""
    if members.shape == (1, matrix.shape[0]):
        return matrix[None]
    return matrix[members[:, :, None], members[:, None, :]]
