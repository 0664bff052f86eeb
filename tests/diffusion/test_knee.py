"""The knee of a curve, in closed form, as published, and at any scale."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mmphate_gpu import reference
from mmphate_gpu.diffusion import knee
from mmphate_gpu.diffusion.knee import knee_errors
from mmphate_gpu.errors import InputError


@pytest.mark.parametrize("bend", [1, 2, 17, 50, 97])
def test_knee_of_two_lines(bend):
    """The knee is where two lines meet or one step later, because the right line sees a point of the left one."""
    steps = np.arange(100.0)
    curve = np.where(steps <= bend, 5 - 0.04 * steps, 5 - 0.04 * bend - 0.001 * (steps - bend))
    assert knee(curve) in (bend, bend + 1) and knee(curve) == reference.knee(curve)


def test_knee_by_hand():
    """The errors of both breaks of four points.

    Break 1: the left line has no error; the right line, 2.5 - x through all four points, has 1/2 at 1, 2 and 3.
    Break 2: the left line has 1/6, 1/3 and 1/6; the right line, 4/3 - x/2 through 1 to 3, has 1/3 at 2 and 1/6 at 3.
    """
    curve = torch.tensor([3.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(knee_errors(curve), torch.tensor([3 / 2, 7 / 6], dtype=torch.float64))
    assert knee(curve) == reference.knee(curve.numpy()) == 2


@pytest.mark.parametrize("curves, t", [("curves", "t"), ("short", "short_t")])
def test_knees_are_the_published_ones(curves, t):
    """60 entropy curves with the t of the published implementation (tests/golden/README.md)."""
    golden = np.load(Path(__file__).parents[1] / "golden" / "golden_knees.npz")
    assert [knee(curve) for curve in golden[curves]] == golden[t].tolist()
    assert [reference.knee(curve) for curve in golden[curves]] == golden[t].tolist()


@pytest.mark.parametrize("scale", [1e-300, 1e-8, 1e8, 1e300])
def test_the_scale_of_a_curve_does_not_matter(scale):
    golden = np.load(Path(__file__).parents[1] / "golden" / "golden_knees.npz")
    assert [knee(scale * curve) for curve in golden["short"]] == golden["short_t"].tolist()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_curve_that_is_not_finite_has_no_knee(value):
    with pytest.raises(InputError, match="curve contains NaN or infinity"):
        knee(np.array([3.0, value, 0.0, 0.0]))


@pytest.mark.parametrize("n", [4, 5, 30, 100])
def test_knee_matches_reference(n):
    for seed in range(20):
        curve = np.sort(np.random.default_rng(seed).exponential(size=n))[::-1].copy()
        assert knee(curve) == reference.knee(curve)
        assert knee(curve * 1e-8) == knee(curve * 1e8) == knee(curve)


@pytest.mark.parametrize("shape", [(3,), (0,), (4, 4)], ids=str)
def test_a_curve_of_another_shape_is_refused(shape):
    with pytest.raises(InputError, match="curve has shape .*; accepted: one axis of at least 4 points"):
        knee(np.ones(shape))
