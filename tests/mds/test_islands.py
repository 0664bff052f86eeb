"""Distances between islands by the states of their landmarks, and the gap between islands."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from mmphate_gpu.linalg.components import components
from mmphate_gpu.mds.islands import GAP, distances_by_states, mean_states, with_gaps
from mmphate_gpu.mds.metric import MDSResult


def islands_of(*sizes: int) -> tuple[np.ndarray, list[torch.Tensor]]:
    """The island of every landmark, and the groups that the diffusion of such islands has."""
    islands = np.repeat(np.arange(len(sizes)), sizes)
    return islands, components(torch.from_numpy(islands[:, None] == islands).double())


def potentials(islands: np.ndarray, within: np.ndarray) -> torch.Tensor:
    """Distances ``within`` islands, and the square root of 8 between them."""
    return torch.from_numpy(np.where(islands[:, None] == islands, within, math.sqrt(8)))


# ---------------------------------------------------------------- mean states


def test_the_state_of_a_landmark_is_the_mean_of_its_nodes():
    points = torch.tensor([[1.0, 2], [3, 6], [5, 0]], dtype=torch.float64)
    wanted = torch.tensor([[3.0, 1], [3, 6]], dtype=torch.float64)
    assert torch.equal(mean_states(points, torch.tensor([0, 1, 0]), 2), wanted)


def test_missing_samples_do_not_count():
    nan = torch.nan
    points = torch.tensor([[1.0, nan, nan], [3, 6, nan], [5, nan, nan]], dtype=torch.float64)
    # No node of landmark 0 has the second sample, which is that of landmark 1; no node at all has the third.
    wanted = torch.tensor([[3.0, 6, 0], [3, 6, 0]], dtype=torch.float64)
    assert torch.equal(mean_states(points, torch.tensor([0, 1, 0]), 2), wanted)


# ---------------------------------------------------------------- distances


def test_distances_between_islands_are_those_of_states_in_the_scale_within_islands():
    islands, groups = islands_of(2, 2, 1)
    states = np.array([[0.0, 0], [1, 0], [0, 0.5], [1, 0.5], [0.25, 0]])
    within = 2 * cdist(states, states)  # so the scale is 2
    result = distances_by_states(potentials(islands, within), torch.from_numpy(states), groups)
    np.testing.assert_allclose(result, within, rtol=1e-14)  # 2 sqrt(1.25) is less than the largest, sqrt(8)


def test_distances_within_islands_keep_their_bits_and_the_result_is_symmetric():
    rng = np.random.default_rng(0)
    islands, groups = islands_of(1, 5, 3, 1, 3)
    points = rng.normal(size=(13, 4))
    distances = potentials(islands, cdist(points, points))
    result = distances_by_states(distances.clone(), torch.from_numpy(points + rng.normal(size=(13, 4))), groups)
    same = torch.from_numpy(islands[:, None] == islands)
    assert torch.equal(result[same], distances[same]) and torch.equal(result, result.T)
    assert not (result[~same] == math.sqrt(8)).any()


def test_far_islands_are_drawn_at_the_logarithm_of_their_distance():
    islands, groups = islands_of(2, 1, 1)
    states = torch.tensor([[0.0], [1], [1001], [1e6 + 1]], dtype=torch.float64)
    result = distances_by_states(potentials(islands, 1 - np.eye(4)), states, groups)
    largest = math.sqrt(8)  # the scale is 1
    wanted = [largest * (1 + math.log(far / largest)) for far in (1000, 1e6)]
    np.testing.assert_allclose(result[1, 2:], wanted, rtol=1e-14)


def test_islands_that_are_points_keep_the_mean_square_of_the_distances():
    islands, groups = islands_of(1, 1, 1, 2)
    distances = potentials(islands, np.where(np.eye(5), 0, 1e-12))  # the last island is rounding alone
    states = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 3)) * [1e3, 1, 1])
    states[4] = states[3]
    result = distances_by_states(distances.clone(), states, groups)
    small = cdist(states, states) * math.sqrt(8) * math.sqrt(18) / np.linalg.norm(cdist(states, states))
    below = small < math.sqrt(8)
    np.testing.assert_allclose(result.numpy()[below], small[below], atol=1e-11)
    assert below.mean() > 0.5 and result[3, 4] == 1e-12


@pytest.mark.parametrize("value", [0.0, 1.0, 2.5])
def test_equal_states_change_nothing(value):
    islands, groups = islands_of(2, 1, 1)
    distances = potentials(islands, 1 - np.eye(4))
    states = torch.full((4, 2), value, dtype=torch.float64)
    assert torch.equal(distances_by_states(distances.clone(), states, groups), distances)


@pytest.mark.parametrize("size", [1e-200, 1e-5, 1e200])
def test_the_unit_of_the_states_does_not_matter(size):
    rng = np.random.default_rng(1)
    islands, groups = islands_of(4, 3, 1, 1)
    states = torch.from_numpy(rng.normal(size=(9, 3)))
    distances = potentials(islands, cdist(states[:, :2], states[:, :2]))
    scaled = distances_by_states(distances.clone(), states * size, groups)
    torch.testing.assert_close(scaled, distances_by_states(distances, states, groups), rtol=1e-12, atol=0)


def test_no_distance_at_all_stays_0():
    islands, groups = islands_of(2, 1)
    states = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 2)))
    assert not distances_by_states(torch.zeros(3, 3, dtype=torch.float64), states, groups).any()


# ---------------------------------------------------------------- gaps


def gap_of(points: np.ndarray) -> float:
    n, n_components = points.shape
    return GAP * 2 * math.sqrt(np.square(points).sum() / n) * n ** (-1 / n_components)


def parted(points: np.ndarray, groups: list[torch.Tensor]) -> tuple[MDSResult, torch.Tensor]:
    centered = torch.from_numpy(points - points.mean(0))
    distances = torch.cdist(centered, centered)
    return with_gaps(MDSResult(centered, 0.0, 5), distances, groups), centered


def nearest_of_others(points: np.ndarray, islands: np.ndarray) -> float:
    return cdist(points, points)[islands[:, None] != islands].min()


@pytest.mark.parametrize("n_components", [1, 2, 3])
@pytest.mark.parametrize("sizes", [(1,) * 40, (20, 20), (1, 7, 1, 30, 7, 2, 2), (9, 1, 1, 1, 1, 1)])
def test_islands_keep_a_gap_and_their_shape(n_components, sizes):
    """Points on a coarse grid, so that many of several islands are on one place."""
    islands, groups = islands_of(*sizes)
    points = np.random.default_rng(0).integers(0, 3, (len(islands), n_components)).astype(float)
    points[-1] = points[0]
    result, start = parted(points, groups)
    moved = result.coordinates.numpy()
    assert nearest_of_others(points, islands) == 0
    assert nearest_of_others(moved, islands) > gap_of(start.numpy()) * (1 - 1e-9)
    step = moved - start.numpy()
    for island in range(len(sizes)):
        assert np.ptp(step[islands == island], axis=0).max() < 1e-12
    np.testing.assert_allclose(moved.mean(0), 0, atol=1e-12)
    assert result.n_iter == 5 and result.stress > 0  # it is that of the moved points


def test_islands_with_a_gap_stay():
    islands, groups = islands_of(40, 1, 3)
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    ring = np.stack([np.cos(angles), np.sin(angles)], 1)
    points = np.concatenate([ring, [[0.1, 0]], ring[:3] * 3])  # an island within another stays there
    result, start = parted(points, groups)
    assert torch.equal(result.coordinates, start) and result.stress == 0


def test_an_island_takes_the_nearest_free_place_on_its_line():
    """The largest island is a square around 0. The island at (1, 0.01) is in its gap; the free places are beside it."""
    islands, groups = islands_of(4, 1)
    points = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1], [1, 0.01]])
    result, start = parted(points, groups)
    moved, gap = (result.coordinates - result.coordinates[1] + start[1]).numpy(), gap_of(start.numpy())
    steps = np.linspace(-1, 1, 200_001)
    direction = (points[4] - [0, 0]) / np.linalg.norm(points[4])
    tried = cdist(start[4].numpy() + steps[:, None] * direction, start[:4]).min(1) >= gap
    wanted = np.abs(steps[tried]).min()
    np.testing.assert_allclose(moved[:4], start[:4], atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(moved[4] - start[4].numpy()), wanted, atol=1e-5)


def test_the_order_of_the_landmarks_decides_nothing_but_ties():
    """The same islands with their landmarks in another order: the same places, up to rounding."""
    rng = np.random.default_rng(3)
    islands, groups = islands_of(12, 7, 4, 2, 1)
    points = rng.integers(0, 4, (26, 2)) + 0.01 * rng.normal(size=(26, 2))
    order = rng.permutation(26)
    shuffled = components(torch.from_numpy(islands[order][:, None] == islands[order]).double())
    result, start = parted(points, groups)
    wanted = result.coordinates[order]
    assert not torch.equal(result.coordinates, start)
    torch.testing.assert_close(parted(points[order], shuffled)[0].coordinates, wanted, rtol=0, atol=1e-12)
