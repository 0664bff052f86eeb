"""k-means on clusters that are known."""

from __future__ import annotations

import pytest
import torch

from mmphate_gpu.errors import InputError
from mmphate_gpu.linalg.kmeans import kmeans
from mmphate_gpu.linalg.random import seeded_generator

from .matrices import normal


def blobs(n_blobs: int, each: int, dtype=torch.float64, offset: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Points around the center of each blob, at 1 % of the distance between blobs, and their blobs."""
    centers = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0), torch.arange(4.0))[:n_blobs].double()
    owner = torch.arange(n_blobs).repeat(each)
    return (centers[owner] + 0.01 * normal(n_blobs * each, 3) + offset).to(dtype), owner


def same_partition(labels: torch.Tensor, owner: torch.Tensor) -> bool:
    pairs = torch.unique(torch.stack([labels.cpu(), owner]), dim=1)
    return pairs.shape[1] == len(pairs[0].unique()) == len(pairs[1].unique())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("offset", [0.0, 1e4])  # the product form without centering loses all of the second
def test_kmeans_recovers_separated_blobs(dtype, offset, device):
    points, owner = blobs(8, 20, dtype, offset)
    points = points.to(device)
    right = [same_partition(kmeans(points, 8, generator=seeded_generator(seed)), owner) for seed in range(20)]
    # Seeds are drawn among three points per cluster, which can miss a blob. Measured: 17 of 20.
    assert sum(right) >= 14


def test_kmeans_keeps_most_of_many_blobs():
    """Seeds of one round may share a blob, and Lloyd steps do not separate them: the price of few rounds."""
    points, owner = blobs(40, 20)
    for seed in range(5):
        labels = kmeans(points, 40, generator=seeded_generator(seed))
        sizes = torch.bincount(labels)
        by_blob = [labels[owner == blob] for blob in range(40)]
        whole = [len(blob.unique()) == 1 and int(sizes[blob[0]]) == 20 for blob in by_blob]
        assert sum(whole) >= 24  # measured over 20 seeds: 28 to 36
        assert int(labels.max()) + 1 >= 36  # measured: 38 at least


def inertia(points, labels):
    clusters = [points[labels == label] for label in labels.unique()]
    return sum(float((cluster - cluster.mean(0)).square().sum()) for cluster in clusters)


def test_kmeans_is_as_good_as_scikit_learns():
    """Inertia on points without clusters, against k-means++ with 20 Lloyd steps."""
    sklearn_kmeans = pytest.importorskip("sklearn.cluster").k_means
    points = normal(2000, 5)
    _, _, theirs = sklearn_kmeans(points.numpy(), 100, n_init=1, max_iter=20, random_state=0)
    ours = inertia(points, kmeans(points, 100, generator=seeded_generator(0)))
    assert ours < 1.08 * theirs  # measured over 5 x 5 seeds: 1.005 to 1.04


@pytest.mark.parametrize("n_clusters", [1, 2, 7, 99, 100, 1000])
def test_kmeans_labels_are_contiguous(n_clusters, device):
    labels = kmeans(normal(100, 4).to(device), n_clusters, generator=seeded_generator(0))
    n = int(labels.max()) + 1
    assert labels.dtype == torch.int64 and torch.equal(labels.unique().cpu(), torch.arange(n))
    assert n <= min(n_clusters, 100) and (n_clusters > 7 or n == n_clusters)


def test_kmeans_is_deterministic_by_seed(device):
    points = normal(300, 4).to(device)
    first, again, other = (kmeans(points, 30, generator=seeded_generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("n_clusters", [2, 5, 6, 60])
def test_kmeans_of_duplicates(n_clusters):
    """5 places, 12 points each: points of one place share a label, and there are no more labels than places."""
    place = torch.arange(5).repeat(12)
    labels = kmeans(normal(5, 3)[place], n_clusters, generator=seeded_generator(0))
    assert int(labels.max()) + 1 == min(n_clusters, 5)  # with as many clusters as places, one in ten seeds misses one
    assert all(len(labels[place == p].unique()) == 1 for p in range(5))


def test_kmeans_of_equal_points():
    assert torch.equal(kmeans(torch.ones(20, 3), 4, generator=seeded_generator(0)), torch.zeros(20, dtype=torch.int64))


@pytest.mark.parametrize("scale", [1e-25, 1e20])
def test_kmeans_at_any_scale(scale):
    """Squares of 1e-25 are 0 in float32."""
    points, owner = blobs(8, 20, torch.float32)
    assert same_partition(kmeans(points * scale, 8, generator=seeded_generator(0)), owner)


def test_kmeans_leaves_points_alone():
    points = normal(50, 3)
    before = points.clone()
    kmeans(points, 5, generator=seeded_generator(0))
    assert torch.equal(points, before)


def test_kmeans_refuses():
    with pytest.raises(InputError, match=r"points has shape \(5,\); accepted: two axes .* or three"):
        kmeans(torch.zeros(5), 2)
    with pytest.raises(InputError, match=r"points has shape \(0, 3\)"):
        kmeans(torch.zeros(0, 3), 2)
    with pytest.raises(InputError, match="n_clusters=0 is out of range"):
        kmeans(torch.zeros(5, 3), 0)


@pytest.mark.parametrize("n_clusters", [1, 4, 30])
def test_kmeans_of_a_stack_goes_set_by_set(n_clusters, device):
    """No two sets share a label, and each is clustered as well as alone, whatever the others hold."""
    sets = torch.stack([10.0**scale * normal(60, 3, seed=scale) for scale in range(4)]).to(device)
    labels = kmeans(sets, n_clusters, generator=seeded_generator(0)).cpu()
    by_set = [of_set.unique() for of_set in labels]
    assert torch.equal(torch.cat(by_set), torch.arange(sum(map(len, by_set))))
    for points, of_set in zip(sets.cpu(), labels, strict=True):
        alone = inertia(points, kmeans(points, n_clusters, generator=seeded_generator(0)))
        assert len(of_set.unique()) == n_clusters
        assert inertia(points, of_set) <= 1.4 * alone  # measured over 20 seeds: 0.68 to 1.31


def test_kmeans_of_one_set_in_a_stack():
    """A stack of one set has the draws and the steps of the set alone."""
    points, _ = blobs(8, 20)
    labels = kmeans(points, 8, generator=seeded_generator(0))
    assert torch.equal(kmeans(points[None], 8, generator=seeded_generator(0))[0], labels)
