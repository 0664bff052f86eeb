"""Compressed sparse rows against dense matrices."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from mmphate_gpu.ops import csr as csr_ops
from mmphate_gpu.ops.csr import Csr

from ..linalg.matrices import normal
from .sparse import dense_of, of_dense


def test_of_dense_rows_keeps_the_non_zeros(sparse_and_dense):
    csr, dense = sparse_and_dense
    assert csr.nnz == (dense != 0).sum() and csr.indptr.dtype == csr.indices.dtype == torch.int32
    np.testing.assert_array_equal(dense_of(csr), dense)
    np.testing.assert_array_equal(csr.row_of_entry().numpy(), np.nonzero(dense)[0])
    np.testing.assert_array_equal(csr.indices.numpy(), np.nonzero(dense)[1])


def test_to_torch_shares_memory(sparse_and_dense):
    csr, _ = sparse_and_dense
    tensor = csr_ops.to_torch(csr)
    assert tuple(tensor.shape) == csr.shape
    assert tensor.values().data_ptr() == csr.values.data_ptr()


@pytest.mark.parametrize("ends", [[17], [0, 17], [5, 17], [4, 5, 5, 17]], ids=str)
def test_stack_rows(sparse_and_dense, ends):
    """Parts of a matrix, also of a single empty row or of none, stacked again give the same matrix."""
    csr, dense = sparse_and_dense
    parts = [of_dense(dense[start:stop]) for start, stop in pairwise([0, *ends])]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(csr_ops.stack_rows(parts)[:3], csr[:3], strict=True))
    assert csr_ops.stack_rows(parts).shape == csr.shape


def test_stack_rows_of_both_index_types(sparse_and_dense):
    csr, dense = sparse_and_dense
    wide = csr._replace(indptr=csr.indptr.long(), indices=csr.indices.long())
    both = csr_ops.stack_rows([wide, csr])
    assert both.indptr.dtype == both.indices.dtype == torch.int32
    np.testing.assert_array_equal(dense_of(both), np.concatenate([dense, dense]))


def test_scale_and_row_sums(sparse_and_dense):
    csr, dense = sparse_and_dense
    factors = normal(17)
    np.testing.assert_array_equal(dense_of(csr_ops.scale(csr, rows=factors)), factors.numpy()[:, None] * dense)
    np.testing.assert_allclose(csr_ops.row_sums(csr).numpy(), dense.sum(1), rtol=1e-15)


def test_row_sums_of_float32_are_float64():
    """A float32 sum of 1e5 tenths is off by 1e-4 and more; the sum of the float32 values in float64 is not."""
    values = torch.full((100_000,), 0.1, dtype=torch.float32)
    csr = Csr(torch.tensor([0, 100_000]), torch.arange(100_000), values, (1, 100_000))
    sums = csr_ops.row_sums(csr)
    assert sums.dtype == torch.float64 and float(sums) == pytest.approx(100_000 * float(values[0]), rel=1e-12)


def test_scale_keeps_the_dtype():
    csr = of_dense(np.eye(3, dtype=np.float32))
    assert csr_ops.scale(csr, rows=torch.ones(3, dtype=torch.float64)).values.dtype == torch.float32


@pytest.mark.parametrize(
    ("nnz", "columns", "expected"),
    [(0, 1, torch.int32), (2**31 - 1, 5, torch.int32), (2**31, 5, torch.int64), (5, 2**31, torch.int64)],
)
def test_index_dtype(nnz, columns, expected):
    assert csr_ops.index_dtype(nnz, columns) == expected


def test_int64_offsets_are_made_from_int64_counts():
    """The offsets of 3 rows of 1e9 entries do not overflow."""
    indptr = csr_ops.indptr_of_counts(torch.full((3,), 10**9, dtype=torch.int32))
    assert indptr.tolist() == [0, 10**9, 2 * 10**9, 3 * 10**9]
