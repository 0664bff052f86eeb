"""Symmetric products and powers against eigenvalues and by hand."""

from __future__ import annotations

import math

import pytest
import torch

from mmphate_gpu.linalg.symmetric_power import power_chain, symmetric_power
from mmphate_gpu.linalg.symmetric_product import symmetric_product

from .matrices import SPECTRA, normal, symmetric


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 129, 700])
def test_symmetric_product_against_the_whole(n, device):
    left = normal(n, 40).to(device)
    result, expected = symmetric_product(left, left.T), left @ left.T
    # Sums of 40 products of standard normal numbers. Measured: 3e-14.
    torch.testing.assert_close(result, expected, rtol=0, atol=5e-13)
    assert torch.equal(result, result.T)


def test_symmetric_product_by_hand():
    left = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    assert symmetric_product(left, left.T).tolist() == [[5, 11], [11, 25]]


@pytest.mark.parametrize("t", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("spectrum", ["falling", "of both signs", "low rank", "flat"])
def test_symmetric_power_against_eigh(spectrum, t, device):
    n = 300
    values = torch.linspace(1, 0.9, n, dtype=torch.float64) if spectrum == "flat" else SPECTRA[spectrum](n)
    values = values / values.abs().max()
    matrix = symmetric(values)
    basis = torch.linalg.qr(normal(n, n)).Q
    expected = basis @ torch.diag(values**t) @ basis.T
    result = symmetric_power(((matrix + matrix.T) / 2).to(device), t).cpu()
    # Measured: 1.3e-14 (flat, t = 40: the rounding of the matrix itself, 40 times).
    torch.testing.assert_close(result, expected, rtol=0, atol=5e-14)
    assert torch.equal(result, result.T)


def test_symmetric_power_of_whole_numbers_is_exact():
    """On a path of three nodes there are 2^k walks of 2k + 1 steps between the middle and an end."""
    path = torch.tensor([[0.0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=torch.float64)
    assert symmetric_power(path, 1) is path
    assert symmetric_power(path, 9).tolist() == [[0, 16, 0], [16, 0, 16], [0, 16, 0]]
    assert symmetric_power(path, 10).tolist() == [[16, 0, 16], [0, 32, 0], [16, 0, 16]]


def test_symmetric_power_keeps_tiny_entries_and_zeros():
    """Of the tridiagonal matrix of 1 and 1e-9: entry k off the diagonal of its t-th power is C(t, k) 1e-9^k, or 0."""
    t, step = 13, 1e-9
    matrix = torch.eye(200, dtype=torch.float64) + step * torch.diag(torch.ones(199, dtype=torch.float64), 1)
    matrix = torch.triu(matrix) + torch.triu(matrix, 1).T
    row = symmetric_power(matrix, t)[100]
    expected = torch.tensor([math.comb(t, k) * step**k for k in range(t + 1)], dtype=torch.float64)
    # Next to it stand terms smaller by 1e-18. Measured: 3.5e-16.
    torch.testing.assert_close(row[100 : 101 + t], expected, rtol=1e-14, atol=0)
    assert bool((row[101 + t :] == 0).all()) and bool((row[: 100 - t] == 0).all())


@pytest.mark.parametrize("t", [*range(1, 130), 511, 512, 513, 1000, 4097])
def test_power_chain_leads_to_t(t):
    known = {1}
    for n, a in power_chain(t):
        assert {n, a} <= known
        known.add(n + a)
    assert t in known
    squaring = t.bit_length() - 1 + t.bit_count() - 1
    assert len(power_chain(t)) <= squaring
    assert t > 512 or t == 1 or max(known) == t


def test_power_chain_is_shorter_than_squaring():
    assert [len(power_chain(t)) for t in (15, 31, 43)] == [5, 7, 7]
