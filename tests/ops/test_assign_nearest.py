"""The nearest centers against brute force."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.distance import cdist

from mmphate_gpu.ops.assign_nearest import assign_nearest

from ..linalg.matrices import normal


def test_assign_nearest_in_a_stack(device):
    points, centers = normal(3, 40, 4).to(device), normal(3, 7, 4, seed=1).to(device)
    labels, squared = assign_nearest(points, centers)
    for b in range(3):
        expected = assign_nearest(points[b], centers[b])
        assert torch.equal(labels[b], expected[0])
        torch.testing.assert_close(squared[b], expected[1], rtol=0, atol=1e-12)


def test_assign_nearest_against_brute_force(device):
    points, centers = normal(200, 4, seed=1).to(device), normal(13, 4, seed=2).to(device)
    labels, squared = assign_nearest(points, centers)
    expected = cdist(points.cpu().numpy(), centers.cpu().numpy())
    np.testing.assert_array_equal(labels.cpu().numpy(), expected.argmin(1))
    np.testing.assert_allclose(squared.cpu().numpy(), expected.min(1) ** 2, atol=1e-13)
