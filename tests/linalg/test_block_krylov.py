"""Orthonormal bases, and inner products that keep their digits."""

from __future__ import annotations

import pytest
import torch

from mmphate_gpu.linalg.block_krylov import _cholesky_qr, inner_products, orthonormalize

from .matrices import normal


def test_orthonormalize_drops_dependent_columns():
    basis = orthonormalize(normal(30, 4), None)
    block = torch.cat([basis @ normal(4, 2), normal(30, 2, seed=3), normal(30, 2, seed=3)], 1)
    result = orthonormalize(block, basis)
    assert result.shape == (30, 2)
    both = torch.cat([basis, result], 1)
    torch.testing.assert_close(both.T @ both, torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-13)


def assert_orthonormal_basis_of(result: torch.Tensor, block: torch.Tensor) -> None:
    eye = torch.eye(result.shape[1], dtype=torch.float64)
    # Measured: 9e-16 and 2e-15 of the longest column.
    torch.testing.assert_close(result.T @ result, eye, rtol=0, atol=2e-14)
    torch.testing.assert_close(result @ (result.T @ block), block, rtol=0, atol=1e-13 * float(block.norm(dim=0).max()))


@pytest.mark.parametrize("n", [20, 500])
def test_cholesky_qr(n):
    """Cholesky-QR is for columns of any length that are not far from orthogonal."""
    block = normal(n, 15) * 10.0 ** torch.linspace(-8, 8, 15, dtype=torch.float64)
    floor = torch.tensor(0.0, dtype=torch.float64)
    quick = _cholesky_qr(block if n == 500 else torch.linalg.qr(block).Q + 0.01 * normal(n, 15, seed=1), floor)
    assert quick is not None
    if n == 500:
        assert_orthonormal_basis_of(quick, block)
        for column in range(15):  # the short columns too, each at its own scale
            unit = block[:, column : column + 1] / block[:, column].norm()
            torch.testing.assert_close(quick @ (quick.T @ unit), unit, rtol=0, atol=1e-13)


REFUSED = {
    "nearly dependent": lambda: torch.cat([normal(50, 3), normal(50, 3)[:, 1:2] + 1e-6 * normal(50, 1, seed=1)], 1),
    "dependent": lambda: normal(50, 2).repeat(1, 2),
    "a column of nothing": lambda: torch.cat([normal(50, 3), torch.zeros(50, 1, dtype=torch.float64)], 1),
}


@pytest.mark.parametrize("name", REFUSED)
def test_cholesky_qr_refuses(name):
    """Cholesky-QR refuses where the Gram matrix has lost the digits; `orthonormalize` then takes the longer way."""
    block = REFUSED[name]()
    assert _cholesky_qr(block, 50 * torch.finfo(block.dtype).eps * block.norm(dim=0).max()) is None
    result = orthonormalize(block, None)
    assert result.shape[1] == {"nearly dependent": 4, "dependent": 2}.get(name, 3)
    assert_orthonormal_basis_of(result, block)


@pytest.mark.parametrize("n", [500, 40_000])
def test_float32_basis_is_orthonormal_to_its_rounding(n):
    """Inner products are summed in float64, so the error does not grow with the number of rows."""
    against = orthonormalize(normal(n, 20, dtype=torch.float32), None)
    result = orthonormalize(normal(n, 15, seed=1, dtype=torch.float32), against)
    both = torch.cat([against, result], 1).double()
    # Measured: 9e-8 and 1.1e-7 for 500 and 40,000 rows.
    torch.testing.assert_close(both.T @ both, torch.eye(35, dtype=torch.float64), rtol=0, atol=5e-7)


def test_inner_products_of_float32_are_near_those_in_float64():
    left, right = normal(10_000, 3, dtype=torch.float32), normal(10_000, 4, seed=1, dtype=torch.float32)
    expected = left.double().T @ right.double()
    # Of columns of length 100: float32 sums of one chunk are off by 1e-8 of the product of the lengths.
    torch.testing.assert_close(inner_products(left, right), expected, rtol=0, atol=1e-3)
