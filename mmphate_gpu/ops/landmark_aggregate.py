"""Sums of the rows of a sparse matrix by the label of the column: K @ onehot(labels) without the one-hot matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from .chunks import row_chunks
from .csr import Csr, index_dtype, indptr_of_counts, of_dense_rows
from .launch import native
from .launch.cuda import Gpu, storage_types
from .launch.kernel import Launch, blocks_of
from .launch.twins import cpp_twin, cuda_twin, twins
from .scatter_sum import scatter_sum

# Labels whose sums a block of the CUDA twin holds at once: with 32 values they fill the 48 KiB of shared memory that
# every launch has.
WINDOW = 6112


def aggregate(csr: Csr, labels: torch.Tensor, n: int) -> Csr:  # (r, k), (k,) int64 -> (r, n)
    """``csr @ onehot(labels)`` of entries >= 0 and labels 0 .. n - 1, summed in float64. O(nnz) time. Deterministic."""
    indptr, indices, values = landmark_aggregate(csr.indptr, csr.indices, csr.values, labels, n)
    return Csr(indptr, indices, values, (csr.shape[0], n))


@twins("(Tensor indptr, Tensor indices, Tensor values, Tensor labels, int n) -> (Tensor, Tensor, Tensor)")
def landmark_aggregate(
    indptr: torch.Tensor, indices: torch.Tensor, values: torch.Tensor, labels: torch.Tensor, n: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`aggregate` for the tensors of a CSR matrix."""
    return of_dense_rows(_sums(indptr, indices, values, labels, n), n)[:3]


def _sums(
    indptr: torch.Tensor, indices: torch.Tensor, values: torch.Tensor, labels: torch.Tensor, n: int
) -> Iterator[torch.Tensor]:
    """Dense blocks of rows of the result."""
    for rows in row_chunks(indptr.numel() - 1, n):
        part = slice(int(indptr[rows.start]), int(indptr[rows.stop]))
        counts = (indptr[rows.start + 1 : rows.stop + 1] - indptr[rows.start : rows.stop]).long()
        flat = torch.repeat_interleave(torch.arange(counts.numel(), device=indptr.device) * n, counts)
        flat += labels[indices[part].long()]
        yield scatter_sum(flat, values[part].double(), counts.numel() * n).view(-1, n).to(values.dtype)


@cpp_twin(landmark_aggregate)
def landmark_aggregate_cpp(indptr, indices, values, labels, n):
    indptr, indices, values = (part.contiguous() for part in (indptr, indices, values))
    matrix = (indptr, indices, indices.dtype, values, values.dtype)
    inputs = (*matrix, labels.to(torch.int32).contiguous(), indptr.numel() - 1, n)
    return _count_and_fill(partial(native.call, "landmark_aggregate", "iifsllsf", *inputs), indptr, values, n)


@cuda_twin(
    landmark_aggregate, rehearse=lambda sizes: [(*sizes.matrix(), sizes.zeros(sizes.n_points, dtype=torch.int64), 1)]
)
def landmark_aggregate_cuda(gpu: Gpu, indptr, indices, values, labels, n):
    indptr, indices, values = (part.contiguous() for part in (indptr, indices, values))
    window = min(WINDOW, blocks_of(n, 32) * 32)
    inputs = (indptr, indices, values, labels.to(torch.int32).contiguous(), n, window)
    types = storage_types(indices.dtype, values.dtype)

    def run(*outputs: torch.Tensor | None) -> None:
        blocks, op = indptr.numel() - 1, "landmark_aggregate"
        gpu.run(Launch(op, op, (*inputs, *outputs), blocks, 32, 8 * (window + 32), types), values.device)

    return _count_and_fill(run, indptr, values, n)


def _count_and_fill(
    run: Callable[..., None], indptr: torch.Tensor, values: torch.Tensor, n: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The result of a twin that ``run`` starts twice: it counts the entries of every row, then it writes them."""
    counts = torch.empty(indptr.numel() - 1, dtype=torch.int64, device=values.device)
    run(None, counts, None, None)
    out_indptr = indptr_of_counts(counts)
    nnz = int(out_indptr[-1])
    out_indices = torch.empty(nnz, dtype=torch.int32, device=values.device)
    out_values = torch.empty(nnz, dtype=values.dtype, device=values.device)
    run(out_indptr, None, out_indices, out_values)
    dtype = index_dtype(nnz, n)
    return out_indptr.to(dtype), out_indices.to(dtype), out_values
