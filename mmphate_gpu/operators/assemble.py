"""Functions that merge the two parts of the affinity into CSR rows in node order: count, scan, fill."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..affinities import Interslice
from ..ops.chunks import row_chunks
from ..ops.csr import Csr, index_dtype, room_for_entries
from ..runtime.memory import available_bytes, check_fits

# Entries of the rows made at a time: a sixteenth of all, so that a block of rows is small beside the sparse form. With
# fewer than the lower limit the calls would cost more than the entries; more than the upper limit saves no time.
SHARE, FEWEST, MOST = 16, 1 << 18, 1 << 24
# On a GPU every block costs some synchronizations and a pass over all points. So a block has as many entries as fit in
# a share of the free memory. ENTRY_BYTES counts an entry, the row offsets of its product, and its place.
MEMORY_SHARE, ENTRY_BYTES, MOST_ON_GPU = 16, 26, 1 << 28


def assembled_bytes(nnz: int, n_nodes: int, dtype: torch.dtype) -> int:
    """Bytes of the assembled CSR."""
    index = index_dtype(nnz, n_nodes).itemsize
    return nnz * (index + dtype.itemsize) + (n_nodes + 1) * index


def entries_at_once(nnz: float, free_bytes: int | None = None) -> int:
    """Entries of a block of rows; ``free_bytes`` are those of the GPU, None on a CPU."""
    few = min(MOST, max(FEWEST, int(nnz) // SHARE))
    return few if free_bytes is None else max(few, min(MOST_ON_GPU, free_bytes // (MEMORY_SHARE * ENTRY_BYTES)))


def assemble(
    intraslice: Csr, interslice: Interslice, remedy: str = 'storage="lazy" stores none of them'
) -> Csr:  # (N rows, M columns), -> (N, N)
    """All rows; ``remedy`` ends the message if they do not fit.

    Raises
    ------
    InputError
        The entries do not fit in memory. Nothing has been allocated for them then.
    """
    nnz, n_nodes = intraslice.nnz + int(interslice.counts.sum()), intraslice.shape[0]
    size, device = assembled_bytes(nnz, n_nodes, intraslice.values.dtype), interslice.unit_points.device
    check_fits(f"the affinity with {nnz:,} entries", size, device, remedy=remedy)
    return assemble_rows(intraslice, interslice, slice(0, interslice.unit_points.shape[1]))


def row_blocks(intraslice: Csr, interslice: Interslice) -> Iterator[tuple[slice, Csr]]:
    """All rows, some whole slices at a time, as pairs (nodes, rows)."""
    n_units, n_slices = interslice.counts.shape
    within = intraslice.indptr.diff().long()
    per_slice = interslice.counts.sum(0) + within.view(n_slices, n_units).sum(1)
    ends = per_slice.cumsum(0).cpu()  # one copy, since every number read from a GPU synchronizes
    device = interslice.unit_points.device
    at_once = entries_at_once(int(ends[-1]), available_bytes(device) if device.type == "cuda" else None)
    first = 0
    while first < n_slices:
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(torch.searchsorted(ends, before + at_once, right=True)))
        yield slice(first * n_units, last * n_units), assemble_rows(intraslice, interslice, slice(first, last))
        first = last


def assemble_rows(intraslice: Csr, interslice: Interslice, slices: slice) -> Csr:  # (rows, N)
    """The rows of ``slices``, rows and columns in node order, columns ascending.

    The row of node (s, m) holds the interslice entries of earlier slices, the intraslice entries of slice s, then the
    interslice entries of later slices. The counts give the place of every entry, so nothing is sorted and nothing is
    held twice. O(nnz) time beside that of the search; the result and a few chunks of memory.
    """
    n_units, n_slices = interslice.counts.shape
    offsets = intraslice.indptr[slices.start * n_units : slices.stop * n_units + 1].long()
    gaps = offsets.diff()
    counts, n_nodes = gaps + interslice.counts[:, slices].T.reshape(-1), n_units * n_slices
    indptr, indices, values = room_for_entries(counts, n_nodes, intraslice.values.dtype)
    gap_at = interslice.fill(slices, indptr, gaps, indices, values)
    _place_intraslice(intraslice, offsets, gap_at, slices.start, indices, values)
    return Csr(indptr.to(indices.dtype), indices, values, (gaps.numel(), n_nodes))


def _place_intraslice(
    intraslice: Csr,
    offsets: torch.Tensor,  # (rows + 1,) int64, of these rows in ``intraslice``
    gap_at: torch.Tensor,  # (rows,) int64
    first_slice: int,
    indices: torch.Tensor,
    values: torch.Tensor,
) -> None:
    """Put the intraslice entries into the gaps between the interslice entries."""
    n_units, n_rows = intraslice.shape[1], gap_at.numel()
    for rows in row_chunks(n_rows, n_units):
        part = slice(int(offsets[rows.start]), int(offsets[rows.stop]))
        entries = torch.arange(part.start, part.stop, device=offsets.device)
        row = torch.repeat_interleave(
            torch.arange(rows.start, rows.stop, device=offsets.device), offsets[rows.start : rows.stop + 1].diff()
        )
        place = gap_at[row] + entries - offsets[row]
        first_node = row - row % n_units + first_slice * n_units
        indices[place] = (first_node + intraslice.indices[part]).to(indices.dtype)
        values[place] = intraslice.values[part].to(values.dtype)
