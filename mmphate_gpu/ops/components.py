"""Connected components of a square matrix: what it falls apart into under one reordering of rows and columns."""

from __future__ import annotations

import torch


def components(matrix: torch.Tensor) -> list[torch.Tensor]:  # (n, n) -> [(k, s) int64, ...]
    """Members of the components: for every size s that occurs, the indices of its k components, one a row.

    Rows and columns i and j belong together if there is an entry between them either way. Every power, the singular
    values and a similarity transform of the matrix are those of its diagonal blocks. O(n^2) time on the host.
    """
    n = matrix.shape[0]
    if _reaches_all(matrix):
        return [torch.arange(n, device=matrix.device)[None]]
    labels = torch.from_numpy(_labels(matrix)).long()
    order = torch.argsort(labels, stable=True)
    sizes = torch.bincount(labels)
    starts = sizes.cumsum(0) - sizes
    groups = []
    for size in torch.unique(sizes).tolist():
        first = starts[sizes == size]
        groups.append(order[first[:, None] + torch.arange(size)].to(matrix.device))
    return groups


def _reaches_all(matrix: torch.Tensor) -> bool:
    """Whether two steps from the first row reach every column: most matrices in one piece, at the cost of one look."""
    near = matrix[0] != 0
    return bool(near.all()) or bool((matrix[near] != 0).any(0).all())


def _labels(matrix: torch.Tensor):  # -> (n,) int32 array
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    rows, columns = torch.nonzero(matrix, as_tuple=True)
    pattern = coo_matrix((torch.ones(rows.numel()).numpy(), (rows.cpu().numpy(), columns.cpu().numpy())), matrix.shape)
    return connected_components(pattern, directed=False)[1]


def diagonal_blocks(matrix: torch.Tensor, members: torch.Tensor) -> torch.Tensor:  # (n, n), (k, s) -> (k, s, s)
    """The blocks of ``matrix`` that belong to the components ``members``."""
    if members.shape == (1, matrix.shape[0]):
        return matrix[None]
    return matrix[members[:, :, None], members[:, None, :]]
