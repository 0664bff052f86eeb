"""Stages that accept kernels and distances of other tools do not depend on the unit of measurement."""

from __future__ import annotations

import numpy as np
import pytest

from mmphate_gpu import (
    InputError,
    diffusion_potential,
    metric_mds,
    neighborhood_preservation,
    potential_distances,
    reference,
    stress,
)
from mmphate_gpu.linalg.safe_scale import safe_scale
from mmphate_gpu.runtime.arrays import tensor_of

SCALES = [2.0**-1000, 2.0**-600, 2.0**-100, 2.0**100, 2.0**600, 2.0**1000]


@pytest.fixture(scope="module")
def rows() -> np.ndarray:  # (40, 3)
    return np.random.default_rng(0).normal(size=(40, 3))


@pytest.mark.parametrize("scale", SCALES)
def test_distances_of_a_scaled_potential(rows, scale):
    # Products are summed in the same order, and scaling by a power of two rounds nothing.
    np.testing.assert_allclose(potential_distances(scale * rows) / scale, potential_distances(rows), rtol=1e-12)


@pytest.mark.parametrize("solver", ["classic", "smacof", "nonmetric"])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("given_start", [False, True])
def test_mds_of_scaled_distances(rows, scale, solver, given_start):
    distances = reference.potential_distances(rows)
    starts = (rows[:, :2], scale * rows[:, :2]) if given_start else (None, None)
    wanted, result = (
        metric_mds(d, 2, solver=solver, init=init, random_state=0, max_iter=50)
        for d, init in zip((distances, scale * distances), starts, strict=True)
    )
    # Every sweep rounds. Measured after 50 sweeps: 2e-13 of the largest coordinate.
    np.testing.assert_allclose(result.coordinates / scale, wanted.coordinates, rtol=0, atol=1e-9)
    assert result.stress == pytest.approx(wanted.stress, rel=1e-9)
    assert stress(scale * distances, result.coordinates) == pytest.approx(wanted.stress, rel=1e-9)


@pytest.mark.parametrize("scale", [1e-80, 1e80])
def test_powers_that_overflow_or_vanish_are_refused(rows, scale):
    kernel = np.exp(-reference.potential_distances(rows))
    operator = kernel / kernel.sum(1, keepdims=True)
    assert np.isfinite(diffusion_potential(operator, 5)).all()
    with pytest.raises(InputError, match="landmark_op has rows that sum to .*, and its power 5 .* rows sum to 1"):
        diffusion_potential(scale * operator, 5)


@pytest.mark.parametrize("largest", [5e-324, 1e-200, 1e-100, 0.0, 1.0, 1e100, 1e101, 1.7e308])
def test_the_safe_scale_keeps_ordinary_numbers(largest):
    numbers = np.array([largest, -largest / 3])
    scale = safe_scale(tensor_of(numbers))
    assert np.log2(scale) == round(np.log2(scale))
    if 1e-100 <= largest <= 1e100 or largest == 0:
        assert scale == 1
    else:
        assert 1e-25 < largest * scale < 2 and np.array_equal(numbers * scale / scale, numbers)


@pytest.mark.parametrize("solver", ["smacof", "nonmetric"])
@pytest.mark.parametrize("size", [1e-200, 1e-10, 1e10, 1e160])
@pytest.mark.parametrize("scale", [2.0**-600, 1.0, 2.0**600])
def test_the_scale_of_a_start_does_not_matter(rows, solver, size, scale):
    distances = reference.potential_distances(rows)
    wanted = metric_mds(distances, 2, solver=solver, init=rows[:, :2]).stress
    # Sweeps end by the stress before the first one, which differs: measured 1e-4.
    assert metric_mds(scale * distances, 2, solver=solver, init=size * rows[:, :2]).stress == pytest.approx(
        wanted, rel=1e-2
    )


@pytest.mark.parametrize("scale", [1e-170, 1.0, 1e160])
def test_preservation_of_a_scaled_picture(scale):
    rng = np.random.default_rng(0)
    trace, picture = rng.normal(size=(30, 4, 6)).cumsum(0), rng.normal(size=(120, 2))
    assert neighborhood_preservation(trace, scale * picture, 5) == neighborhood_preservation(trace, picture, 5)


def test_stress_of_what_is_empty_or_not_finite_is_refused(rows):
    distances = reference.potential_distances(rows)
    for call in (
        lambda: stress(np.zeros((0, 0)), np.zeros((0, 2))),
        lambda: stress(distances * np.nan, rows),
        lambda: stress(distances, rows * np.inf),
    ):
        with pytest.raises(InputError, match="is empty or contains NaN or infinity; accepted: finite numbers"):
            call()
