"""Inputs that the tests of several twins share, and the comparison of results."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch

from mmphate_gpu.ops.csr import of_dense_rows

# Types of indices and values.
STORAGE = list(itertools.product((torch.int32, torch.int64), (torch.float32, torch.float64)))
# Rows and columns of sparse matrices.
MATRICES = [(90, 90), (1, 40), (40, 1), (33, 700), (700, 33), (64, 64), (65, 3)]


def assert_same(ours: tuple[torch.Tensor, ...], theirs: tuple[torch.Tensor, ...]) -> None:
    """Equal in type, shape and every bit."""
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)


def normal(*shape: int) -> torch.Tensor:
    """Standard normal numbers."""
    return torch.from_numpy(np.random.default_rng(math.prod(shape)).normal(size=shape))


def lattice(*shape: int) -> torch.Tensor:
    """The numbers 0, 1 and 2, so that many distances tie."""
    return torch.from_numpy(np.random.default_rng(math.prod(shape)).integers(0, 3, shape).astype(float))


def duplicates(*shape: int) -> torch.Tensor:
    """Normal points, each of them about three times."""
    return normal(*shape)[:, torch.arange(shape[1]) % max(1, shape[1] // 3)]


def random_csr(
    n_rows: int, n_columns: int, *, value: torch.dtype, index: torch.dtype, density: float = 0.2
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """CSR parts with entries above 0. The first, the last and every seventh row are empty; the middle row is full."""
    rng = np.random.default_rng(n_rows + n_columns)
    mask = rng.random((n_rows, n_columns)) < density
    mask[::7] = mask[-1:] = False
    mask[n_rows // 2] = True
    dense = np.where(mask, rng.uniform(0.1, 1, mask.shape), 0)
    csr = of_dense_rows([torch.from_numpy(dense).to(value)], n_columns)
    return csr.indptr.to(index), csr.indices.to(index), csr.values
