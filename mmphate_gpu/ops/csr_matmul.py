"""A sparse matrix by rows times a thin dense one."""

from __future__ import annotations

import torch

from .csr import Csr, to_torch
from .launch.twins import PORTABLE, twins

# On the CPU the library's product has the lead in float32 below this many columns (suite ops); in float64
# it never has, since it takes a copy of the values first. On CUDA the twin always serves. It sums each row by itself,
# so a part of the rows gets the same bits as all rows together. No library promises that.
FLOAT32_FROM = 32


def matmul(csr: Csr, block: torch.Tensor, *, interleave: int = 1) -> torch.Tensor:  # (n, m), (m, C) -> (n, C)
    """``csr @ block``, computed and returned in the dtype of ``block`` (float32 or float64).

    ``interleave`` is a hint about the order of the rows: rows r and r + interleave have neighbouring columns, as those
    of one unit have in node order. It changes no result. O(nnz C) time. Deterministic.
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
