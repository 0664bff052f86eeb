"""Every estimator gives known entropies: by hand, in closed form, by its formula written out, and by its laws."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.special import digamma, gamma, logsumexp

from mmphate_gpu.analysis import entropy, entropy_estimators

from .clouds import embedding, gaussians, rotated

# The mean entropy of 200 clouds of 100 points less the true one, in bits, by (distribution, C). It is the mean of three
# seeds, which differed by at most 0.04. The kernel blurs edges and the ball of the k-th neighbor reaches over them.
# So the biases for uniforms are positive and grow with the dimension.
BIAS = {
    "kde": {("gaussian", 1): 0.03, ("gaussian", 2): 0.10, ("gaussian", 3): 0.22}
    | {("uniform", 1): 0.18, ("uniform", 2): 0.42, ("uniform", 3): 0.70},
    "knn": {("gaussian", 1): -0.01, ("gaussian", 2): -0.07, ("gaussian", 3): -0.11}
    | {("uniform", 1): 0.02, ("uniform", 2): 0.17, ("uniform", 3): 0.43},
}


def sample(distribution, size, n_clouds=200, n_points=100, seed=0):
    """Clouds of points and their entropy in bits."""
    rng, shape = np.random.default_rng(seed), (n_clouds, n_points, size)
    if distribution == "uniform":
        return rng.random(shape) * 3, size * math.log2(3)
    return rng.standard_normal(shape) * 3, size / 2 * math.log2(2 * math.pi * math.e * 9)


def bits(points, estimator, **options):
    """Entropies of the coordinates themselves, not divided by the scale."""
    result = entropy(embedding(points), "units", estimator, n_bootstrap=0, **options)
    return result.values[:, 0] + points.shape[-1] * math.log2(result.scale)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("distribution", ["gaussian", "uniform"])
@pytest.mark.parametrize("estimator", ["kde", "knn"])
def test_known_entropies_with_their_bias(estimator, distribution, size):
    points, truth = sample(distribution, size, seed=5)
    bias = bits(points, estimator).mean() - truth
    # The standard error of the mean is at most 0.2 / sqrt(200) = 0.014 bits.
    assert bias == pytest.approx(BIAS[estimator][distribution, size], abs=0.05)


@pytest.mark.parametrize("estimator", ["kde", "knn"])
def test_the_bias_falls_with_the_number_of_points(estimator):
    errors = []
    for n_points in (20, 2000):
        points, truth = sample("uniform", 2, 4000 // n_points, n_points)
        errors.append(bits(points, estimator).mean() - truth)
    assert 0 < errors[1] < errors[0] / 2


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_histogram_of_uniforms_has_the_entropy_of_its_cells(size):
    points, _ = sample("uniform", size, 20, 20_000)
    values = entropy(embedding(points), n_bootstrap=0, bins=5).values
    # The bias of n points in K cells is -(K - 1) / (2 n) nats, at most 0.0045 bits here; edges by extremes add 1e-3.
    expected = size * math.log2(5) - (5**size - 1) / (2 * 20_000) / math.log(2)
    assert values == pytest.approx(np.full((20, 1), expected), abs=2e-3)


@pytest.mark.filterwarnings("ignore:.* have fewer than 10 points")
def test_a_histogram_is_that_of_a_hand_count():
    # The range of all coordinates is 0 to 4 and 0 to 2, so two bins have their edges at 2 and 1.
    first = [[0, 0], [1, 0.5], [4, 0], [4, 2]]  # cells of 2, 1 and 1 points
    second = [[0.1, 0.1], [0.2, 0.2], [0.3, 0.3], [0.4, 0.4]]  # a single cell
    third = [[1.9, 0.9], [2.1, 0.9], [1.9, 1.1], [2.1, 1.1]]  # four cells
    values = entropy(embedding(np.array([first, second, third])), bins=2, n_bootstrap=0).values
    assert values.ravel() == pytest.approx([1.5, 0, 2], abs=1e-12)


def test_a_histogram_is_that_of_numpy():
    points = gaussians(6, 40, 3)
    edges = [np.linspace(points[..., c].min(), points[..., c].max(), 5) for c in range(3)]
    for cloud, value in zip(points, entropy(embedding(points), bins=4, n_bootstrap=0, base=math.e).values, strict=True):
        shares = np.histogramdd(cloud, edges)[0].ravel() / 40
        shares = shares[shares > 0]
        assert value[0] == pytest.approx(-np.sum(shares * np.log(shares)), abs=1e-12)


def test_the_histogram_has_edges_of_the_whole_embedding():
    points = gaussians(1, 200, 2)
    both = entropy(embedding(np.concatenate([points, points / 8])), n_bootstrap=0).values.ravel()
    assert both[0] - both[1] > 2
    assert bits(points / 8, "histogram") + 6 == pytest.approx(bits(points, "histogram"))  # each alone: the same cells


def kde_by_formula(cloud):
    n, size = cloud.shape
    width = np.sqrt(np.var(cloud, axis=0, ddof=1).mean()) * (4 / ((size + 2) * n)) ** (1 / (size + 4))
    exponents = -cdist(cloud, cloud, "sqeuclidean") / (2 * width**2)
    np.fill_diagonal(exponents, -np.inf)
    log_p = logsumexp(exponents, axis=1) - np.log(n - 1) - size * np.log(width * np.sqrt(2 * np.pi))
    return -log_p.mean()


def knn_by_formula(cloud, k):
    n, size = cloud.shape
    distances = np.sort(cdist(cloud, cloud), axis=1)[:, k]
    ball = np.pi ** (size / 2) / gamma(size / 2 + 1)
    return digamma(n) - digamma(k) + np.log(ball) + size * np.log(distances).mean()


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_kde_and_knn_are_their_formulas(size):
    points = gaussians(4, 30, size) * np.array([1, 10, 0.1, 3])[:, None, None]
    nats = math.log(2)
    assert bits(points, "kde") * nats == pytest.approx([kde_by_formula(cloud) for cloud in points], abs=1e-10)
    for k in (1, 3, 29):
        expected = [knn_by_formula(cloud, k) for cloud in points]
        assert bits(points, "knn", k=k) * nats == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("estimator", ["kde", "knn", "spectral"])
def test_a_shift_and_a_rotation_change_nothing(estimator):
    points = gaussians(5, 40, 3) * np.array([3, 1, 0.3])
    before, after = (entropy(embedding(p), "units", estimator, n_bootstrap=0).values for p in (points, rotated(points)))
    assert after == pytest.approx(before, abs=1e-10)


def test_a_histogram_depends_on_the_directions_of_the_axes():
    line = np.linspace(0, 1, 40)[None, :, None] * np.array([1.0, 0.0])
    turned = np.concatenate([line + [0, -0.5], line + [0, 0.5]])  # two lines along an axis, in a box
    diagonal = turned @ np.array([[1, -1], [1, 1]]) / np.sqrt(2)
    along, across = (entropy(embedding(p), n_bootstrap=0).values for p in (turned, diagonal))
    assert np.abs(along - across).max() > 0.3


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("estimator", ["kde", "knn"])
def test_a_cloud_that_shrinks_by_half_loses_a_bit_for_each_component(estimator, size):
    points = gaussians(1, 30, size)
    whole, half = entropy(embedding(np.concatenate([points, points / 2])), "units", estimator, n_bootstrap=0).values
    assert whole - half == pytest.approx(size, abs=1e-10)


@pytest.mark.parametrize("estimator", ["histogram", "kde", "knn", "spectral"])
def test_many_clouds_at_once_are_those_of_each(estimator, monkeypatch):
    points = gaussians(7, 25, 2) * np.arange(1, 8)[:, None, None]
    options = {"scale": 2.0, "bandwidth": 1.5, "n_bootstrap": 0}
    together = entropy(embedding(points), "units", estimator, **options).values
    monkeypatch.setattr(entropy_estimators, "_CHUNK_ENTRIES", 60)
    assert entropy(embedding(points), "units", estimator, **options).values == pytest.approx(together, abs=1e-12)
    if estimator != "histogram":  # its edges are those of the whole embedding
        single = [entropy(embedding(points[i : i + 1]), "units", estimator, **options).values[0] for i in range(7)]
        assert np.array(single) == pytest.approx(together, abs=1e-12)


@pytest.mark.parametrize("estimator", ["histogram", "kde", "knn", "spectral"])
def test_nodes_without_a_place_leave_their_cloud(estimator):
    points = gaussians(3, 30, 2)
    fewer, holes = points[:, :24], points.copy()
    holes[:, 24:] = np.nan
    # The edges of the histogram and the scale are those of the nodes with a place.
    expected = entropy(embedding(fewer), "units", estimator, n_bootstrap=0)
    result = entropy(embedding(holes), "units", estimator, n_bootstrap=0)
    assert result.values == pytest.approx(expected.values, abs=1e-12)
    assert result.scale == pytest.approx(expected.scale) and (result.n_points == 24).all()


def test_a_tree_gives_the_same_neighbors(monkeypatch):
    points = gaussians(2, 60, 3)
    points[0, 50:] = np.nan
    points[1, :5] = 1  # equal points: distances of 0
    before = entropy(embedding(points), "units", "knn", n_bootstrap=0)
    monkeypatch.setattr(entropy_estimators, "TREE_POINTS", 1)
    after = entropy(embedding(points), "units", "knn", n_bootstrap=0)
    assert after.values == pytest.approx(before.values, abs=1e-12)
    assert after.n_floored.ravel().tolist() == before.n_floored.ravel().tolist() == [0, 5]


def test_the_density_of_a_large_cloud_is_averaged_over_a_part(monkeypatch):
    points = gaussians(1, 4000, 2)
    part = bits(points, "kde")
    monkeypatch.setattr(entropy_estimators, "MOST_POINTS", 4000)
    # The log density of a Gaussian in two dimensions has a deviation of 1 nat; 2000 of 4000 points average it.
    assert part == pytest.approx(bits(points, "kde"), abs=4 / math.sqrt(4000) / math.log(2))
    assert part != bits(points, "kde")


def test_a_part_of_many_points_is_in_order_and_the_same_in_every_call():
    part = entropy_estimators.sampled_indices(10**5, torch.device("cpu"))
    assert len(part) == entropy_estimators.MOST_POINTS and bool((part.diff() > 0).all())
    assert torch.equal(part, entropy_estimators.sampled_indices(10**5, torch.device("cpu")))


def test_equal_points_are_floored_and_counted():
    points = gaussians(2, 20, 2)
    points[1] = 3
    knn, kde = (entropy(embedding(points), "units", estimator, n_bootstrap=0) for estimator in ("knn", "kde"))
    assert knn.n_floored.ravel().tolist() == kde.n_floored.ravel().tolist() == [0, 20]
    floor = 2 * math.log(1e-12)
    expected = digamma(20) - digamma(3) + math.log(math.pi) + floor
    assert knn.values[1, 0] * math.log(2) == pytest.approx(expected, abs=1e-9)
    assert kde.values[1, 0] * math.log(2) == pytest.approx(math.log(2 * math.pi) + floor, abs=1e-9)
