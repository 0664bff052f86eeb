"""Stratified landmarks: k-means of the points of each unit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmphate_gpu import reference
from mmphate_gpu.errors import InputError
from mmphate_gpu.landmarks import landmark_diffusion
from mmphate_gpu.landmarks.stratified import stratified_clusters
from mmphate_gpu.linalg.random import seeded_generator

from .cases import TOLERANCE, affinity


def by_unit(labels: torch.Tensor, n_units: int) -> list[torch.Tensor]:
    """The landmarks of every unit."""
    return [labels.view(-1, n_units)[:, unit].unique() for unit in range(n_units)]


@pytest.mark.parametrize("n_landmark", [5, 17, 60, 149])
def test_every_unit_gets_its_share(get_case, n_landmark, device):
    """150 nodes, 5 units: the first n_landmark % 5 of them have one landmark more; none is shared or empty."""
    labels = stratified_clusters(get_case("walk")[0].points(device), n_landmark, generator=seeded_generator(0)).cpu()
    landmarks = by_unit(labels, 5)
    assert [len(of_unit) for of_unit in landmarks] == [n_landmark // 5 + (unit < n_landmark % 5) for unit in range(5)]
    assert torch.equal(torch.cat(landmarks).sort().values, torch.arange(n_landmark))


def inertia(points: np.ndarray, labels: np.ndarray) -> float:
    flat = points.reshape(-1, points.shape[-1])
    return sum(((flat[labels == label] - flat[labels == label].mean(0)) ** 2).sum() for label in np.unique(labels))


@pytest.mark.parametrize("name", ["walk", "hopf and pitchfork"])
@pytest.mark.parametrize("n_landmark", [23, 60])
def test_stratified_clusters_are_as_tight_as_the_references(get_case, name, n_landmark):
    """Against k-means++ with 50 Lloyd steps, unit by unit. Measured over 10 seeds: 0.84 to 1.28 of it."""
    case, dense = get_case(name)
    points = case.points()
    labels = stratified_clusters(points, n_landmark, generator=seeded_generator(0)).numpy()
    options = {"n_landmark": n_landmark, "landmarks": "stratified", "random_state": 0}
    expected = reference.landmark_diffusion(dense, **options, points=points.numpy()).clusters
    actual_sizes, expected_sizes = (
        [len(of_unit) for of_unit in by_unit(torch.from_numpy(clusters), points.shape[1])]
        for clusters in (labels, expected)
    )
    assert actual_sizes == expected_sizes
    assert inertia(points.numpy(), labels) < 1.4 * inertia(points.numpy(), expected)


@pytest.mark.parametrize("storage", ["sparse", "lazy"])
def test_stratified_landmarks_are_clusters_of_the_points(get_case, storage, device):
    case, dense = get_case("hopf and pitchfork")
    operator, points = affinity(case, torch.float32, device, storage), case.points(device)
    options = {"n_landmark": 50, "landmarks": "stratified"}
    first, again, other = (
        landmark_diffusion(operator, **options, points=points, random_state=seed) for seed in (0, 0, 1)
    )
    labels = stratified_clusters(points, 50, generator=seeded_generator(0))
    assert torch.equal(first.clusters, labels)
    expected = reference.landmark_diffusion(dense, landmarks=labels.cpu().numpy())[0]
    np.testing.assert_allclose(first.landmark_op.cpu().numpy(), expected, rtol=0, atol=TOLERANCE[torch.float32])
    assert torch.equal(first.landmark_op, again.landmark_op) and not torch.equal(first.clusters, other.clusters)
    as_numpy = landmark_diffusion(operator, **options, points=points.cpu().numpy(), random_state=0)
    assert torch.equal(as_numpy.clusters, labels)


def test_stratified_landmarks_of_duplicates(get_case):
    """15 slices, each three times: landmarks without a node are dropped, about half of 30 in a unit."""
    labels = stratified_clusters(get_case("repeated slices")[0].points(), 149, generator=seeded_generator(0))
    # Rounding separates some equal points. Measured over 5 seeds: 15 to 18.
    assert all(15 <= len(of_unit) <= 20 for of_unit in by_unit(labels, 5))
    assert int(labels.max()) + 1 == len(labels.unique())


def test_stratified_without_landmarks(get_case):
    operator, points = affinity(get_case("walk")[0]), get_case("walk")[0].points()
    for n_landmark in (None, 150):
        landmarks = landmark_diffusion(operator, n_landmark=n_landmark, landmarks="stratified", points=points)
        assert torch.equal(landmarks.clusters, torch.arange(150))


def not_finite(value):
    points = torch.zeros(30, 5, 6)
    points[2, 3, 1] = points[4, 0, 0] = value
    return points


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "landmarks='stratified' needs points"),
        ({"points": torch.zeros(30, 4, 5)}, r"points has shape \(30, 4, 5\); .* = 150 nodes"),
        ({"points": torch.zeros(150, 5)}, r"points has shape \(150, 5\)"),
        ({"points": torch.zeros(30, 5, 5), "n_landmark": 4}, "n_landmark=4 is less than one for each of 5 units"),
        ({"points": "points"}, "points has dtype <U6"),
        ({"points": torch.zeros(30, 5, 0)}, r"points has shape \(30, 5, 0\)"),
        ({"points": not_finite(np.nan)}, r"points is not finite at \(2, 3, 1\) \(the first such place\)"),
        ({"points": not_finite(-np.inf)}, r"points is not finite at \(2, 3, 1\)"),
        ({"n_landmark": None}, "landmarks='stratified' needs points"),
        ({"n_landmark": 150, "points": torch.zeros(30, 4, 5)}, r"points has shape \(30, 4, 5\)"),
        ({"n_landmark": 150, "points": not_finite(np.nan)}, r"points is not finite at \(2, 3, 1\)"),
    ],
    ids=["none", "other units", "two axes", "too few", "text", "no samples", "nan", "inf"]
    + ["none, no landmarks", "other units, no landmarks", "nan, no landmarks"],
)
def test_bad_stratified(get_case, options, message):
    with pytest.raises(InputError, match=message):
        landmark_diffusion(affinity(get_case("walk")[0]), **{"n_landmark": 20, "landmarks": "stratified"} | options)
