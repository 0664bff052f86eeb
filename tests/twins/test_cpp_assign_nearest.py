"""The C++ twin of the nearest center against plain torch."""

from __future__ import annotations

import pytest
import torch

from mmphate_gpu.ops.launch.twins import CPP

from .cases import assert_same, normal
from .instruction_sets import needs_cpp, with_one_and_two_threads

pytestmark = needs_cpp


def whole(*shape: int, seed: int, dtype: torch.dtype) -> torch.Tensor:
    """Whole numbers, so that every product and sum is exact in float32, and many distances are equal."""
    return torch.randint(-6, 7, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


# Points: less than a tile, a tile, a block, and more. Centers: less than a panel, a panel, and more.
NEAREST_SIZES = [(1, 1, 1), (3, 2, 5), (8, 48, 1), (127, 47, 3), (128, 49, 7), (129, 24, 100), (300, 150, 17)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("n", "k", "n_features"), NEAREST_SIZES)
def test_assign_nearest_of_whole_numbers(n, k, n_features, dtype, isa):
    """The label is the first of the nearest centers, and its squared distance is exact."""
    points, centers = whole(2, n, n_features, seed=0, dtype=dtype), whole(2, k, n_features, seed=1, dtype=dtype)
    squares = (points[:, :, None] - centers[:, None]).square().sum(-1)
    labels, squared = CPP["assign_nearest"](points, centers)
    assert torch.equal(squared, squares.amin(-1))
    first = torch.from_numpy(squares.numpy().argmin(-1))  # NumPy documents that it returns the first
    assert torch.equal(labels, first)
    assert_same((labels[1], squared[1]), CPP["assign_nearest"](points[1], centers[1]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_assign_nearest_against_float64(dtype, isa):
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(700, 100, generator=generator, dtype=torch.float64).to(dtype)
    centers = points[::7] + 0.1 * torch.randn(100, 100, generator=generator, dtype=torch.float64).to(dtype)
    exact = torch.cdist(points.double(), centers.double(), compute_mode="donot_use_mm_for_euclid_dist").square()
    labels, squared = CPP["assign_nearest"](points, centers)
    # The squared norms that are subtracted are at most 400 together. Measured: off by 1.9e-7 of them in float32 and
    # 6e-16 in float64, on every instruction set. A label may be wrong only within this rounding.
    rounding = 400 * {torch.float32: 2e-6, torch.float64: 4e-15}[dtype]
    of_labels = exact.gather(1, labels[:, None])[:, 0]
    assert float((squared.double() - of_labels).abs().max()) < rounding
    assert float((of_labels - exact.amin(1)).max()) < 2 * rounding


def test_assign_nearest_has_the_same_bits_with_more_threads(isa):
    points, centers = normal(301, 20).float(), normal(60, 20).float()
    with_one_and_two_threads(lambda: CPP["assign_nearest"](points, centers))
    # Each of several sets runs on one thread.
    stack = points.view(7, 43, 20), centers.view(3, 20, 20)[[0, 1, 2, 0, 1, 2, 0]]
    with_one_and_two_threads(lambda: CPP["assign_nearest"](*stack))
    assert_same(CPP["assign_nearest"](points.T.contiguous().T, centers), CPP["assign_nearest"](points, centers))
