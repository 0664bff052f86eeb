"""The members of the protocol: every form, every dtype and every device against dense matrices."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.operators import AffinityOperator
from mmphate_gpu.ops import csr as csr_ops

from .forms import GROUPS, N_NODES, N_SLICES, N_UNITS, TOLERANCE, assert_near, right_hand_side


def test_attributes(operator, dtype, device):
    assert isinstance(operator, AffinityOperator)
    assert operator.shape == (N_NODES, N_NODES)
    assert operator.dtype == dtype
    assert operator.device.type == device.type
    assert operator.nbytes > 0
    assert repr(operator).startswith(f"{type(operator).__name__}(shape=({N_NODES}, {N_NODES}), dtype={dtype}")


def test_to_dense(operator, dtype, dense_oracle, entry_tolerance):
    dense = operator.to_dense()
    assert dense.dtype == dtype
    np.testing.assert_array_equal(dense.cpu().numpy() > 0, dense_oracle > 0)
    assert_near(dense, dense_oracle, entry_tolerance)
    # The cut leaves some pairs of slices and takes others, or the pattern would say nothing.
    unit = dense_oracle.reshape(N_SLICES, N_UNITS, N_SLICES, N_UNITS)[:, 0, :, 0]
    assert 0.1 < (unit > 0).mean() < 0.9


def test_to_csr_is_in_order(operator, dense_oracle):
    csr = operator.to_csr()
    assert csr.shape == operator.shape and csr.values.dtype == operator.dtype
    assert csr.nnz == int(csr.indptr[-1]) == (dense_oracle > 0).sum()
    rows = csr.row_of_entry()
    ascending = (rows[1:] > rows[:-1]) | (csr.indices[1:] > csr.indices[:-1])
    assert bool(ascending.all())  # columns ascend, none occurs twice


def test_product_with_a_vector(operator, dtype, device, dense_oracle, product_tolerance):
    vector = right_hand_side(N_NODES, dtype=dtype, device=device)
    product = operator @ vector
    assert product.shape == (N_NODES,) and product.dtype == dtype and product.device.type == device.type
    assert_near(product, dense_oracle @ vector.cpu().double().numpy(), product_tolerance)


def test_product_with_a_matrix(operator, dtype, device, dense_oracle, product_tolerance):
    matrix = right_hand_side(N_NODES, 16, dtype=dtype, device=device)
    product = operator @ matrix
    assert product.shape == (N_NODES, 16) and product.dtype == dtype
    assert_near(product, dense_oracle @ matrix.cpu().double().numpy(), product_tolerance)


def test_product_with_one_column_keeps_its_axis(operator, dtype, device):
    vector = right_hand_side(N_NODES, dtype=dtype, device=device)
    column = operator @ vector[:, None]
    assert column.shape == (N_NODES, 1)
    assert torch.equal(column[:, 0], operator @ vector)


LAYOUTS = {
    "transposed": lambda x: x.T.contiguous().T,
    "every other row": lambda x: torch.repeat_interleave(x, 2, 0)[::2],
    "every other column": lambda x: torch.repeat_interleave(x, 2, 1)[:, ::2],
    "expanded": lambda x: x[:, :1].expand(-1, 16),
    "offset": lambda x: torch.cat([x[:3], x])[3:],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_product_with_non_contiguous(operator, dtype, device, layout):
    strided = LAYOUTS[layout](right_hand_side(N_NODES, 16, dtype=dtype, device=device))
    before = strided.clone()
    assert torch.equal(operator @ strided, operator @ strided.contiguous())
    assert torch.equal(strided, before)  # and the argument is left alone


def test_product_with_a_strided_vector(operator, dtype, device):
    vector = right_hand_side(N_NODES, dtype=dtype, device=device)
    assert torch.equal(operator @ torch.repeat_interleave(vector, 2)[::2], operator @ vector)


def test_product_with_no_columns(operator, dtype, device):
    empty = operator @ torch.empty(N_NODES, 0, dtype=dtype, device=device)
    assert empty.shape == (N_NODES, 0) and empty.dtype == dtype


@pytest.mark.parametrize("block_dtype", [torch.float16, torch.float32, torch.float64, torch.int64, torch.bool], ids=str)
def test_product_is_in_the_dtype_of_the_operator(operator, dtype, device, block_dtype):
    ones = torch.ones(N_NODES, dtype=block_dtype, device=device)
    product = operator @ ones
    assert product.dtype == dtype
    assert torch.equal(product, operator @ ones.to(dtype))


@pytest.mark.parametrize("shape", [(), (N_NODES - 1,), (N_NODES + 1, 3), (3, N_NODES), (N_NODES, 2, 2), (0,)], ids=str)
def test_wrong_shapes_are_refused(operator, dtype, device, shape):
    with pytest.raises(InputError, match=rf"right-hand side has shape .* accepted: \({N_NODES},\) or \({N_NODES}, C\)"):
        operator @ torch.zeros(shape, dtype=dtype, device=device)


@pytest.mark.parametrize(
    "other", [np.zeros(N_NODES), [0.0] * N_NODES, 2.0, None], ids=lambda other: type(other).__name__
)
def test_other_types_are_refused(operator, other):
    with pytest.raises(InputTypeError, match="right-hand side is a .*; accepted: a torch tensor"):
        operator @ other


def test_complex_is_refused(operator, device):
    with pytest.raises(InputTypeError, match="complex64; accepted: real numbers"):
        operator @ torch.zeros(N_NODES, dtype=torch.complex64, device=device)


def test_symmetry_by_dot_test(operator, dtype, device, product_tolerance):
    """<x, K y> = <K x, y>."""
    x, y = (right_hand_side(N_NODES, dtype=dtype, device=device, seed=seed) for seed in (1, 2))
    left, right = float(x.double() @ (operator @ y).double()), float((operator @ x).double() @ y.double())
    # Measured: 9.5e-6 and 1.4e-14, in half precision 7.6e-4; a dot product adds 92 such errors, of either sign.
    assert left == pytest.approx(right, abs=10 * product_tolerance)


def test_linearity(operator, dtype, device, product_tolerance):
    x, y = (right_hand_side(N_NODES, dtype=dtype, device=device, seed=seed) for seed in (1, 2))
    assert_near(operator @ (2 * x - y), 2 * (operator @ x) - operator @ y, 4 * product_tolerance)


def test_row_sums(operator, dtype, device, dense_oracle, product_tolerance):
    sums = operator.row_sums()
    assert sums.dtype == torch.float64 and sums.shape == (N_NODES,) and sums.device.type == device.type
    assert_near(sums, dense_oracle.sum(1), product_tolerance)


@pytest.mark.parametrize("groups", GROUPS)
def test_aggregate(operator, dtype, device, dense_oracle, groups):
    labels = GROUPS[groups]().to(device)
    n = int(labels.max()) + 2  # one more than occurs: a column without entries
    aggregated = operator.aggregate(labels, n)
    one_hot = np.eye(n)[labels.cpu().numpy()]
    assert aggregated.shape == (N_NODES, n) and aggregated.values.dtype == dtype
    dense = csr_ops.to_torch(aggregated).to_dense()
    np.testing.assert_array_equal(dense.cpu().numpy() > 0, dense_oracle @ one_hot > 0)
    assert_near(dense, dense_oracle @ one_hot, TOLERANCE[dtype])


def test_aggregate_agrees_with_the_entries_of_the_form(operator, dtype, device, form):
    labels = GROUPS["random"]().to(device)
    one_hot = torch.nn.functional.one_hot(labels, 9).to(torch.float64)
    expected = operator.to_dense().double() @ one_hot
    # Sums of exact entries against those of rounded ones. Measured: 2.3e-4.
    tolerance = 1e-3 if form == "tiles" else TOLERANCE[dtype]
    assert_near(csr_ops.to_torch(operator.aggregate(labels, 9)).to_dense(), expected, tolerance)


def test_same_bits_on_every_run(operator, dtype, device):
    block, labels = right_hand_side(N_NODES, 16, dtype=dtype, device=device), GROUPS["random"]().to(device)
    assert torch.equal(operator @ block, operator @ block)
    assert torch.equal(operator.row_sums(), operator.row_sums())
    assert torch.equal(operator.aggregate(labels, 9).values, operator.aggregate(labels, 9).values)


def test_pickling(operator, dtype, device):
    again = pickle.loads(pickle.dumps(operator))
    assert type(again) is type(operator) and (again.shape, again.dtype) == (operator.shape, operator.dtype)
    assert torch.equal(again.to_dense(), operator.to_dense())
    block = right_hand_side(N_NODES, 16, dtype=dtype, device=device)
    assert torch.equal(again @ block, operator @ block)
