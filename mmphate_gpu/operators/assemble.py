"""From the two parts to one matrix in node order: count, scan, fill."""

from __future__ import annotations

import torch

from ..ops.chunks import row_chunks
from ..ops.csr import Csr, index_dtype, indptr_of_counts
from ..ops.radius_affinity import radius_fill


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
    unit_points: torch.Tensor,  # (M, S, D) float64
    bandwidth: float,
    reach: float,  # the largest distance with an interslice entry
    *,
    dtype: torch.dtype,
    slices: slice | None = None,
) -> Csr:
    """The rows of ``slices`` (all) of the multislice affinity, rows and columns in node order, columns ascending.

    A row of node (l, i) holds the interslice entries of earlier slices, the intraslice block of slice l, then the
    interslice entries of later slices: every entry's place is known from the counts, so nothing is sorted and nothing
    is held twice. O(nnz) time beside that of the search, the result plus a few chunks of memory.
    """
    n_units, n_slices = interslice_counts.shape
    slices = slice(0, n_slices) if slices is None else slices
    own = intraslice.indptr[slices.start * n_units : slices.stop * n_units + 1].long()
    own_counts = own.diff()
    indptr = indptr_of_counts(own_counts + interslice_counts[:, slices].T.reshape(-1))
    nnz, n_nodes = int(indptr[-1]), n_units * n_slices
    kind = index_dtype(nnz, n_nodes)
    indices = torch.empty(nnz, dtype=kind, device=indptr.device)
    values = torch.empty(nnz, dtype=dtype, device=indptr.device)
    rows = (slices.start, slices.stop, indptr, own_counts)
    gap_at = radius_fill(unit_points, bandwidth, 2.0, reach, *rows, indices, values)
    _place_intraslice(intraslice, own, gap_at, slices.start, indices, values)
    return Csr(indptr.to(kind), indices, values, (own_counts.numel(), n_nodes))


def _place_intraslice(
    intraslice: Csr,
    own: torch.Tensor,  # (rows + 1,) int64, offsets of these rows in ``intraslice``
    gap_at: torch.Tensor,  # (rows,) int64
    first_slice: int,
    indices: torch.Tensor,
    values: torch.Tensor,
) -> None:
    """Put the intraslice entries into the gaps that the interslice ones left."""
    n_units, n_rows = intraslice.shape[1], gap_at.numel()
    for rows in row_chunks(n_rows, n_units):
        part = slice(int(own[rows.start]), int(own[rows.stop]))
        entries = torch.arange(part.start, part.stop, device=own.device)
        row = torch.repeat_interleave(
            torch.arange(rows.start, rows.stop, device=own.device), own[rows.start : rows.stop + 1].diff()
        )
        place = gap_at[row] + entries - own[row]
        first_node = row - row % n_units + first_slice * n_units
        indices[place] = (first_node + intraslice.indices[part]).to(indices.dtype)
        values[place] = intraslice.values[part].to(values.dtype)
