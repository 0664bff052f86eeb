"""SMACOF: the stress never rises, long steps save sweeps, and sweeps in float32 do not change the result."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from mmphate_gpu import reference
from mmphate_gpu.linalg.random import seeded_generator
from mmphate_gpu.mds import metric_mds
from mmphate_gpu.mds import smacof as smacof_module
from mmphate_gpu.mds.classic import classic
from mmphate_gpu.mds.smacof import one_sweep, smacof
from mmphate_gpu.ops import descent_step as descent

from .distance_cases import DISTANCES, RNG, not_a_metric, points_5d, starts_of, stress_by_hand


def raw_stress(distances: np.ndarray, points: torch.Tensor) -> float:
    return stress_by_hand(distances, points.numpy())


@pytest.mark.parametrize("start", ["classic", "random"])
def test_stress_never_rises(distances, start):
    """After any number of sweeps the result is no worse than the start and all points that were tried."""
    values = torch.from_numpy(distances.copy())
    init = classic(values, 2, generator=seeded_generator(0))
    if start == "random":
        init = float(values.mean()) * torch.randn(len(values), 2, dtype=torch.float64, generator=seeded_generator(1))
    for max_iter in (*range(1, 16), 25, 40, 3000):
        seen: list[float] = []

        def sweep(wanted, points, seen=seen):
            moved, raw = one_sweep(wanted, points)
            seen.append(float(raw))
            return moved, raw

        end = smacof(values, init, max_iter=max_iter, sweep=sweep)
        assert end.n_iter == len(seen) <= max_iter
        last = float(one_sweep(values, end.coordinates)[1])
        # A plain step from the best point can raise the stress only because points closer than 1e-8 of the embedding
        # count as coincident. Measured: a share of 3e-16.
        assert last <= min(seen) * (1 + 1e-9) + 1e-24 * float(values.square().sum())


@pytest.mark.parametrize("name", ["hopf", "hopf and pitchfork", "walk"])
def test_long_steps_save_sweeps(name):
    """Plain sweeps need more sweeps for the same stress. Measured: 183, 135 and 31 instead of 38, 35 and 13."""
    distances = DISTANCES[name]()
    values = torch.from_numpy(distances)
    plain = classic(values, 2, generator=seeded_generator(0))
    quick = smacof(values, plain)
    reached = raw_stress(distances, quick.coordinates)
    for _ in range(quick.n_iter):
        plain, _ = one_sweep(values, plain)
    assert raw_stress(distances, plain) > reached


def test_max_iter_is_kept(distances):
    for n in (1, 2, 3, 7):
        assert metric_mds(distances, max_iter=n, eps=0).n_iter <= n


@pytest.mark.parametrize("astray", [100.0, -1.0, float("nan")])
def test_long_steps_that_do_not_lower_the_stress_are_replaced_by_plain_steps(astray, monkeypatch):
    """All long steps are bad, and the result is that of plain steps."""
    distances = points_5d(40)
    values = torch.from_numpy(distances)
    init = classic(values, 2, generator=seeded_generator(0))
    monkeypatch.setattr(descent, "_weights", lambda message, along: (astray, [0.0] * descent.ROWS))
    end = smacof(values, init)
    plain = reference.smacof(distances, 2, init=init.numpy())
    assert raw_stress(distances, end.coordinates) == pytest.approx(stress_by_hand(distances, plain), rel=1e-4)


def learned(
    steps: list[torch.Tensor], falls: list[torch.Tensor], residual: torch.Tensor
) -> tuple[list[float], torch.Tensor, list[float]]:
    """The message and the kept rows after these steps, and the products of the kept rows with the residual."""
    message, kept, along = [0.0] * descent.N_STATE, steps[0].new_zeros(descent.ROWS, steps[0].numel()), []
    for step, fall in zip(steps, falls, strict=True):
        along = descent._learn(message, kept, step, fall, residual)
    return message, kept, along


@pytest.mark.parametrize("n_steps", [1, 3, 5, 8])
def test_long_steps_are_those_of_bfgs(n_steps):
    """The step by inner products is that of the dense update of the inverse Hessian, from the last DEPTH steps."""
    rng = RNG(n_steps)
    n, depth = 12, descent.DEPTH
    hessian = np.diag(np.linspace(0.1, 1, n))  # of (1/2) x' H x, whose residual is -H x
    steps, residual = rng.normal(size=(n_steps, n)), rng.normal(size=n)
    values = [torch.from_numpy(part).view(-1, 4, 3) for part in (steps, steps @ hessian, residual)]
    message, kept, along = learned(list(values[0]), list(values[1]), values[2][0])
    newest = steps[-1]
    scale = max(1.0, newest @ hessian @ newest / (newest @ hessian @ hessian @ newest))
    inverse = scale * np.eye(n)
    for step in steps[-depth:]:
        fall = hessian @ step
        left = np.eye(n) - np.outer(step, fall) / (step @ fall)
        inverse = left @ inverse @ left.T + np.outer(step, step) / (step @ fall)
    of_residual, of_kept = descent._weights(message, along)
    result = of_residual * residual + np.array(of_kept) @ kept.numpy()
    np.testing.assert_allclose(result, inverse @ residual, rtol=1e-10, atol=1e-10)


def test_steps_without_curvature_are_left_out():
    step = torch.eye(4, dtype=torch.float64)[:1]
    residual = torch.ones_like(step)
    message, _, _ = learned([step] * 3, [0 * step, -step, 1e-12 * step], residual)
    assert message[descent.N_KEPT] == 0
    message, kept, along = learned([step] * 2, [-step, 0.5 * step], residual)
    assert message[descent.N_KEPT] == 1
    of_residual, of_kept = descent._weights(message, along)
    torch.testing.assert_close(of_residual * residual[0] + torch.tensor(of_kept).double() @ kept, 2 * residual[0])


def test_a_fall_whose_square_vanishes_gives_an_infinite_step():
    step, fall = (torch.full((1, 1), size, dtype=torch.float64) for size in (1e-160, 1e-163))
    message, _, along = learned([step], [fall], fall)
    assert message[descent.N_KEPT] == 1 and descent._weights(message, along)[0] == float("inf")


def test_the_share_of_a_step_is_the_lowest_point_of_a_parabola():
    points = RNG(0).normal(size=(6, 2))
    squared = float((points**2).sum())  # the stress 2 * 6 * sum x^2 over ordered pairs has the slope 4 * 6 x
    assert descent._share(6, 4 * squared, gain=12 * (1 - 9) * squared) == pytest.approx(1 / 4, rel=1e-12)
    for far in (1e6, float("inf"), float("nan")):  # at least a tenth
        assert descent._share(6, squared, gain=-far) == 0.1
    assert descent._share(6, squared, gain=0.0) == 0.5  # at most a half


@pytest.mark.parametrize("init", ["zeros", "one point", "a line"])
def test_degenerate_starts_give_finite_coordinates(init):
    """Coincident points have no direction in which to separate."""
    start = {
        "zeros": np.zeros((20, 2)),
        "one point": np.ones((20, 2)),
        "a line": np.stack([np.arange(20.0), np.zeros(20)], 1),
    }
    result = metric_mds(points_5d(20), init=start[init])
    assert np.isfinite(result.coordinates).all() and 0 <= result.stress <= 1


# ---------------------------------------------------------------- sweeps in float32


def recorded(seen: list[tuple[torch.dtype, float]]):
    def sweep(wanted, points):
        moved, raw = one_sweep(wanted, points)
        seen.append((wanted.dtype, float(raw)))
        return moved, raw

    return sweep


@pytest.mark.parametrize(("n", "rough"), [(255, False), (256, True), (300, True)])
def test_many_landmarks_start_in_float32_and_end_in_float64(n, rough):
    seen: list[tuple[torch.dtype, float]] = []
    end = smacof(*starts_of(points_5d(n)), sweep=recorded(seen))
    dtypes = [dtype for dtype, _ in seen]
    n_rough = dtypes.count(torch.float32)
    assert end.n_iter == len(seen) and end.coordinates.dtype == torch.float64
    assert (n_rough > 0) == rough and len(seen) - n_rough >= 2
    assert dtypes == [torch.float32] * n_rough + [torch.float64] * (len(seen) - n_rough)


@pytest.mark.parametrize("n_components", [2, 3, 4])
@pytest.mark.parametrize("scale", [1e-150, 1.0, 1e150])
def test_sweeps_in_float32_do_not_raise_the_final_stress(scale, n_components, monkeypatch):
    """The stress is as low as by float64 alone, up to `eps`, also for distances beyond the range of float32."""
    distances = scale * points_5d(300)
    values, init = starts_of(distances, n_components)
    result = raw_stress(distances / scale, smacof(values, init).coordinates / scale)
    monkeypatch.setattr(smacof_module, "ROUGH_FROM", 1000)
    alone = raw_stress(distances / scale, smacof(values, init).coordinates / scale)
    # `eps` allows 5e-7 of the stress in every step. Measured: at most 6.4e-6 above and 4.4e-5 below.
    assert result <= alone * (1 + 1e-4)


@pytest.mark.parametrize("max_iter", [1, 2, 3, 4, 5, 6, 10, 25, 60, 3000])
def test_stress_never_rises_in_float32(max_iter):
    distances = not_a_metric(300)
    values, init = starts_of(distances)
    seen: list[tuple[torch.dtype, float]] = []
    end = smacof(values, init, max_iter=max_iter, eps=0 if max_iter < 3000 else 1e-6, sweep=recorded(seen))
    assert end.n_iter == len(seen) <= max_iter
    largest = float(values.max())
    raws = [raw if dtype == torch.float64 else raw * largest**2 for dtype, raw in seen]
    # Measured: at least the share 4e-7 below. The error of float32 sums is the share 1e-7.
    last = float(one_sweep(values, end.coordinates)[1])
    assert last <= min(raws) * (1 + 1e-6)


def test_many_landmarks_are_not_above_scikit_learns():
    sklearn_smacof = pytest.importorskip("sklearn.manifold").smacof
    distances = points_5d(300)
    values, init = starts_of(distances)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        options = {"metric": True, "init": init.numpy(), "n_init": 1, "max_iter": 3000, "eps": 1e-6}
        theirs, _ = sklearn_smacof(distances, n_components=2, normalized_stress=False, **options)
    assert metric_mds(values, init=init).stress <= 1.001 * stress_by_hand(distances, theirs)


@pytest.mark.parametrize("init", ["zeros", "one point", "duplicates"])
def test_degenerate_starts_of_many_landmarks_give_finite_coordinates(init):
    start = {"zeros": np.zeros((260, 2)), "one point": np.ones((260, 2)), "duplicates": RNG(0).integers(0, 3, (260, 2))}
    result = metric_mds(points_5d(260), init=start[init].astype(float))
    assert np.isfinite(result.coordinates).all() and 0 <= result.stress <= 1


def test_many_landmarks_at_distance_zero_have_no_stress():
    assert metric_mds(np.zeros((260, 260))).stress == 0
