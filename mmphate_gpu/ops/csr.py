"""Sparse matrices as compressed sparse rows (CSR), the form in which ops take and return them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch

from ..runtime.isolation import isolated
from .chunks import chunk_elements, row_chunks


class Csr(NamedTuple):
    """A sparse matrix by rows; ``indices`` ascend within a row.

    ``indptr`` and ``indices`` have the same dtype: that of `index_dtype`.
    """

    indptr: torch.Tensor  # (n_rows + 1,)
    indices: torch.Tensor  # (nnz,)
    values: torch.Tensor  # (nnz,)
    shape: tuple[int, int]

    @property
    def nnz(self) -> int:
        return self.indices.numel()

    def row_of_entry(self) -> torch.Tensor:  # (nnz,) int64
        counts = (self.indptr[1:] - self.indptr[:-1]).long()
        rows = torch.arange(self.shape[0], device=counts.device)
        return torch.repeat_interleave(rows, counts, output_size=self.nnz)


def index_dtype(nnz: int, n_columns: int) -> torch.dtype:
    """int32 where every offset and index fits it, else int64."""
    return torch.int32 if max(nnz, n_columns) < 2**31 else torch.int64


def indptr_of_counts(counts: torch.Tensor) -> torch.Tensor:  # (n_rows,) -> (n_rows + 1,) int64
    """The offset of every row, from the numbers of entries of the rows."""
    indptr = torch.zeros(counts.numel() + 1, dtype=torch.int64, device=counts.device)
    torch.cumsum(counts, 0, out=indptr[1:])
    return indptr


def csr_of_counts(counts: torch.Tensor, indices: torch.Tensor, values: torch.Tensor, n_columns: int) -> Csr:
    """The matrix whose rows have ``counts`` entries each: the first row the first entries, and so on."""
    indptr = indptr_of_counts(counts)
    dtype = index_dtype(int(indptr[-1]), n_columns)
    return Csr(indptr.to(dtype), indices.to(dtype), values, (counts.numel(), n_columns))


def room_for_entries(
    counts: torch.Tensor, n_columns: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The offsets of rows with ``counts`` entries, int64, and room for their indices and values."""
    indptr = indptr_of_counts(counts)
    nnz = int(indptr[-1])
    indices = torch.empty(nnz, dtype=index_dtype(nnz, n_columns), device=counts.device)
    return indptr, indices, torch.empty(nnz, dtype=dtype, device=counts.device)


def moved(csr: Csr, device: torch.device, *, copy: bool = False) -> Csr:
    """The same matrix on ``device``; ``copy`` makes a copy even if it is there already."""
    return csr._replace(**{name: getattr(csr, name).to(device, copy=copy) for name in ("indptr", "indices", "values")})


def to_torch(csr: Csr) -> torch.Tensor:
    """The same matrix as a torch sparse CSR tensor that shares the memory."""
    return torch.sparse_csr_tensor(*csr, device=csr.values.device, check_invariants=False)


# torch warns once in a process that sparse CSR is in beta; the conformance suite of the operators tests what this
# package uses of it. The warning is triggered and ignored at import, because `catch_warnings` is not thread-safe.
with isolated(), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    empty = torch.empty(0, dtype=torch.int64, device="cpu")
    to_torch(Csr(torch.arange(1, device="cpu"), empty, empty, (0, 0)))


def of_dense_rows(blocks: Iterable[torch.Tensor], n_columns: int) -> Csr:
    """The non-zero entries of dense blocks of rows, one block below the other."""
    counts, indices, values = [], [], []
    for block in blocks:
        rows, columns = torch.nonzero(block, as_tuple=True)
        counts.append(torch.bincount(rows, minlength=block.shape[0]))
        indices.append(columns.to(torch.int32))
        values.append(block[rows, columns])
    return csr_of_counts(torch.cat(counts), torch.cat(indices), torch.cat(values), n_columns)


def stack_rows(parts: list[Csr]) -> Csr:
    """One matrix from blocks of its rows."""
    counts = torch.cat([part.indptr.diff().long() for part in parts])
    indices, values = torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts])
    return csr_of_counts(counts, indices, values, parts[0].shape[1])


def scale(csr: Csr, *, rows: torch.Tensor) -> Csr:
    """diag(rows) @ csr, computed in the dtype of ``rows`` and stored in that of the values."""
    values = torch.empty_like(csr.values)
    for part, offsets in _row_parts(csr):
        entries = slice(int(offsets[0]), int(offsets[-1]))
        factor = torch.repeat_interleave(rows[part], offsets.diff(), output_size=entries.stop - entries.start)
        values[entries] = (csr.values[entries] * factor).to(values.dtype)
    return csr._replace(values=values)


def _row_parts(csr: Csr) -> Iterator[tuple[slice, torch.Tensor]]:
    """Chunks of rows and their offsets: float64 temporaries of all entries would take several times the matrix."""
    per_row = -(-csr.nnz // max(1, csr.shape[0]))
    for part in row_chunks(csr.shape[0], per_row, chunk_elements(csr.values.device)):
        yield part, csr.indptr[part.start : part.stop + 1].long()


def row_sums(csr: Csr) -> torch.Tensor:  # (n_rows,) float64
    """Sums of the rows in float64, added in the order of the entries: the same bits in every run."""
    sums = torch.empty(csr.shape[0], dtype=torch.float64, device=csr.values.device)
    for part, offsets in _row_parts(csr):
        values = csr.values[int(offsets[0]) : int(offsets[-1])].double()
        sums[part] = torch.segment_reduce(values, "sum", offsets=offsets - offsets[0], initial=0)
    return sums
