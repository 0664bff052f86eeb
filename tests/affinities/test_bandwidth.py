"""Bandwidths of steps 3 and 4, by hand and against the reference."""

from __future__ import annotations

import warnings

import pytest
import torch

from mmphate_gpu import reference
from mmphate_gpu.affinities.bandwidth import interslice_bandwidth, kth_unit_distance
from mmphate_gpu.slices import unit_major
from mmphate_gpu.trace.points import FLOOR


def test_bandwidth_of_equal_steps():
    """Slices 0, 1, ..., 10 on a line, knn = 2: 1 inside, 2 at the ends, median 1. Two units: the mean of 1 and 3."""
    line = torch.arange(11, dtype=torch.float64)[None, :, None]
    assert float(interslice_bandwidth(torch.cat([line, 3 * line]), 2)) == 2


def test_bandwidth_floors():
    equal = torch.zeros(3, 4, 2, dtype=torch.float64)
    assert float(interslice_bandwidth(equal, 2)) == FLOOR
    assert bool((kth_unit_distance(equal, 2) == 0).all())
    assert bool((kth_unit_distance(equal[:, :1], 2) == 0).all())  # a single unit has no other


def test_floor_is_per_unit():
    """The floor applies to the median of each unit, not to their mean: a dead unit adds the floor."""
    line = torch.arange(11, dtype=torch.float64)[None, :, None]
    assert float(interslice_bandwidth(torch.cat([line, 0 * line]), 2)) == (1 + FLOOR) / 2


def test_bandwidth_matches_reference(get_case):
    for name in ("walk", "hopf", "repeated slices", "one dead unit", "huge, unnormalized", "two slices"):
        points = get_case(name)[0].points()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            actual = interslice_bandwidth(unit_major(points), 25)
            expected = reference.interslice_bandwidth(points.numpy(), knn=25)
        # Measured: 4e-16; sums of squares of a few numbers in two orders.
        assert float(actual) == pytest.approx(expected, rel=1e-14), name
