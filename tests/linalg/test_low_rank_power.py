"""Powers of symmetric matrices from their leading eigenpairs, against products of the whole matrix."""

from __future__ import annotations

import pytest
import torch

from mmphate_gpu.diffusion import diffuse, power
from mmphate_gpu.diffusion.potential import allows_low_rank, potential_distances, potential_of_power
from mmphate_gpu.linalg import low_rank_power as module
from mmphate_gpu.linalg.low_rank_power import low_rank_power
from mmphate_gpu.linalg.random import random_signs, seeded_generator
from mmphate_gpu.linalg.symmetric_power import symmetric_power

N = 1200


def walk_on_a_curve(n: int = N, reach: float = 0.012) -> torch.Tensor:
    """D^-1/2 K D^-1/2 of Gaussian affinities of points along a curve: its eigenvalues fall fast, from 1."""
    at = torch.linspace(0, 1, n, dtype=torch.float64)
    at = at + 0.2 / n * torch.rand(n, generator=seeded_generator(0), dtype=torch.float64)
    affinity = torch.exp(-(((at[:, None] - at) / reach) ** 2))
    root = affinity.sum(1).rsqrt()
    return root[:, None] * affinity * root


@pytest.mark.parametrize("t", [17, 40, 101])
def test_it_is_the_power(t):
    matrix = walk_on_a_curve()
    power = low_rank_power(matrix, t)
    exact = symmetric_power(matrix.clone(), t)
    assert power is not None and torch.equal(power, power.T)
    # Measured: 4e-16, of entries up to 0.017.
    torch.testing.assert_close(power, exact, rtol=0, atol=1e-14)
    assert bool(((power == 0) | (power >= module.NOISE)).all())


@pytest.mark.parametrize(("n", "reach"), [(1024, 0.008), (1024, 0.01), (1151, 0.009)])
@pytest.mark.parametrize("t", [17, 40])
def test_a_basis_that_is_full_is_judged_like_any_other(n, reach, t):
    """A quarter of these sizes is less than a block beyond a place where the basis is tested: the block behind it,
    whose products are the residuals, must be there whole. Cut off, entries were off by 4.6e-10, distances by 1e-4."""
    matrix = walk_on_a_curve(n, reach)
    power = low_rank_power(matrix, t)
    if power is not None:
        exact = symmetric_power(matrix.clone(), t)
        torch.testing.assert_close(power, exact, rtol=0, atol=2e-14)  # measured: 2e-16 where it converged


def test_some_full_bases_converge_and_some_do_not():
    """Without this the test above would show nothing."""
    assert low_rank_power(walk_on_a_curve(1024, 0.008), 40) is None
    assert low_rank_power(walk_on_a_curve(1024, 0.012), 40) is not None


@pytest.mark.parametrize("gamma", [0, -0.5, -1, 1])
def test_distances_of_the_potential_are_right(gamma):
    """Distances from this power may have errors of 1e-6 of the largest distance."""
    assert allows_low_rank(gamma)
    matrix = walk_on_a_curve()
    distances = [
        potential_distances(potential_of_power(power, gamma))
        for power in (low_rank_power(matrix, 30), symmetric_power(matrix.clone(), 30))
    ]
    error = (distances[0] - distances[1]).abs().max() / distances[1].max()
    assert float(error) < 2e-7  # measured: 1.7e-8 for gamma = 0, below 2e-11 for the others


def test_powers_below_the_square_root_need_every_digit():
    assert not any(allows_low_rank(gamma) for gamma in (0.1, 0.5, 0.99))


def test_a_spectrum_that_falls_slowly_is_left_to_products():
    identity = torch.eye(N, dtype=torch.float64)
    assert low_rank_power(0.5 * identity + 0.5 * walk_on_a_curve(), 20) is None


def test_few_products_are_left_to_products():
    assert low_rank_power(walk_on_a_curve(), 8) is None  # three squarings


def test_more_copies_of_an_eigenvalue_than_a_block_has_columns(monkeypatch):
    """A block Krylov space holds no more copies of an eigenvalue than its block has columns, and every residual is
    small all the same: the probes have to see what is missing."""
    pieces = torch.full((module.BLOCK + 8, 30, 30), 1 / 30, dtype=torch.float64)
    matrix = torch.block_diag(*pieces)  # a projection, so every power is the matrix itself
    assert low_rank_power(matrix, 40) is None
    monkeypatch.setattr(module, "LARGEST_REST", torch.inf)
    wrong = low_rank_power(matrix, 40)
    assert wrong is not None and float((wrong - matrix).abs().max()) > 0.01


def test_the_rest_is_the_trace_of_what_is_left():
    values = torch.tensor([0.9, 0.8, 0.5]).double()
    vectors = torch.linalg.qr(torch.randn(N, 3, generator=seeded_generator(1), dtype=torch.float64)).Q
    matrix = vectors * values @ vectors.T
    rest = module._rest(matrix, 10, vectors[:, :1])
    # The trace is 0.8^10 + 0.5^10; eight probes estimate it to a factor of two.
    assert 0.3 < rest / float((values[1:] ** 10).sum()) < 3
    assert module._rest(matrix, 10, vectors) < 1e-25


@pytest.mark.parametrize("whole", [True, False])
def test_diffuse_goes_either_way(whole, monkeypatch):
    """The low-rank power is taken for a component alone or beside others, and products where it is not allowed."""
    monkeypatch.setattr(power, "LOW_RANK_FROM", 500)
    affinity = walk_on_a_curve(N, 0.02)
    if not whole:
        affinity = torch.block_diag(affinity, *[torch.full((3, 3), 1 / 3, dtype=torch.float64)] * 4)
    degrees = affinity.sum(1)
    landmark_op = affinity / degrees[:, None]
    taken = []
    monkeypatch.setattr(power, "low_rank_power", lambda matrix, t: taken.append(t) or low_rank_power(matrix, t))
    exact = diffuse(landmark_op, 30, degrees)
    assert taken == []
    result = diffuse(landmark_op, 30, degrees, low_rank=True)
    assert taken == [30]
    torch.testing.assert_close(result, exact, rtol=0, atol=1e-14)  # measured: 2e-16
    assert not torch.equal(result, exact)


def test_one_matrix_one_power():
    matrix = walk_on_a_curve()
    assert torch.equal(low_rank_power(matrix, 30), low_rank_power(matrix, 30))


# ---------------------------------------------------------------- random signs


@pytest.mark.parametrize("shape", [(1, 1), (7, 9), (63, 1), (1000, 110)])
def test_random_signs(shape):
    signs = random_signs(*shape, generator=seeded_generator(3), dtype=torch.float32)
    assert signs.shape == shape and signs.dtype == torch.float32
    assert bool((signs.abs() == 1).all())
    assert torch.equal(signs, random_signs(*shape, generator=seeded_generator(3), dtype=torch.float64).float())


def test_random_signs_are_even_and_independent():
    signs = random_signs(4000, 63, generator=seeded_generator(0))
    # Means of 4000 signs have a standard deviation of 0.016: of 63 columns and 1953 pairs of them none is beyond five.
    assert float(signs.mean(0).abs().max()) < 0.08
    products = signs.T @ signs / 4000
    assert float((products - torch.eye(63, dtype=torch.float64)).abs().max()) < 0.08


def test_random_signs_in_chunks(monkeypatch):
    from mmphate_gpu.linalg import random

    whole = random_signs(500, 7, generator=seeded_generator(1))
    monkeypatch.setattr(random, "chunk_elements", lambda device: 200)
    assert torch.equal(random_signs(500, 7, generator=seeded_generator(1)), whole)
