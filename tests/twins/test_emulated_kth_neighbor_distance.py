"""The CUDA kernels of the k-th neighbor distance, emulated, against plain float64 and the C++ twins."""

from __future__ import annotations

import itertools

import pytest
import torch

from mmphate_gpu.ops.kth_neighbor_distance import SAMPLED
from mmphate_gpu.ops.point_tiles import kd_order

from .cases import normal
from .emulated_checks import FEATURES, POINT_SETS, POINTS, SETS, check_kth
from .emulation import Twins, needs_emulation

pytestmark = needs_emulation


@pytest.mark.slow
@pytest.mark.parametrize("n", [n for n in POINTS if n > 1])
def test_kth_over_shapes(cuda_in_turn: Twins, n: int) -> None:
    for turn, (n_sets, p) in enumerate(itertools.product(SETS, FEATURES)):
        check_kth(cuda_in_turn, normal(n_sets, n, p), (1, n - 1, n // 2 or 1, min(5, n - 1))[turn % 4])


@pytest.mark.parametrize("points", POINT_SETS)
def test_kth_over_points(cuda: Twins, points: str) -> None:
    for k, n in ((1, 7), (3, 67), (40, 67), (60, 129), (128, 129)):
        check_kth(cuda, POINT_SETS[points](3, n, 6), k)


@pytest.mark.kernels("kth_neighbor_distance", "bracket_count")
@pytest.mark.parametrize("points", ["normal", "lattice", "duplicates"])
def test_median_by_a_bracket(cuda_in_turn: Twins, points: str) -> None:
    """Two sets with more points than the sample has."""
    check_kth(cuda_in_turn, POINT_SETS[points](2, 1026, 6), 5)


def test_median_where_the_sample_misleads(cuda_in_turn: Twins) -> None:
    """The bracket misses the median, because sampled points lie close to their neighbors and other points far apart.

    The points lie on a line. Their order is that of a kd-tree, so the test knows the sampled places.
    """
    n = 2051
    points = torch.zeros(1, n, 6, dtype=torch.float64)
    points[0, :, 0] = 1e3 * torch.arange(n, dtype=torch.float64)
    sampled = (2 * torch.arange(SAMPLED) + 1) * n // (2 * SAMPLED)
    for side in (-1, 1):
        points[0, sampled + side, 0] = points[0, sampled, 0] + side * (1 + 1e-3 * torch.arange(sampled.numel()))
    assert torch.equal(kd_order(points)[0], torch.arange(n))
    check_kth(cuda_in_turn, points, 2)
