"""Bandwidths of points that lack samples, by hand: which points count, and where the number of neighbors is clamped."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmphate_gpu import reference
from mmphate_gpu.affinities import comparable, intraslice_affinity
from mmphate_gpu.affinities.bandwidth import interslice_bandwidth, kth_unit_distance
from mmphate_gpu.affinities.comparable import clamped_kth_distance, comparable_others
from mmphate_gpu.affinities.equal_points import merge_equal_units
from mmphate_gpu.ops import csr as csr_ops
from mmphate_gpu.slices import unit_major
from mmphate_gpu.trace.points import FLOOR

NAN = float("nan")
# Points 0 and 3 share a sample with each other, with 1 and with 2. Point 4 shares none with any, and point 5 has none.
POINTS = torch.tensor(
    [[[0, 0, NAN], [4, NAN, NAN], [NAN, 3, NAN], [0, 1, NAN], [NAN, NAN, 9], [NAN] * 3]], dtype=torch.float64
)


def test_distances_by_hand():
    """Over the samples that both have, times 3 / their number: d(0, 1)^2 = 16 * 3, d(0, 3)^2 = 1 * 3 / 2."""
    squares = [[1.5, 27, 48], [48, 48, 48], [12, 27, 27], [1.5, 12, 48], [0, 0, 0], [0, 0, 0]]
    for k in (1, 2, 3):
        expected = torch.tensor([[row[k - 1] for row in squares]], dtype=torch.float64).sqrt()
        torch.testing.assert_close(clamped_kth_distance(POINTS, k), expected, rtol=1e-15, atol=0)


def test_the_slow_search_is_for_sets_that_need_it(monkeypatch):
    """A set in which every point has k comparable others takes the fast search alone, points without samples aside."""
    sets = torch.cat([POINTS[:, [0, 1, 3, 5]], POINTS[:, :4]])
    searched = []
    slow = comparable.nearest_others
    monkeypatch.setattr(
        comparable,
        "nearest_others",
        lambda points, *rest, **options: searched.append(points) or slow(points, *rest, **options),
    )
    torch.testing.assert_close(clamped_kth_distance(sets, 2), kth_unit_distance(sets, 2, masked=True))
    assert searched == []
    clamped_kth_distance(sets, 3)
    assert [len(points) for points in searched] == [2]


def test_units_with_the_same_samples_are_grouped():
    patterns = torch.cat([POINTS, POINTS[:, [0, 1, 2, 3, 3, 5]], POINTS + 1, torch.full_like(POINTS, NAN)])
    groups = {
        tuple(units.tolist()): (slices.tolist(), others.tolist())
        for units, slices, others in comparable_others(patterns)
    }
    assert groups == {(0, 2): ([0, 1, 2, 3, 4], [3, 2, 2, 3, 0]), (1,): ([0, 1, 2, 3, 4], [4, 3, 3, 4, 4])}


def test_the_bandwidth_by_hand():
    """Unit 0 has the slices 0, 1, 2, 3, 4 and one without samples, unit 1 none. The median of three distances is 1."""
    line = torch.full((2, 6, 2), NAN, dtype=torch.float64)
    line[0, :5, 0] = torch.arange(5, dtype=torch.float64)
    # A distance over one of two samples counts twice as much when squared.
    assert float(interslice_bandwidth(line, 1, masked=True)) == pytest.approx(2**0.5, rel=1e-15)
    # Four others: the farthest slice is at 4, 3, 2, 3 and 4, so the median is 3.
    assert float(interslice_bandwidth(line, 5, masked=True)) == pytest.approx(3 * 2**0.5, rel=1e-15)


def test_slices_that_share_no_sample_have_the_floor():
    apart = torch.tensor([[[1, NAN], [NAN, 2]]], dtype=torch.float64)
    assert float(interslice_bandwidth(apart, 1, masked=True)) == FLOOR


@pytest.mark.parametrize("knn", [1, 4, 12, 29])
@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_bandwidths_are_those_of_the_reference(share, knn):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(30, 5, 6)).cumsum(0)
    points[rng.random(points.shape) > share] = np.nan
    points[:, 3] = points[:, 1]  # two units with the same samples
    stack = torch.from_numpy(points)
    wanted = reference.interslice_bandwidth(points, knn=knn)
    assert float(interslice_bandwidth(unit_major(stack), knn, masked=True)) == pytest.approx(wanted, rel=1e-13)
    intraslice = reference.intraslice_affinity(points, knn=knn)
    intraslice[intraslice < 1e-4] = 0  # as the sum of both affinities is cut
    csr = intraslice_affinity(stack, knn=knn, masked=True)
    dense = csr_ops.to_torch(csr).to_dense().view(30, 5, 5).numpy()
    np.testing.assert_array_equal(dense > 0, intraslice > 0)
    np.testing.assert_allclose(dense, intraslice, rtol=0, atol=1e-13)


def test_only_units_with_the_same_samples_become_equal():
    points = torch.tensor([[[1, 2, NAN], [1, 2 + 1e-9, NAN], [1, NAN, NAN], [5, 7, 3]]], dtype=torch.float64)
    resolution = torch.tensor([[1e-8, 1e-7, 1e-7, 1e-7]], dtype=torch.float64)
    merged = merge_equal_units(points, resolution, torch.full((1, 4), 1e-8, dtype=torch.float64), masked=True)
    expected = points.clone()
    expected[0, 1] = points[0, 0]
    torch.testing.assert_close(merged, expected, rtol=0, atol=0, equal_nan=True)
