"""Compressed sparse rows: the one container that ops hand to one another."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch

from ..runtime.isolation import isolated
from .chunks import chunk_elements, row_chunks


class Csr(NamedTuple):
    """A sparse matrix by rows; ``indices`` ascend within a row.

    ``indptr`` and ``indices`` share one integer type: int32 while the entries allow it, else int64.
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
    """Row offsets from row lengths (the scan between count and fill)."""
    indptr = torch.zeros(counts.numel() + 1, dtype=torch.int64, device=counts.device)
    torch.cumsum(counts, 0, out=indptr[1:])
    return indptr


def moved(csr: Csr, device: torch.device, *, copy: bool = False) -> Csr:
    """The same matrix on ``device``; with ``copy`` never in the same memory."""
    return csr._replace(**{name: getattr(csr, name).to(device, copy=copy) for name in ("indptr", "indices", "values")})


def to_torch(csr: Csr) -> torch.Tensor:
    """The same matrix as a torch sparse CSR tensor; shares the memory."""
    return torch.sparse_csr_tensor(*csr, device=csr.values.device, check_invariants=False)


# torch warns once in a process that sparse CSR is in beta. The operator conformance suite tests what is used of it.
# The warning is triggered and ignored at import, because `catch_warnings` is not safe in several threads at once.
with isolated(), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    empty = torch.empty(0, dtype=torch.int64, device="cpu")
    to_torch(Csr(torch.arange(1, device="cpu"), empty, empty, (0, 0)))


def of_dense_rows(blocks: Iterable[torch.Tensor], n_columns: int) -> Csr:
    """Stack dense row blocks (n_b, n_columns), keeping the non-zero entries only."""
    counts, indices, values = [], [], []
    for block in blocks:
        rows, columns = torch.nonzero(block, as_tuple=True)
        counts.append(torch.bincount(rows, minlength=block.shape[0]))
        indices.append(columns.to(torch.int32))
        values.append(block[rows, columns])
    indptr = indptr_of_counts(torch.cat(counts))
    kind = index_dtype(int(indptr[-1]), n_columns)
    return Csr(indptr.to(kind), torch.cat(indices).to(kind), torch.cat(values), (indptr.numel() - 1, n_columns))


def stack_rows(parts: list[Csr]) -> Csr:
    """Row blocks with the same columns, one below the other."""
    indptr = indptr_of_counts(torch.cat([part.indptr.diff().long() for part in parts]))
    n_columns = parts[0].shape[1]
    kind = index_dtype(int(indptr[-1]), n_columns)
    indices = torch.cat([part.indices.to(kind) for part in parts])
    return Csr(indptr.to(kind), indices, torch.cat([part.values for part in parts]), (indptr.numel() - 1, n_columns))


def scale(csr: Csr, *, rows: torch.Tensor) -> Csr:
    """diag(rows) @ csr, computed in the type of ``rows`` and kept in that of the values."""
    values = torch.empty_like(csr.values)
    for part, offsets in _row_parts(csr):
        entries = slice(int(offsets[0]), int(offsets[-1]))
        factor = torch.repeat_interleave(rows[part], offsets.diff(), output_size=entries.stop - entries.start)
        values[entries] = (csr.values[entries] * factor).to(values.dtype)
    return csr._replace(values=values)


def _row_parts(csr: Csr) -> Iterator[tuple[slice, torch.Tensor]]:
    """Chunks of rows and their offsets: float64 temporaries of all entries would be several times the matrix."""
    per_row = -(-csr.nnz // max(1, csr.shape[0]))
    for part in row_chunks(csr.shape[0], per_row, chunk_elements(csr.values.device)):
        yield part, csr.indptr[part.start : part.stop + 1].long()


def row_sums(csr: Csr) -> torch.Tensor:  # (n_rows,) float64
    """Sums of the rows, accumulated in float64 in the order of the entries: the same bits each time."""
    sums = torch.empty(csr.shape[0], dtype=torch.float64, device=csr.values.device)
    for part, offsets in _row_parts(csr):
        values = csr.values[int(offsets[0]) : int(offsets[-1])].double()
        sums[part] = torch.segment_reduce(values, "sum", offsets=offsets - offsets[0], initial=0)
    return sums
