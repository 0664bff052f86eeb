"""The weighted Gram matrix of a tall sparse matrix."""

from __future__ import annotations

from itertools import pairwise

import torch

from ..ops.chunks import chunk_elements
from ..ops.csr import Csr, scale, to_torch
from .symmetric_product import symmetric_product

# With a larger share of non-zero entries, dense products are faster on a CPU. On two cores the sparse product of the
# libraries forms about 2e8 pairs of entries a second and the dense one 4e10; a row makes (share n)^2 pairs of n^2.
DENSE_SHARE = 0.07
# Elements of a dense block on CUDA, in multiples of n^2; such a block takes about a millisecond.
CUDA_SQUARES = 4


def sparse_gram(matrix: Csr, weights: torch.Tensor) -> torch.Tensor:  # (m, n), (m,) -> (n, n) float64
    """``matrix^T diag(weights) matrix`` for weights >= 0, in float64 and exactly symmetric.

    Dense blocks take O(m n^2) time. They are always used on CUDA, where the sparse product of cuSPARSE refuses more
    than 2^31 pairs of entries and takes memory for each of them. On a CPU sparse rows take O(sum over rows of
    nnz_row^2) time, by MKL where torch has it (x86), else by SciPy. O(n^2 + nnz) memory.
    """
    if matrix.values.is_cuda or matrix.nnz > DENSE_SHARE * matrix.shape[0] * matrix.shape[1]:
        return _dense_gram(matrix, weights.double().sqrt())
    half = scale(matrix._replace(values=matrix.values.double()), rows=weights.double().sqrt())
    gram = _sparse_product(half)
    return (gram + gram.T).div_(2)


def _sparse_product(half: Csr) -> torch.Tensor:
    # MKL's indices are 32 bits wide in torch's builds.
    if not torch.backends.mkl.is_available() or half.indices.dtype == torch.int64:
        return _by_scipy(half)
    # `torch.sparse.mm` of two CSR matrices leaks 12 bytes an entry on the CPU (with torch 2.13), and takes three times
    # as long.
    rows = to_torch(half)
    out = half.values.new_zeros(half.shape[1], half.shape[1])
    return torch.addmm(out, rows.t().to_sparse_csr(), rows, beta=0, out=out)


def _by_scipy(half: Csr) -> torch.Tensor:
    from scipy.sparse import csr_matrix

    rows = csr_matrix((half.values.numpy(), half.indices.numpy(), half.indptr.numpy()), shape=half.shape)
    return torch.from_numpy((rows.T.tocsr() @ rows).toarray())


def block_rows(n_rows: int, n: int, device: torch.device) -> int:
    """Rows of a dense block."""
    squares = CUDA_SQUARES if device.type == "cuda" else 1
    return min(n_rows, max(chunk_elements(device), squares * n * n) // n)


def _dense_gram(matrix: Csr, roots: torch.Tensor) -> torch.Tensor:
    n, device = matrix.shape[1], matrix.values.device
    gram = torch.zeros(n, n, dtype=torch.float64, device=device)
    step = block_rows(matrix.shape[0], n, device)
    starts = torch.arange(0, matrix.shape[0] + step, step, device="cpu").clamp_max(matrix.shape[0])
    offsets = matrix.indptr[starts.to(device)].tolist()  # read once: each read synchronizes
    block = torch.empty(step, n, dtype=torch.float64, device=device)
    for (start, first), (stop, last) in pairwise(zip(starts.tolist(), offsets, strict=True)):
        counts = matrix.indptr[start : stop + 1].diff().long()
        row = torch.repeat_interleave(counts, output_size=last - first)
        part = block[: stop - start].zero_()
        part[row, matrix.indices[first:last].long()] = matrix.values[first:last].double()
        part.mul_(roots[start:stop, None])
        gram += symmetric_product(part.T, part)
    return gram
