"""Coincident landmarks part, unless their distance is 0."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from mmphate_gpu.mds import metric_mds
from mmphate_gpu.mds.parting import TOGETHER, WANTED, parted
from mmphate_gpu.mds.smacof import one_sweep

from .distance_cases import RNG, points_5d, with_duplicates
from .tiny_cases import groups, tiny_cases


def coincident(distances: np.ndarray, coordinates: np.ndarray) -> int:
    largest = distances.max()
    return int(((cdist(coordinates, coordinates) <= TOGETHER * largest) & (distances > WANTED * largest)).sum())


@pytest.mark.parametrize("n_init", [1, 2])
def test_no_fit_ends_with_coincident_points(n_init):
    """A minimum has none, except of distance 0 (de Leeuw 1984)."""
    for name, distances, n_components in list(tiny_cases())[::11]:
        result = metric_mds(distances, n_components, n_init=n_init, random_state=0)
        assert coincident(distances, result.coordinates) == 0, name


@pytest.mark.parametrize("n", [40, 300])
@pytest.mark.parametrize("init", ["zeros", "two places"])
def test_coincident_starts_part(n, init):
    start = {"zeros": np.zeros((n, 2)), "two places": RNG(0).integers(0, 2, (n, 1)) * np.ones((1, 2))}[init]
    distances = points_5d(n)
    result = metric_mds(distances, init=start)
    assert coincident(distances, result.coordinates) == 0
    assert result.stress <= 1.1 * metric_mds(distances, random_state=0).stress


def test_points_at_distance_zero_stay_together():
    distances = with_duplicates()
    points = torch.from_numpy(RNG(0).normal(size=(60, 2)))
    first = torch.from_numpy(distances == 0).int().argmax(1)  # of each place the first point
    assert parted(torch.from_numpy(distances), points[first]) is None
    coordinates = metric_mds(distances, random_state=0).coordinates
    assert cdist(coordinates, coordinates)[distances == 0].max() < 1e-6 * distances.max()


def test_points_apart_are_left_alone():
    assert parted(torch.from_numpy(points_5d(50)), torch.from_numpy(RNG(0).normal(size=(50, 2)))) is None


def test_only_coincident_points_move_and_the_stress_falls():
    """The stress falls to first order at a stationary point: at the end of sweeps that cannot part the groups."""
    distances = torch.from_numpy(groups(12, 3))
    place = torch.arange(12) // 4
    points = torch.tensor([[0.0, 1.0], [0.9, -0.5], [-0.9, -0.5]], dtype=torch.float64)[place]
    for _ in range(100):
        points, raw = one_sweep(distances, points)
    apart = parted(distances, points)
    assert apart is not None and float(one_sweep(distances, apart)[1]) < float(raw)
    torch.testing.assert_close(apart, points, rtol=0, atol=0.1)
    assert torch.unique(apart, dim=0).shape[0] == 12
    alone = points.clone()
    alone[1:] = torch.from_numpy(RNG(0).normal(size=(11, 2)))
    alone[1] = alone[0]
    moved = parted(distances, alone)
    assert moved is not None and torch.nonzero((moved != alone).any(1))[:, 0].tolist() == [0, 1]


def test_a_parting_has_the_same_bits_twice():
    distances, points = torch.from_numpy(groups(12, 3)), torch.zeros(12, 2, dtype=torch.float64)
    first, again = parted(distances, points), parted(distances, points)
    assert first is not None and again is not None and torch.equal(first, again)
