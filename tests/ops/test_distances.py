"""Distances by differences keep small distances."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from mmphate_gpu.ops.distances import distances_by_difference
from mmphate_gpu.ops.radius_affinity import cut_distance, radius_counts

from ..linalg.matrices import normal


@pytest.mark.parametrize("n", [3, 40])  # the default of torch's cdist uses products above 25 rows
def test_distances_keep_small_differences(n, device):
    """For points 1e-9 apart around 1, distances by products would be 0 or 1e-8."""
    points = (1 + 1e-9 * normal(n, 4)).to(device)
    distances = distances_by_difference(points, points).cpu()
    np.testing.assert_allclose(distances.numpy(), cdist(points.cpu().numpy(), points.cpu().numpy()), rtol=1e-14)
    assert bool((distances.diagonal() == 0).all()) and torch.equal(distances, distances.T)


def test_small_distances_everywhere():
    """No op may compute distances by products: 40 slices 1e-12 apart keep their order."""
    steps = torch.arange(40, dtype=torch.float64)
    points = (1 + 1e-12 * steps)[None, :, None].expand(1, 40, 3).contiguous()
    width = 2 * (points[0, 1] - points[0, 0]).norm()
    counts = radius_counts(points, float(cut_distance(width, decay=2, thresh=1e-4)))[0].tolist()
    assert all(b - a in (0, 1) for a, b in pairwise(counts[:10])) and counts[0] == 6  # 3.03 bandwidths: 6 steps
