"""Conversions to other tools: every form, every dtype and every device against dense matrices."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import eigsh

from mmphate_gpu.errors import InputError
from mmphate_gpu.operators import as_linear_operator, to_cupy, to_scipy, to_torch_csr
from mmphate_gpu.runtime import memory

from .forms import HALF_FORMS, N_NODES, TOLERANCE, assert_near, make, right_hand_side


def test_to_scipy(operator, dense_oracle, dtype):
    matrix = to_scipy(operator)
    assert matrix.has_sorted_indices and matrix.has_canonical_format
    assert matrix.dtype == {torch.float32: np.float32, torch.float64: np.float64}[dtype]
    np.testing.assert_allclose(matrix.toarray(), dense_oracle, rtol=0, atol=TOLERANCE[dtype])


def test_to_torch_csr(operator, dtype, device, dense_oracle):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # among them torch's notice that sparse CSR is in beta
        tensor = to_torch_csr(operator)
    assert tensor.layout == torch.sparse_csr and tensor.dtype == dtype and tensor.device.type == device.type
    assert_near(tensor.to_dense(), dense_oracle, TOLERANCE[dtype])
    block = right_hand_side(N_NODES, 16, dtype=dtype, device=device)
    assert_near(tensor @ block, dense_oracle @ block.cpu().double().numpy(), TOLERANCE[dtype])


def test_as_linear_operator(operator, dense_oracle, product_tolerance):
    linear = as_linear_operator(operator)
    assert linear.shape == operator.shape
    rng = np.random.default_rng(0)
    vector, matrix = rng.normal(size=N_NODES), rng.normal(size=(N_NODES, 16))
    for actual, expected in [
        (linear @ vector, dense_oracle @ vector),
        (linear @ matrix, dense_oracle @ matrix),
        (linear.H @ vector, dense_oracle @ vector),
        (linear.T @ matrix, dense_oracle @ matrix),
    ]:
        assert isinstance(actual, np.ndarray)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=product_tolerance)


def test_as_linear_operator_takes_read_only_and_reversed(operator):
    vector = np.arange(N_NODES, dtype=np.float64)
    linear = as_linear_operator(operator)
    expected = linear @ vector[::-1].copy()
    vector.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(linear @ vector[::-1], expected)
        linear @ vector


def test_as_linear_operator_in_scipys_solvers(operator, form, dtype, dense_oracle):
    actual = eigsh(as_linear_operator(operator), k=3, return_eigenvectors=False, v0=np.ones(N_NODES), tol=1e-10)
    # Measured: 4e-15 and 7e-7 of 21 (float32: the operator's own rounding), in half precision 4.7e-4.
    rtol = 1e-4 if form in HALF_FORMS else 10 * TOLERANCE[dtype]
    np.testing.assert_allclose(np.sort(actual), np.linalg.eigvalsh(dense_oracle)[-3:], rtol=rtol)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_to_cupy(dense_oracle):
    pytest.importorskip("cupy")
    # The last card, which is not the current one if there are several.
    card = torch.device("cuda", torch.cuda.device_count() - 1)
    matrix = to_cupy(make("sparse", torch.float64, card))
    assert matrix.data.device.id == card.index
    np.testing.assert_allclose(matrix.toarray().get(), dense_oracle, rtol=0, atol=1e-13)


def test_to_cupy_names_the_missing_package(monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("CuPy may be installed")
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(InputError, match=r"to_cupy needs the package 'cupy'.*mmphate-gpu\[cuda13\]"):
        to_cupy(make("sparse", torch.float64, torch.device("cpu")))


def test_conversions_return_copies(operator):
    """An estimator keeps its operator for the next fit."""
    expected = operator.to_dense()
    matrix = to_scipy(operator)
    for part in (matrix.data, matrix.indices, matrix.indptr):
        part[:] = 1
    tensor = to_torch_csr(operator)
    for part in (tensor.values(), tensor.col_indices(), tensor.crow_indices()):
        part.fill_(1)
    for part in operator.to_csr()[:3]:  # which torch does not see
        part.cpu().numpy()[:] = 1
    assert torch.equal(operator.to_dense(), expected)


def test_a_copy_that_does_not_fit_is_refused(monkeypatch):
    operator = make("sparse", torch.float64, torch.device("cpu"))
    monkeypatch.setenv(memory.MEMORY_LIMIT_VARIABLE, str(operator.nbytes - 1))
    for convert in (to_scipy, to_torch_csr):
        with pytest.raises(InputError, match="a copy of the affinity with .* as_linear_operator"):
            convert(operator)
