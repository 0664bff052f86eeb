"""Products of a sparse matrix with a thin dense one."""

from __future__ import annotations

import torch

from .csr import Csr, to_torch
from .launch import native
from .launch.cuda import C_TYPES, Gpu, storage_types
from .launch.kernel import Launch, blocks_of
from .launch.twins import PORTABLE, cpp_twin, cuda_twin, twins

# On the CPU torch's product is faster in float32 for fewer columns than this (suite ops). In float64 it never is, since
# it copies the values first. On CUDA the twin is always used: it sums each row by itself, so that some of the rows get
# the same bits as all rows together, which no library promises.
FLOAT32_FROM = 32
# Threads of a block of the CUDA twin; by the most columns of a block, lanes that compute a row and columns of a lane.
THREADS = 256
LANES = {16: (16, 1), 32: (32, 1), 64: (32, 2)}
LANES_OF_WIDEST = (32, 4)


def matmul(csr: Csr, block: torch.Tensor, *, interleave: int = 1) -> torch.Tensor:  # (r, n), (n, C) -> (r, C)
    """``csr @ block``, computed and returned in the dtype of ``block`` (float32 or float64).

    ``interleave`` is a hint about the order of the rows: rows i and i + interleave have columns close to each other, as
    those of one unit have in node order. It changes no result. O(nnz C) time. Deterministic.
    """
    if block.dtype not in (torch.float32, torch.float64) or csr.values.dtype not in (torch.float32, torch.float64):
        return PORTABLE["csr_matmul"](*csr[:3], block, interleave)
    narrow = block.device.type == "cpu" and block.dtype == torch.float32 and block.shape[1] < FLOAT32_FROM
    product = PORTABLE["csr_matmul"] if narrow else csr_matmul
    return product(*csr[:3], block, interleave)


@twins("(Tensor indptr, Tensor indices, Tensor values, Tensor block, int interleave) -> Tensor")
def csr_matmul(
    indptr: torch.Tensor, indices: torch.Tensor, values: torch.Tensor, block: torch.Tensor, interleave: int
) -> torch.Tensor:
    """See `matmul`."""
    shape = (indptr.numel() - 1, block.shape[0])
    return to_torch(Csr(indptr, indices, values.to(block.dtype), shape)) @ block


@cpp_twin(csr_matmul)
def csr_matmul_cpp(indptr, indices, values, block, interleave):
    indptr, indices, values, block = (part.contiguous() for part in (indptr, indices, values, block))
    out = block.new_empty(indptr.numel() - 1, block.shape[1])
    matrix = (indptr, indices, indices.dtype, values, values.dtype)
    native.call("csr_matmul", "iifgg", *matrix, block, out, block.dtype, out.shape[0], *block.shape, interleave)
    return out


@cuda_twin(
    csr_matmul,
    rehearse=lambda sizes: [(*sizes.matrix(), sizes.zeros(sizes.n_points, sizes.n_columns, dtype=torch.float32), 1)],
)
def csr_matmul_cuda(gpu: Gpu, indptr, indices, values, block, interleave):
    indptr, indices, values, block = (part.contiguous() for part in (indptr, indices, values, block))
    n_rows, width = indptr.numel() - 1, block.shape[1]
    out = torch.empty(n_rows, width, dtype=block.dtype, device=block.device)
    lanes, per_lane = next((shape for most, shape in LANES.items() if width <= most), LANES_OF_WIDEST)
    tasks = blocks_of(blocks_of(n_rows, interleave) * interleave, THREADS // lanes)
    blocks = tasks * blocks_of(width, lanes * per_lane)
    types = storage_types(indices.dtype, values.dtype) | {"MMP_BLOCK": C_TYPES[block.dtype]}
    types |= {"MMP_LANES": str(lanes), "MMP_PER_LANE": str(per_lane)}
    arguments = (indptr, indices, values, block, out, n_rows, width, interleave)
    gpu.run(Launch("csr_matmul", "csr_matmul", arguments, blocks, THREADS, defines=types), block.device)
    return out
