"""The CUDA kernels over sparse matrices, emulated, against dense float64 and the C++ twins."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from mmphate_gpu.ops.launch import native
from mmphate_gpu.ops.launch.twins import CPP

from .cases import STORAGE, assert_same, normal, random_csr
from .emulated_checks import has_cpp
from .emulation import Twins, needs_emulation

pytestmark = needs_emulation


# Widths of the dense block with different lanes for a row, or different columns for a lane.
WIDTHS = (1, 16, 17, 33, 110, 300)


def dense_of(indptr: torch.Tensor, indices: torch.Tensor, values: torch.Tensor, n_columns: int) -> torch.Tensor:
    rows = torch.repeat_interleave(torch.arange(indptr.numel() - 1), (indptr[1:] - indptr[:-1]).long())
    dense = torch.zeros(indptr.numel() - 1, n_columns, dtype=torch.float64)
    dense[rows, indices.long()] = values.double()
    return dense


def _check_product(cuda: Twins, csr: tuple[torch.Tensor, ...], block: torch.Tensor, interleave: int) -> None:
    product = cuda.csr_matmul(*csr, block, interleave)
    assert product.dtype == block.dtype
    expected = dense_of(*csr, block.shape[0]) @ block.double()
    most = 1e-4 if block.dtype == torch.float32 else 1e-12
    torch.testing.assert_close(product.double(), expected, rtol=0, atol=most)
    # The baseline has no fused multiply-add, so it rounds once more.
    if has_cpp() and native.isa() != "baseline":
        assert_same((product,), (CPP["csr_matmul"](*csr, block, interleave),))


@pytest.mark.kernels("csr_matmul")
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_csr_matmul_over_widths(cuda: Twins, width: int, dtype: torch.dtype) -> None:
    for n_rows, interleave in ((1, 1), (33, 1), (70, 7), (71, 3)):
        csr = random_csr(n_rows, 60, index=torch.int32, value=torch.float32)
        _check_product(cuda, csr, normal(60, width).to(dtype), interleave)


def test_csr_matmul_over_types(cuda_in_turn: Twins) -> None:
    for (index, value), block in itertools.product(STORAGE, (torch.float32, torch.float64)):
        csr = random_csr(50, 90, index=index, value=value)
        _check_product(cuda_in_turn, csr, normal(90, 110).to(block), 5)


def test_csr_matmul_of_nothing(cuda_in_turn: Twins) -> None:
    empty = (torch.zeros(4, dtype=torch.int32), torch.zeros(0, dtype=torch.int32), torch.zeros(0))
    assert torch.equal(cuda_in_turn.csr_matmul(*empty, torch.ones(5, 16), 1), torch.zeros(3, 16))
    assert cuda_in_turn.csr_matmul(torch.zeros(1, dtype=torch.int32), *empty[1:], torch.ones(5, 16), 1).shape == (0, 16)


@pytest.mark.kernels("landmark_aggregate")
@pytest.mark.parametrize("n_labels", [1, 2, 32, 33, 500, 6112, 6113])
def test_landmark_aggregate(cuda: Twins, n_labels: int) -> None:
    for index, value in STORAGE:
        csr = random_csr(43, 400, index=index, value=value, density=0.5)
        labels = torch.from_numpy(np.random.default_rng(n_labels).integers(0, n_labels, 400))
        labels[:100] = n_labels - 1  # a label with many entries, in the last window
        # Runs of every length up to that of a warp, and two labels that alternate.
        labels[100:300] = labels[100 + (torch.arange(200).double() * 2).sqrt().long()]
        labels[300:340] = labels[300 + torch.arange(40) % 2]
        indptr, indices, values = cuda.landmark_aggregate(*csr, labels, n_labels)
        expected = dense_of(*csr, 400) @ torch.nn.functional.one_hot(labels, n_labels).double()
        result = dense_of(indptr, indices, values, n_labels)
        assert torch.equal(result > 0, expected > 0)
        rounding = 1e-13 if values.dtype == torch.float64 else 1e-7
        torch.testing.assert_close(result, expected, rtol=rounding, atol=0)
        if has_cpp():
            assert_same((indptr, indices, values), CPP["landmark_aggregate"](*csr, labels, n_labels))
