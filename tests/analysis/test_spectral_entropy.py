"""Diffusion spectral entropy is that of its formula, and of sets whose operators are known."""

import math

import numpy as np
import pytest
import torch

from mmphate_gpu.analysis import spectral_entropy
from mmphate_gpu.analysis.spectral_entropy import diffusion_spectral_entropy, median_distance
from mmphate_gpu.errors import InputError, InputTypeError

from .clouds import gaussians, rotated


def stack(*shape, seed=0):
    return torch.from_numpy(gaussians(*shape, seed=seed))


def by_formula(cloud, bandwidth, t=1):
    """The formula with the matrix that is not symmetric."""
    distances = np.linalg.norm(cloud[:, None] - cloud[None], axis=-1)
    gauss = np.exp(-(distances**2) / (2 * bandwidth**2))
    roots = np.sqrt(gauss.sum(1))
    kernel = gauss / roots[:, None] / roots[None]
    powers = np.abs(np.linalg.eigvals(kernel / kernel.sum(1, keepdims=True)).real ** t)
    shares = powers / powers.sum()
    shares = shares[shares > 0]
    return -np.sum(shares * np.log2(shares))


@pytest.mark.parametrize("t", [1, 2, 5])
def test_it_is_its_formula(t):
    points = stack(4, 15, 3) * torch.tensor([0.3, 1, 2, 10], dtype=torch.float64)[:, None, None]
    expected = [by_formula(cloud, 1.3, t) for cloud in points.numpy()]
    assert diffusion_spectral_entropy(points, t, bandwidth=1.3).numpy() == pytest.approx(expected, abs=1e-10)


def test_equal_points_have_0_and_points_far_apart_the_logarithm_of_their_number():
    points = stack(1, 12, 2)
    for bandwidth in (0.0, 1.0):
        together = diffusion_spectral_entropy(torch.zeros_like(points), bandwidth=bandwidth)
        apart = diffusion_spectral_entropy(points * 1000, bandwidth=bandwidth)
        assert float(together) == pytest.approx(0, abs=1e-12)
        assert float(apart) == pytest.approx(math.log2(12), abs=1e-12)


@pytest.mark.parametrize("t", [1, 4])
def test_groups_of_equal_points_count_as_points(t):
    centers = stack(1, 8, 2) * 1000
    groups = centers.repeat_interleave(5, dim=1)
    assert float(diffusion_spectral_entropy(groups, t, bandwidth=1)) == pytest.approx(3, abs=1e-12)
    assert float(diffusion_spectral_entropy(groups, t, bandwidth=0)) == pytest.approx(3, abs=1e-12)


def test_it_grows_with_the_spread_and_falls_with_t():
    points = stack(1, 30, 2)
    scales = torch.tensor([0.1, 0.3, 1, 3, 10], dtype=torch.float64)[:, None, None]
    assert bool((diffusion_spectral_entropy(points * scales, bandwidth=1).diff() > 0.1).all())
    values = [float(diffusion_spectral_entropy(points, t)) for t in (1, 2, 4, 8)]
    assert values == sorted(values, reverse=True) and values[0] - values[-1] > 0.5


def test_without_a_bandwidth_the_scale_does_not_matter():
    points = stack(3, 20, 4)
    expected = diffusion_spectral_entropy(points)
    assert torch.allclose(diffusion_spectral_entropy(points * 1e6), expected, atol=1e-10)
    assert torch.allclose(diffusion_spectral_entropy(points, bandwidth=median_distance(points)), expected, atol=1e-14)


def test_a_shift_and_a_rotation_change_nothing():
    points = gaussians(2, 20, 3)
    before, after = (diffusion_spectral_entropy(torch.from_numpy(p)) for p in (points, rotated(points)))
    assert torch.allclose(before, after, atol=1e-10)


def test_rows_of_nan_are_not_in_the_set(monkeypatch):
    points = stack(3, 20, 2)
    points[0, 11:], points[2] = torch.nan, torch.nan
    values = diffusion_spectral_entropy(points)
    assert float(values[0]) == pytest.approx(float(diffusion_spectral_entropy(points[:1, :11])), abs=1e-12)
    assert values.isnan().tolist() == [False, False, True]
    monkeypatch.setattr(spectral_entropy, "_CHUNK_ENTRIES", 1)
    assert torch.allclose(diffusion_spectral_entropy(points), values, atol=1e-12, equal_nan=True)


def test_few_points():
    assert diffusion_spectral_entropy(stack(2, 1, 3)).tolist() == [0, 0]
    assert diffusion_spectral_entropy(stack(0, 5, 3)).shape == (0,)
    assert diffusion_spectral_entropy(stack(1, 9, 2).float()).dtype == torch.float64


def test_the_largest_t_leaves_the_leading_eigenvalue():
    assert diffusion_spectral_entropy(stack(3, 20, 2), spectral_entropy.MOST_T).tolist() == pytest.approx(
        [0] * 3, abs=1e-9
    )


def test_the_median_distance_is_that_of_all_pairs():
    points = stack(3, 10, 2)
    points[1, 7:] = torch.nan
    expected = [torch.pdist(points[0]), torch.pdist(points[1, :7]), torch.pdist(points[2])]
    assert median_distance(points).tolist() == pytest.approx([float(pairs.median()) for pairs in expected], abs=1e-14)
    assert median_distance(points[:, :1]).tolist() == [0, 0, 0]


def test_the_base_is_that_of_the_logarithm():
    points = stack(2, 10, 2)
    nats = diffusion_spectral_entropy(points, base=math.e)
    assert torch.allclose(diffusion_spectral_entropy(points) * math.log(2), nats, atol=1e-14)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"t": 0}, InputError, "t=0 is out of range"),
        ({"t": 10**30}, InputError, r"t=1\d+ is out of range"),
        ({"t": 1.5}, InputTypeError, "t=1.5 must be an integer"),
        ({"base": 1}, InputError, "base=1 is out of range"),
        ({"bandwidth": -1.0}, InputError, "bandwidth has a negative or infinite entry"),
        ({"bandwidth": torch.ones(3)}, InputError, r"bandwidth has shape \(3,\); accepted: a number, or \(2,\)"),
    ],
)
def test_bad_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        diffusion_spectral_entropy(stack(2, 5, 2), **options)


def test_points_need_three_axes():
    with pytest.raises(InputError, match=r"points has shape \(5, 2\); accepted: \(sets, points, features\)"):
        diffusion_spectral_entropy(stack(5, 2))
