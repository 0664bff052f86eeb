"""The weighted Gram matrix of a tall sparse matrix."""

from __future__ import annotations

import torch

from .chunks import CHUNK_ELEMENTS, row_chunks
from .csr import Csr, scale, take_rows, to_torch
from .symmetric_product import symmetric_product

# Share of non-zero entries above which dense products win: the sparse product of the libraries forms about 2e8 pairs of
# entries a second on two cores, the dense one 4e10, and a row makes (share n)^2 pairs of n^2.
DENSE_SHARE = 0.07


def sparse_gram(matrix: Csr, weights: torch.Tensor) -> torch.Tensor:  # (N, n), (N,) -> (n, n) float64
    """``matrix^T diag(weights) matrix`` for weights from 0, in float64 and exactly symmetric.

    O(sum over rows of nnz_row^2) time, or O(N n^2) where the rows are dense; O(n^2 + nnz) memory. On the CPU by MKL
    where torch has it (x86), else by SciPy.
    """
    if matrix.nnz > DENSE_SHARE * matrix.shape[0] * matrix.shape[1]:
        return _dense_gram(matrix, weights.double().sqrt())
    half = scale(matrix._replace(values=matrix.values.double()), rows=weights.double().sqrt())
    gram = _sparse_product(half)
    return (gram + gram.T).div_(2)


def _sparse_product(half: Csr) -> torch.Tensor:
    rows = to_torch(half)
    if rows.is_cuda:
        return _dense(torch.sparse.mm(rows.t().to_sparse_csr(), rows))
    if (
        not torch.backends.mkl.is_available() or half.indices.dtype == torch.int64
    ):  # MKL's indices here are 32 bits wide
        return _by_scipy(half)
    # Not `torch.sparse.mm`, which on the CPU never gives back 12 bytes an entry of a product of two CSR matrices (seen
    # with torch 2.13) and takes three times as long.
    out = torch.zeros(half.shape[1], half.shape[1], dtype=half.values.dtype)
    return torch.addmm(out, rows.t().to_sparse_csr(), rows, beta=0, out=out)


def _by_scipy(half: Csr) -> torch.Tensor:
    from scipy.sparse import csr_matrix

    rows = csr_matrix((half.values.numpy(), half.indices.numpy(), half.indptr.numpy()), shape=half.shape)
    return torch.from_numpy((rows.T.tocsr() @ rows).toarray())


def _dense(matrix: torch.Tensor) -> torch.Tensor:
    """A sparse CSR tensor as a dense one, some rows at a time: torch's `to_dense` takes 50 bytes an entry beside it."""
    out = torch.zeros(matrix.shape, dtype=matrix.dtype, device=matrix.device)
    indptr, columns, values = matrix.crow_indices().long(), matrix.col_indices(), matrix.values()
    for part in row_chunks(out.shape[0], -(-values.numel() // out.shape[0])):
        entries = slice(int(indptr[part.start]), int(indptr[part.stop]))
        counts = indptr[part.start : part.stop + 1].diff()
        row = torch.arange(part.start, part.stop, device=out.device)
        row = torch.repeat_interleave(row, counts, output_size=entries.stop - entries.start)
        out[row, columns[entries].long()] = values[entries]
    return out


def _dense_gram(matrix: Csr, roots: torch.Tensor) -> torch.Tensor:
    n = matrix.shape[1]
    gram = torch.zeros(n, n, dtype=torch.float64, device=matrix.values.device)
    for rows in row_chunks(matrix.shape[0], n, max(CHUNK_ELEMENTS, n * n)):
        part = take_rows(matrix, torch.arange(rows.start, rows.stop, device=gram.device))
        block = to_torch(part._replace(values=part.values.double())).to_dense().mul_(roots[rows, None])
        gram += symmetric_product(block.T, block)
    return gram
