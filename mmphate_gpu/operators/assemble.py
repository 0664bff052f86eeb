"""From the two parts to one matrix in node order: count, scan, fill."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from ..ops.csr import Csr, index_dtype, indptr_of_counts
from ..ops.radius_affinity import Entries


def assembled_nnz(intraslice: Csr, interslice_counts: torch.Tensor) -> int:
    """Entries of the assembled matrix."""
    return intraslice.nnz + int(interslice_counts.sum())


def assembled_bytes(nnz: int, n_nodes: int, dtype: torch.dtype) -> int:
    """Bytes of the assembled CSR."""
    index = index_dtype(nnz, n_nodes).itemsize
    return nnz * (index + dtype.itemsize) + (n_nodes + 1) * index


def assemble(
    intraslice: Csr,  # (S*M rows, M columns)
    interslice_counts: torch.Tensor,  # (M, S) int64
    interslice: Iterable[Entries],  # sets are units; rows and columns are slices
    *,
    dtype: torch.dtype,
) -> Csr:
    """The multislice affinity with rows and columns in node order, columns ascending.

    A row of node (l, i) holds the interslice entries of earlier slices, the intraslice block of slice l, then the
    interslice entries of later slices: every entry's place is known from the counts, so nothing is sorted and nothing
    is held twice. O(nnz) time, the result plus a few chunks of memory.
    """
    n_units, n_slices = interslice_counts.shape
    n_nodes = n_units * n_slices
    device = interslice_counts.device
    own_counts = (intraslice.indptr[1:] - intraslice.indptr[:-1]).long()
    indptr = indptr_of_counts(own_counts + interslice_counts.T.reshape(-1))
    nnz = int(indptr[-1])
    kind = index_dtype(nnz, n_nodes)
    indices = torch.empty(nnz, dtype=kind, device=device)
    values = torch.empty(nnz, dtype=dtype, device=device)
    earlier = torch.zeros(n_nodes, dtype=torch.int64, device=device)  # interslice entries left of the diagonal block
    for chunk in interslice:
        node = chunk.rows * n_units + chunk.sets
        # Entries of a row are contiguous and a row never spans two chunks, so its first entry gives all ranks.
        rank = _rank_within_runs(node)
        later = chunk.columns > chunk.rows
        place = indptr[node] + rank + torch.where(later, own_counts[node], 0)
        indices[place] = (chunk.columns * n_units + chunk.sets).to(kind)
        values[place] = chunk.values
        earlier += torch.bincount(node[~later], minlength=n_nodes)
    own = intraslice.row_of_entry()
    rank = torch.arange(intraslice.nnz, device=device) - intraslice.indptr[own].long()
    place = indptr[own] + earlier[own] + rank
    indices[place] = (own - own % n_units + intraslice.indices).to(kind)
    values[place] = intraslice.values.to(dtype)
    return Csr(indptr.to(kind), indices, values, (n_nodes, n_nodes))


def _rank_within_runs(keys: torch.Tensor) -> torch.Tensor:  # (k,) -> (k,) int64
    """Position of every entry within its run of equal keys."""
    _, lengths = torch.unique_consecutive(keys, return_counts=True)
    starts = torch.cumsum(lengths, 0) - lengths
    return torch.arange(keys.numel(), device=keys.device) - torch.repeat_interleave(starts, lengths)
