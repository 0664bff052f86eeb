"""The largest eigenpairs against all of them."""

from __future__ import annotations

import pytest
import torch

from mmphate_gpu.errors import InputError
from mmphate_gpu.linalg.random import seeded_generator
from mmphate_gpu.linalg.top_eigenpairs import fix_signs, top_eigenpairs

from .matrices import SPECTRA, symmetric


@pytest.mark.parametrize("order", ["magnitude", "algebraic"])
@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("n", [200, 20, 4])
def test_top_eigenpairs_against_eigh(n, spectrum, order, device):
    matrix = symmetric(SPECTRA[spectrum](n))
    k = min(6, n)
    on_device = matrix.to(device)
    values, vectors = top_eigenpairs(
        lambda block: on_device @ block, n, k, order=order, device=device, generator=seeded_generator(0)
    )
    values, vectors = values.cpu(), vectors.cpu()
    exact = torch.linalg.eigvalsh(matrix)
    rank = exact.abs() if order == "magnitude" else exact
    expected = exact[rank.argsort(descending=True)][:k]
    # Measured: values 1.9e-13 (a randomized subspace of 80 of 200 dimensions), residuals, which are its square root,
    # 7e-8; where the subspace is all there is 2e-15 and 2e-15.
    if order == "magnitude":  # of two with one magnitude either may come first
        torch.testing.assert_close(values.abs(), expected.abs(), rtol=0, atol=1e-11)
    else:
        torch.testing.assert_close(values, expected, rtol=0, atol=1e-11)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(k, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(matrix @ vectors, vectors * values, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [106, 500])
def test_top_eigenpairs_of_a_space_that_is_exhausted(n, dtype):
    """The last block has room for a few directions only: the rounding of the others must not enter the basis."""
    exact = torch.linspace(1, 0, n, dtype=torch.float64) ** 4
    matrix = symmetric(exact).to(dtype)
    pairs = top_eigenpairs(lambda b: (matrix @ b.to(dtype)).double(), n, 6, n_passes=n, generator=seeded_generator(0))
    # Measured: 4e-15, and 1.5e-8 for products in float32.
    error = {torch.float32: 2e-7, torch.float64: 5e-14}[dtype]
    torch.testing.assert_close(pairs[0], exact[:6], rtol=0, atol=error)
    torch.testing.assert_close(pairs[1].T @ pairs[1], torch.eye(6, dtype=torch.float64), rtol=0, atol=5e-14)


def test_top_eigenpairs_in_float32():
    matrix = symmetric(SPECTRA["falling"](200)).float()
    values, vectors = top_eigenpairs(
        lambda block: matrix @ block, 200, 10, dtype=torch.float32, generator=seeded_generator(0)
    )
    assert vectors.dtype == torch.float32 and values.dtype == torch.float64
    # Measured: 9e-8.
    torch.testing.assert_close(values, SPECTRA["falling"](200)[:10], rtol=0, atol=1e-6)


def test_more_eigenpairs_than_rows():
    values, vectors = top_eigenpairs(lambda block: 2 * block, 5, 9, generator=seeded_generator(0))
    torch.testing.assert_close(values, torch.full((5,), 2.0, dtype=torch.float64))
    assert vectors.shape == (5, 5)


def test_top_eigenpairs_one_seed_one_result():
    matrix = symmetric(SPECTRA["falling"](100))
    first, again = (top_eigenpairs(lambda b: matrix @ b, 100, 5, generator=seeded_generator(7)) for _ in range(2))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])


def test_top_eigenpairs_unknown_order():
    with pytest.raises(InputError, match="order='smallest' is unknown"):
        top_eigenpairs(lambda block: block, 5, 2, order="smallest")


def test_top_eigenpairs_products():
    """There are as many products as passes, with blocks of k + 10 columns in the requested dtype."""
    matrix, blocks = symmetric(SPECTRA["falling"](200)), []

    def product(block):
        blocks.append((tuple(block.shape), block.dtype))
        return matrix.to(block.dtype) @ block

    top_eigenpairs(product, 200, 6, n_passes=4, generator=seeded_generator(0))
    assert blocks == [((200, 16), torch.float64)] * 4
    top_eigenpairs(product, 200, 6, n_passes=2, block=9, dtype=torch.float32, generator=seeded_generator(0))
    assert blocks[4:] == [((200, 9), torch.float32)] * 2


def test_fix_signs():
    vectors = torch.tensor([[1.0, 1.0, 0.0], [-3.0, 2.0, 0.0]])
    assert torch.equal(fix_signs(vectors), torch.tensor([[-1.0, 1.0, 0.0], [3.0, 2.0, 0.0]]))
    assert fix_signs(torch.empty(0, 3)).shape == (0, 3)
