"""Only units that are equal but for rounding move."""

from __future__ import annotations

import numpy as np
import torch

from mmphate_gpu.affinities.equal_points import merge_equal_units
from mmphate_gpu.trace import as_trace, trace_points

S = 40


def walk(dtype: type) -> np.ndarray:  # (S, units, samples)
    return np.random.default_rng(0).normal(size=(S, 5, 8)).cumsum(0).astype(dtype)


def test_only_what_is_equal_to_rounding_moves():
    """Of a tight group, a line of steps above the resolution and exact copies, only the first moves."""
    tight = torch.tensor([[0.0, 0], [1e-8, 0], [0, 2e-8]], dtype=torch.float64)
    line = torch.tensor([[5.0, 0], [5, 1], [5, 2]], dtype=torch.float64)
    copies = torch.tensor([[9.0, 9]], dtype=torch.float64).expand(3, 2)
    points = torch.cat([tight, line, copies])[None]
    resolution = torch.full((1, 9), 1e-7, dtype=torch.float64)
    resolution[0, 1] = 5e-8  # the best resolved, to which the others of its group move
    kth = torch.cdist(points, points)[0].sort().values[None, :, 2]
    before = points.clone()
    result = merge_equal_units(points, resolution, kth)
    assert torch.equal(points, before)
    assert torch.equal(result[0, :3], tight[1].expand(3, 2)) and torch.equal(result[0, 3:], points[0, 3:])


def test_where_nothing_is_equal_nothing_is_copied():
    points, resolution = trace_points(as_trace(walk(np.float64)))
    kth = torch.cdist(points, points).sort().values[..., 2]
    assert merge_equal_units(points, resolution, kth) is points


def test_noise_moves_alone():
    """The samples of a saturated unit are 1 but for rounding: noise, which may lie near another unit by chance."""
    trace = walk(np.float32)
    trace[:, 0] = 1 - np.finfo(np.float32).eps * np.random.default_rng(0).integers(0, 3, (S, 8)).astype(np.float32)
    points, resolution = trace_points(as_trace(trace))
    # The rounding of samples near 1 is as large as their deviation, so the resolution has its upper limit.
    torch.testing.assert_close(resolution[:, 0], torch.full((S,), 8.0, dtype=torch.float64).sqrt(), rtol=1e-6, atol=0)
    kth = torch.cdist(points, points).sort().values[..., 2]
    assert bool((kth[:, 0] <= 2 * resolution[:, 0]).any())
    assert torch.equal(merge_equal_units(points, resolution, kth)[:, 1:], points[:, 1:])
