"""Lanczos quadrature, and singular values known by a sample: closed forms, and dense decompositions."""

from __future__ import annotations

import pytest
import torch

from mmphate_gpu.linalg import singular_value_sample
from mmphate_gpu.linalg.lanczos import gauss_quadrature, lanczos
from mmphate_gpu.linalg.random import seeded_generator
from mmphate_gpu.linalg.singular_value_sample import SingularValueSample


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded_generator(seed), dtype=torch.float64)


def symmetric(n: int, seed: int = 0) -> torch.Tensor:
    square = normal(n, n, seed=seed)
    return (square + square.T) / (2 * n**0.5)


# ---------------------------------------------------------------- quadrature


@pytest.mark.parametrize("n_steps", [1, 2, 5])
def test_quadrature_is_exact_for_polynomials(n_steps, device):
    """x^T A^k x for k up to 2 m - 1, and not beyond."""
    matrix, starts = symmetric(40).to(device), normal(40, 3, seed=1).to(device)
    nodes, weights = gauss_quadrature(lanczos(lambda block: matrix @ block, starts, n_steps))
    assert nodes.shape == weights.shape == (3, n_steps)
    image = starts
    for power in range(2 * n_steps + 1):
        expected, estimate = (starts * image).sum(0), (weights * nodes**power).sum(1)
        error = float(((estimate - expected).abs() / (starts * starts).sum(0)).max())
        assert error < 1e-12 if power < 2 * n_steps else error > 1e-3  # measured: 6.4e-15, and 0.028 to 0.62 beyond
        image = matrix @ image


def test_quadrature_of_all_steps_is_exact_for_every_function(device):
    matrix, starts = symmetric(30).to(device), normal(30, 4, seed=1).to(device)
    nodes, weights = gauss_quadrature(lanczos(lambda block: matrix @ block, starts, 50))
    assert nodes.shape == (4, 30)
    expected = (starts * (torch.linalg.matrix_exp(matrix) @ starts)).sum(0)
    torch.testing.assert_close((weights * nodes.exp()).sum(1), expected, rtol=1e-12, atol=0)  # measured: 8e-16


def test_fewer_steps_are_those_of_a_shorter_run():
    matrix, starts = symmetric(40), normal(40, 3, seed=1)
    long, short = (lanczos(lambda block: matrix @ block, starts, m) for m in (20, 8))
    for ours, theirs in zip(gauss_quadrature(long, 8), gauss_quadrature(short), strict=True):
        assert torch.equal(ours, theirs)


def test_exhausted_spaces_end_in_zeros():
    """Starts that exhaust their Krylov spaces, and a start of zeros, give no other weights and no NaN."""
    values = torch.tensor([3.0, 2.0, 1.0, 0.5, 0.25], dtype=torch.float64)
    starts = torch.eye(5, dtype=torch.float64)[:, :3].clone()
    starts[1, 0], starts[:, 2] = 2, 0
    nodes, weights = gauss_quadrature(lanczos(lambda block: values[:, None] * block, starts, 5))
    for power in range(5):
        expected = torch.tensor([3.0**power + 4 * 2.0**power, 2.0**power, 0], dtype=torch.float64)
        torch.testing.assert_close((weights * nodes**power).sum(1), expected, rtol=1e-13, atol=1e-15)
    nodes, weights = gauss_quadrature(lanczos(lambda block: block.clone(), normal(5, 2), 5))
    torch.testing.assert_close((weights * nodes).sum(1), weights.sum(1), rtol=1e-14, atol=0)


@pytest.mark.parametrize("kept_out", [True, False])
def test_what_lies_beside_stays_out(kept_out):
    """Eigenvectors orthogonal to the starts return by rounding, with eigenvalues a million times as large."""
    values = torch.cat([torch.full((3,), 1e6), torch.linspace(0.1, 1, 57)]).double()
    vectors = torch.linalg.qr(normal(60, 60))[0]
    matrix, apart = (vectors * values) @ vectors.T, vectors[:, :3]
    starts = vectors[:, 3:] @ normal(57, 4)
    nodes, _ = gauss_quadrature(lanczos(lambda block: matrix @ block, starts, 40, beside=apart if kept_out else None))
    assert (float(nodes.max()) < 1 + 1e-9) == kept_out


# ---------------------------------------------------------------- the sample


@pytest.fixture
def few_leading(monkeypatch):
    monkeypatch.setattr(singular_value_sample, "N_LEADING", 20)
    monkeypatch.setattr(singular_value_sample, "BLOCK", 15)


def decaying(n: int = 300) -> torch.Tensor:
    """Singular values 1 / k^2, far from normal."""
    left, right = (torch.linalg.qr(normal(n, n, seed=seed))[0] for seed in (1, 2))
    return left * torch.arange(1, n + 1, dtype=torch.float64) ** -2.0 @ right


def sample_of(matrix: torch.Tensor, n_probes: int) -> SingularValueSample:
    sample = SingularValueSample(matrix)
    sample.draw(n_probes)
    return sample


def everyone(sample: SingularValueSample) -> torch.Tensor:
    return torch.full((1, sample.n_probes), 1 / sample.n_probes, dtype=torch.float64)


def test_number_and_squares_are_held(few_leading):
    for matrix in (decaying(), normal(300, 300), torch.eye(300, dtype=torch.float64)):
        sample = sample_of(matrix, 8)
        all_but = (1 - torch.eye(8, dtype=torch.float64)) / 7
        values, counts = sample.measure(torch.cat([everyone(sample), all_but]))
        assert counts.shape == (9, len(values))
        torch.testing.assert_close(counts.sum(1), torch.full((9,), 300.0).double(), rtol=1e-12, atol=0)
        squares = counts @ values.square()
        torch.testing.assert_close(squares, matrix.square().sum().expand(9), rtol=1e-12, atol=0)


def test_leading_values_are_exact(few_leading, device):
    matrix = decaying().to(device)
    sample = SingularValueSample(matrix)
    assert len(sample.leading) == 20 and sample.n_others == 280
    expected = torch.linalg.svdvals(matrix)[:20]
    torch.testing.assert_close(sample.leading.sqrt(), expected, rtol=1e-10, atol=0)  # measured: 1e-13


@pytest.mark.parametrize("power", [1, 3, 4])
def test_sums_of_powers(few_leading, power, device):
    """Of the others. Measured over thirty seeds: off by up to 0.025, 0.035 and 0.072 of their sum (standard deviations
    0.011, 0.018 and 0.035); over six, if the sum of squares is not held, by 0.016 to 0.039, 0.11 and 0.13."""
    matrix = decaying().to(device)
    sample = sample_of(matrix, 32)
    values, counts = sample.measure(everyone(sample).to(device))
    rest = sample.leading.numel()
    expected = float(torch.linalg.svdvals(matrix)[rest:].pow(power).sum())
    estimate = float(counts[0, rest:] @ values[rest:].pow(power))
    assert estimate == pytest.approx(expected, rel={1: 0.03, 3: 0.05, 4: 0.09}[power])


def test_few_landmarks_are_all_leading():
    matrix = normal(60, 60)
    sample = sample_of(matrix, 4)
    values, counts = sample.measure(everyone(sample))
    assert sample.n_others == 0 and not bool(counts[0, 60:].any())
    # Square roots of eigenvalues. Measured: 3.4e-14.
    torch.testing.assert_close(values[:60], torch.linalg.svdvals(matrix), rtol=0, atol=1e-7)


def test_low_rank_leaves_nothing_to_calibrate(few_leading):
    """With ten singular values and 290 zeros the rest of the sum of squares is rounding, and no divisor."""
    matrix = normal(300, 10) @ normal(10, 300, seed=1)
    sample = sample_of(matrix, 4)
    values, counts = sample.measure(everyone(sample))
    assert not sample.holds_squares and bool(torch.isfinite(counts).all())
    assert float(counts[0] @ values) == pytest.approx(
        float(torch.linalg.svdvals(matrix).sum()), rel=1e-6
    )  # measured: 8e-9


def test_one_seed_one_sample(few_leading):
    first, again, other = (SingularValueSample(decaying(), random_state=seed) for seed in (0, 0, 1))
    for sample in (first, again, other):
        sample.draw(3)
        sample.draw(2)
    measured = [sample.measure(everyone(sample)) for sample in (first, again, other)]
    assert first.n_probes == 5
    assert torch.equal(measured[0][1], measured[1][1]) and not torch.equal(measured[0][1], measured[2][1])
