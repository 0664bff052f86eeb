"""Partitions and their agreement: k-means, silhouette, adjusted Rand, modularity and numbers, by other programs and by
hand."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.metrics import adjusted_rand_score, silhouette_score

from mmphate_gpu import MMPHATE
from mmphate_gpu.analysis import partitions, unit_communities
from mmphate_gpu.analysis.agreement import adjusted_rand, aligned, modularity, seed_stability


def cloud(seed=0, n=30, p=3):
    return np.random.default_rng(seed).normal(size=(n, p))


def squares_of(points):
    return cdist(points, points, "sqeuclidean")


@pytest.mark.parametrize("k", [1, 2, 5, 30])
def test_kmeans_ends_in_a_minimum_of_lloyds_iteration(k):
    """Every point is at its nearest center, and the inertia is that of the centers."""
    points = cloud()
    labels, inertia = partitions.kmeans(squares_of(points)[None], k, 6, np.random.default_rng(0))
    for restart, total in zip(labels[0], inertia[0], strict=True):
        centers = np.stack([points[restart == c].mean(0) for c in range(k)])
        to_centers = cdist(points, centers, "sqeuclidean")
        assert (to_centers.argmin(1) == restart).all()
        assert total == pytest.approx(to_centers.min(1).sum(), abs=1e-9)


def test_the_best_restart_is_as_good_as_scikit_learn():
    """Both are heuristics. Over 20 clouds the mean inertia of the best of 10 starts differs by less than 2 %."""
    ratios = []
    for seed in range(20):
        points = cloud(seed)
        _, inertia = partitions.kmeans(squares_of(points)[None], 5, 10, np.random.default_rng(seed))
        ratios.append(inertia.min() / KMeans(5, n_init=10, random_state=seed).fit(points).inertia_)
    assert np.mean(ratios) == pytest.approx(1, abs=0.02)


def test_starts_are_different_points_while_there_are_some():
    points = np.repeat(cloud(n=4), [20, 5, 2, 1], axis=0)
    labels, inertia = partitions.kmeans(squares_of(points)[None], 4, 50, np.random.default_rng(0))
    assert inertia.max() < 1e-9
    assert partitions.n_distinct(squares_of(points)) == 4
    labels, _ = partitions.kmeans(squares_of(points)[None], 6, 5, np.random.default_rng(0))
    assert {len(np.unique(restart)) for restart in labels[0]} == {4}


def test_wards_tree_is_that_of_scikit_learn():
    points, ks = cloud(), [2, 4, 7]
    for k, labels in zip(ks, partitions.partitions(squares_of(points)[None], ks, "hierarchical", None), strict=True):
        assert adjusted_rand_score(AgglomerativeClustering(k).fit_predict(points), labels[0]) == 1.0


def test_the_silhouette_is_that_of_scikit_learn():
    points = np.stack([cloud(seed) for seed in range(6)])
    labels = np.random.default_rng(1).integers(0, 5, (6, 30))
    labels[0, 1:] = np.where(labels[0, 1:] == 0, 1, labels[0, 1:])
    labels[0, 0] = 0  # alone
    labels[1] = np.where(labels[1] == 2, 3, labels[1])  # an empty number
    result = partitions.silhouette(np.stack([cdist(p, p) for p in points]), labels)
    assert result == pytest.approx([silhouette_score(p, label) for p, label in zip(points, labels, strict=True)])


def test_the_silhouette_leaves_noise_out_and_needs_two_clusters():
    points, labels = cloud(n=12), np.array([0, 1] * 5 + [-1, -1])
    result = partitions.silhouette(cdist(points, points)[None], labels[None])[0]
    assert result == pytest.approx(silhouette_score(points[:10], labels[:10]))
    assert np.isnan(partitions.silhouette(cdist(points, points)[None], np.zeros((1, 12), int)))
    assert np.isnan(partitions.silhouette(cdist(points, points)[None], np.full((1, 12), -1)))


def test_the_number_of_clusters_is_that_of_the_highest_silhouette():
    points = np.array([[0.0], [0.1], [4.0], [4.1], [9.0], [9.1]])
    labels, width = partitions.best_partition(squares_of(points)[None], range(2, 6), "kmeans", np.random.default_rng(0))
    assert len(set(labels[0])) == 3
    assert width[0] == pytest.approx(silhouette_score(points, [0, 0, 1, 1, 2, 2]))


def test_the_adjusted_rand_index_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 4, (8, 25)), rng.integers(0, 3, (8, 25))
    expected = [adjusted_rand_score(a, b) for a, b in zip(first, second, strict=True)]
    assert adjusted_rand(first, second) == pytest.approx(expected, abs=1e-12)
    table = adjusted_rand(first[:, None], first[None])
    assert table[2, 5] == pytest.approx(adjusted_rand_score(first[2], first[5]), abs=1e-12)
    assert seed_stability(first) == pytest.approx(table[~np.eye(8, dtype=bool)].mean())
    assert np.isnan(seed_stability(first[:1]))


def test_the_adjusted_rand_index_by_hand():
    """Of the 6 pairs 2 are together in the first partition and 1 in the second. By chance 2 * 1 / 6 are so in both."""
    first = np.array([0, 0, 1, 1])
    assert adjusted_rand(first, np.array([0, 1, 2, 2])) == pytest.approx((1 - 1 / 3) / (1.5 - 1 / 3))
    assert adjusted_rand(first, np.array([0, 1, 0, 2])) == pytest.approx((0 - 1 / 3) / (1.5 - 1 / 3))
    assert adjusted_rand(np.zeros(4, int), np.zeros(4, int)) == 1.0
    assert adjusted_rand(np.array([0, 0, 1, -1]), np.array([1, 1, 0, 0])) == 1.0
    assert np.isnan(adjusted_rand(np.array([0, -1]), np.array([0, 0])))


def affinity(seed=0, n=20):
    weights = np.random.default_rng(seed).random((n, n)) ** 3
    return weights + weights.T


def test_modularity_by_hand():
    """Two pairs, each with an edge of weight 1: (1 + 1) / 2 - (1/2)^2 - (1/2)^2, whatever the diagonal is."""
    weights = np.kron(np.eye(2), np.ones((2, 2)))
    assert modularity(weights, np.array([0, 0, 1, 1])) == pytest.approx(1 / 2)
    assert modularity(weights, np.array([0, 1, 0, 1])) == pytest.approx(-1 / 2)
    assert modularity(weights, np.zeros(4, int)) == pytest.approx(0)
    assert np.isnan(modularity(np.eye(4), np.array([0, 0, 1, 1])))


def test_modularity_is_the_sum_over_communities():
    """sum_c (L_c / L - (D_c / 2L)^2), the other usual form; a point without a community does not count."""
    weights, labels = affinity(), np.random.default_rng(1).integers(-1, 3, 20)
    kept = labels >= 0
    inner, names = weights[np.ix_(kept, kept)] * (1 - np.eye(kept.sum())), labels[kept]
    edges, total = np.triu(inner, 1), inner.sum() / 2
    expected = sum(
        edges[np.ix_(names == c, names == c)].sum() / total - (inner[names == c].sum() / (2 * total)) ** 2
        for c in range(3)
    )
    assert modularity(weights, labels) == pytest.approx(expected, abs=1e-12)


def test_modularity_is_that_of_networkx():
    networkx = pytest.importorskip("networkx")
    weights, labels = affinity() * (1 - np.eye(20)), np.random.default_rng(1).integers(0, 3, 20)
    sets = [set(np.flatnonzero(labels == c).tolist()) for c in range(3)]
    expected = networkx.community.modularity(networkx.from_numpy_array(weights), sets)
    assert modularity(weights, labels) == pytest.approx(expected, abs=1e-12)


def test_communities_keep_their_numbers():
    labels = np.array(
        [[5, 5, 2, 2, 7, 7], [0, 0, 1, 1, 2, 2], [1, 1, 2, 2, 2, 0], [-1, 0, 1, 1, 2, 2], [0, 0, 0, 0, 0, 0]]
    )
    expected = [[0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 1, 2], [-1, 0, 1, 1, 2, 2], [1] * 6]
    result = aligned(labels)
    assert result[:4].tolist() == expected[:4]
    assert len(set(result[4])) == 1 and result[4, 0] in (1, 2)  # both overlap by two units


def test_a_new_community_takes_a_free_number():
    labels = np.array([[0, 0, 0, -1, -1], [0, 0, 0, 1, 1], [1, 1, 2, 0, 0]])
    assert aligned(labels).tolist() == [[0, 0, 0, -1, -1], [0, 0, 0, 1, 1], [0, 0, 2, 1, 1]]
    assert aligned(np.array([[-1, -1], [0, 1], [-1, -1]])).tolist() == [[-1, -1], [0, 1], [-1, -1]]


def test_a_picture_of_noise_has_a_low_p_and_its_trace_has_not():
    """The method links a unit with itself, so units keep their places in a picture of independent numbers."""
    noise = np.random.default_rng(0).normal(size=(20, 2, 12, 20))
    picture = MMPHATE(n_landmark=100, random_state=0).fit(noise).result_
    options = {"n_null": 19, "random_state": 0}
    assert unit_communities(picture, **options).p[0] == 0.05  # the least of 19 draws
    assert unit_communities(noise, **options).p[0] > 0.05
