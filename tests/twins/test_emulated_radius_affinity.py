"""The CUDA kernels of the affinities, emulated, against plain float64 and the C++ twins."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from mmphate_gpu.ops.launch import native
from mmphate_gpu.ops.radius_affinity import cut_distance

from .cases import STORAGE, lattice, normal
from .emulated_checks import (
    COUNTED,
    FEATURES,
    POINT_SETS,
    POINTS,
    SETS,
    check_radius,
    check_symmetrized,
    others,
)
from .emulation import Twins, needs_emulation

pytestmark = needs_emulation


@pytest.mark.slow
@pytest.mark.parametrize("n", POINTS)
def test_radius_over_shapes(cuda_in_turn: Twins, n: int) -> None:
    for n_sets, p in itertools.product(SETS, FEATURES):
        check_radius(cuda_in_turn, normal(n_sets, n, p), 2.0, *COUNTED)


@pytest.mark.kernels("radius_count", "radius_fill")
@pytest.mark.parametrize("points", POINT_SETS)
def test_radius_over_points(cuda: Twins, points: str) -> None:
    for types, n in itertools.product(STORAGE, (7, 67)):
        check_radius(cuda, POINT_SETS[points](3, n, 6), 5.0, *types)


def test_radius_of_other_decays_and_many_points(cuda_in_turn: Twins) -> None:
    check_radius(cuda_in_turn, normal(1, 1025, 10), 2.5, *COUNTED)


@pytest.mark.parametrize("reach", [0.0, 5e-324, 1e-200, 1.0, math.sqrt(2), 1e200, math.inf])
def test_radius_ties(cuda_in_turn: Twins, reach: float) -> None:
    points = lattice(2, 70, 6)
    assert torch.equal(
        cuda_in_turn.radius_counts(points, reach),
        (others(points) <= reach).logical_and(~torch.eye(70, dtype=torch.bool)).sum(-1),
    )


def test_radius_at_the_cut_of_the_package(cuda_in_turn: Twins) -> None:
    """The largest distance within reach, and the next float64 number."""
    reach = float(cut_distance(torch.tensor(0.7, dtype=torch.float64), decay=2.0, thresh=1e-4))
    points = torch.tensor([[[0.0], [reach], [math.nextafter(reach, math.inf)]]], dtype=torch.float64)
    assert cuda_in_turn.radius_counts(points, reach).tolist() == [[1, 2, 1]]


def test_radius_fill_reports_rows_of_another_length(cuda: Twins) -> None:
    """A row with one pair more or fewer than it has room for is an error, and nothing is written beyond its room."""
    points = normal(1, 40, 6)
    counts = cuda.radius_counts(points, 2.0)[0]
    for change in (-1, 1):
        wrong = counts.clone()
        wrong[20] += change
        indptr = torch.cat([torch.zeros(1, dtype=torch.int64), wrong.cumsum(0)])
        indices, values = torch.full((int(indptr[-1]) + 9,), -7), torch.full((int(indptr[-1]) + 9,), -7.0)
        with pytest.raises(native.NativeError, match="counted"):
            cuda.radius_fill(points, 1.0, 2.0, 2.0, 0, 40, indptr, torch.zeros_like(wrong), indices, values)
        assert (indices[-9:] == -7).all() and (values[-9:] == -7).all()


def test_a_tensor_of_another_device_reaches_no_kernel(cuda: Twins) -> None:
    """The kernel would read the address as that of another tensor."""
    bandwidth = torch.ones(2, 9, dtype=torch.float64, device="meta")
    with pytest.raises(native.NativeError, match="symmetrized_affinity: a tensor is on meta; accepted: cpu"):
        cuda.symmetrized_affinity(normal(2, 9, 3), bandwidth, 2.0, 0.0, 0.0, 1.0, torch.float64)


@pytest.mark.parametrize("n", POINTS)
def test_symmetrized_over_shapes(cuda_in_turn: Twins, n: int) -> None:
    for n_sets, p in itertools.product(SETS, FEATURES):
        check_symmetrized(cuda_in_turn, normal(n_sets, n, p), 2.0, 1e-4, COUNTED[1])


@pytest.mark.kernels("symmetrized_affinity")
@pytest.mark.parametrize("points", POINT_SETS)
def test_symmetrized_over_points(cuda: Twins, points: str) -> None:
    for (_, value), n in itertools.product(STORAGE[:2], (7, 67)):
        check_symmetrized(cuda, POINT_SETS[points](3, n, 6), 5.0, 0.3, value)
