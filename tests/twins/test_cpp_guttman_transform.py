"""The C++ twin of a SMACOF sweep against the portable version."""

from __future__ import annotations

import itertools

import pytest
import torch

from mmphate_gpu.ops.launch.twins import CPP, PORTABLE

from .cases import normal
from .instruction_sets import needs_cpp, with_one_and_two_threads

pytestmark = needs_cpp


LANDMARKS = (1, 2, 3, 5, 31, 32, 33, 70, 127, 300)


def sweep_of(n: int, n_components: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Distances that no points in a plane have, points with duplicates, and the share up to which points are equal."""
    distances = torch.cdist(normal(n, 7), normal(n, 7), compute_mode="donot_use_mm_for_euclid_dist").to(dtype)
    points = 2 * normal(n, n_components)
    points[n // 2 :: 5] = points[0].clone()
    points -= points.mean(0)
    return distances, points, 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("n_components", range(1, 13))
def test_guttman_transform(n_components, dtype, isa):
    for n in LANDMARKS:
        arguments = sweep_of(n, n_components, dtype)
        before = arguments[1].clone()
        moved, raw = CPP["guttman_transform"](*arguments)
        expected, expected_raw = PORTABLE["guttman_transform"](arguments[0].double(), *arguments[1:])
        assert moved.dtype == raw.dtype == torch.float64 and torch.equal(arguments[1], before)
        # The rounding of a coordinate times the ratio D / d, which is about 1,000 where two points nearly touch.
        between = torch.cdist(arguments[1], arguments[1], compute_mode="donot_use_mm_for_euclid_dist")
        together = arguments[2] * arguments[1].abs().max()
        ratios = torch.where(between > together, arguments[0] / between, 0).sum(1).max()
        scale = torch.finfo(dtype).eps * float(arguments[1].abs().max()) * max(1.0, float(ratios) / n)
        # Measured: 2.9 times this, and 22 roundings of the stress.
        worst, share = float((moved - expected).abs().max()), abs(float(raw / expected_raw) - 1) if n > 1 else 0
        assert worst <= 10 * scale and share <= 100 * torch.finfo(dtype).eps


@pytest.mark.parametrize("n_components", [1, 2, 3, 7])
def test_guttman_transform_of_points_together(n_components, isa):
    """If all points are equal, nothing is divided by 0, and all points stay at the center."""
    for n, dtype in itertools.product((2, 33, 127), (torch.float32, torch.float64)):
        distances = sweep_of(n, n_components, dtype)[0]
        for share in (0.0, 1e-8):
            points = torch.zeros(n, n_components).double()
            moved, raw = CPP["guttman_transform"](distances, points, share)
            assert bool((moved == 0).all())
            assert float(raw) == pytest.approx(float(distances.double().square().sum()), rel=1e-6)


def test_guttman_transform_by_hand(isa):
    """Two points 2 apart that should be 6 apart: they move to +-3, and the stress is twice 4^2."""
    distances = torch.tensor([[0.0, 6.0], [6.0, 0.0]], dtype=torch.float64)
    points = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    moved, raw = CPP["guttman_transform"](distances, points, 1e-8)
    assert moved.tolist() == [[3.0], [-3.0]] and float(raw) == 32


@pytest.mark.parametrize("n_components", [1, 2, 3, 4, 5, 12])
def test_guttman_transform_has_the_same_bits_with_more_threads(n_components, isa):
    for n, dtype in itertools.product((33, 301), (torch.float32, torch.float64)):
        arguments = sweep_of(n, n_components, dtype)
        with_one_and_two_threads(lambda arguments=arguments: CPP["guttman_transform"](*arguments))
