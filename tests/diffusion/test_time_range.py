"""The error bar of t holds the times of other landmarks, and eigenvalues give nearly the same time for all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmphate_gpu import MMPHATE, datasets, reference
from mmphate_gpu.diffusion import entropy as entropy_module
from mmphate_gpu.diffusion import entropy_with_error, knee
from mmphate_gpu.diffusion.entropy import entropy_of_singular_values
from mmphate_gpu.diffusion.knee import knee_errors
from mmphate_gpu.diffusion.time_range import time_range
from mmphate_gpu.landmarks.operator import symmetric_form
from mmphate_gpu.linalg import singular_value_sample

from .operator_cases import OPERATORS, hubs

EQUAL = torch.tensor(1.0)


def bar(values: torch.Tensor, t_max: int = 100, largest: torch.Tensor = EQUAL) -> tuple[int, int]:
    entropy = entropy_of_singular_values(values, t_max)
    return time_range(knee(entropy), entropy, values, torch.ones_like(values), largest)


def test_without_values_above_the_largest_eigenvalue_the_bar_holds_the_breaks_that_fit_nearly_as_well():
    values = torch.linspace(0, 1, 200, dtype=torch.float64) ** 3
    errors = knee_errors(entropy_of_singular_values(values)).numpy()
    near = 1 + np.flatnonzero(errors <= 1.01 * errors.min())
    assert bar(values) == (near[0], near[-1])
    assert near[0] < 1 + errors.argmin() < near[-1]


def test_values_above_the_largest_eigenvalue_widen_the_bar():
    """With two in place of one such value, the entropy of late times would be ln 2 and not 0."""
    values = torch.linspace(0, 1, 200, dtype=torch.float64) ** 3
    low, high = bar(values)
    wide_low, wide_high = bar(torch.cat([values, torch.tensor([1.1, 1.08], dtype=torch.float64)]))
    assert wide_high - wide_low > 3 * (high - low)
    assert bar(values * (1 + 1e-12)) == (low, high)  # rounding is not above


def test_the_bar_does_not_depend_on_the_order_of_the_values():
    """An SVD gives the largest value first, a Gram matrix the smallest. A value keeps how often it occurs."""
    above = torch.linspace(1.05, 1.4, 6).repeat(2)  # each value twice, with other counts
    values = torch.cat([torch.linspace(0, 1, 200), above]).double()
    counts = torch.linspace(1, 30, 212, dtype=torch.float64)
    entropy = entropy_of_singular_values(values)
    ways = (
        torch.arange(212),
        torch.arange(212).flip(0),
        torch.randperm(212, generator=torch.Generator().manual_seed(0)),
    )
    bars = {time_range(knee(entropy), entropy, values[way], counts[way], EQUAL) for way in ways}
    assert len(bars) == 1


@pytest.mark.parametrize("name", OPERATORS)
def test_the_bar_holds_the_knee_within_the_times_that_a_knee_can_have(name):
    estimate = entropy_with_error(torch.from_numpy(OPERATORS[name]))
    assert estimate.t == reference.knee(estimate.entropy.numpy())
    assert 1 <= estimate.t_low <= estimate.t <= estimate.t_high <= 98


def test_the_bar_does_not_depend_on_the_scale_of_the_operator():
    landmark_op = torch.from_numpy(OPERATORS["hubs 0"])
    bars = [entropy_with_error(landmark_op * scale) for scale in (1, 2.0**-40, 2.0**500)]
    assert len({(e.t_low, e.t_high) for e in bars}) == 1 and bars[0].t_low < bars[0].t_high


def test_a_corner_that_two_lines_fit_exactly_has_no_bar():
    x = torch.arange(100, dtype=torch.float64)
    curve = 5 - 0.2 * x.clamp_max(20) - 0.005 * (x - 20).clamp_min(0)
    assert time_range(knee(curve), curve, torch.ones(3), torch.ones(3), EQUAL) == (knee(curve), knee(curve))


def test_every_time_is_as_good_for_a_flat_curve():
    flat = torch.full((100,), 2.0, dtype=torch.float64)
    assert time_range(1, flat, torch.ones(7), torch.ones(7), EQUAL) == (1, 98)


@pytest.mark.parametrize("t_max", [4, 5, 129, 1000])
def test_other_lengths_of_the_curve(t_max):
    """Of a long curve every k-th point is taken, so the ends of the bar are known to within k."""
    values = torch.linspace(0, 1, 200, dtype=torch.float64) ** 3
    entropy = entropy_of_singular_values(values, t_max)
    errors = knee_errors(entropy)
    near = 1 + torch.nonzero(errors <= 1.01 * errors.min()).flatten()
    low, high = bar(values, t_max)
    step = -(-t_max // 128)
    assert low <= knee(entropy) <= high
    # A coarser curve has another sum of residuals: a share of the breaks near the ends is decided otherwise.
    assert abs(low - int(near[0])) <= 2 * (step - 1) and abs(high - int(near[-1])) <= 2 * (step - 1)


def test_a_sampled_operator_has_the_bar_of_its_exact_values(monkeypatch):
    """The leading values, which decide the bar, are exact; so both bars are nearly the same."""
    landmark_op = torch.from_numpy(hubs(np.random.default_rng(3), 300))
    exact = entropy_with_error(landmark_op)
    monkeypatch.setattr(entropy_module, "SAMPLE_ABOVE", dict.fromkeys(("cpu", "cuda"), 40))
    monkeypatch.setattr(entropy_module, "_exact_fits", lambda *_: False)
    monkeypatch.setattr(singular_value_sample, "N_LEADING", 60)
    sampled = entropy_with_error(landmark_op)
    assert float(sampled.error.max()) > 0
    assert sampled.t_low <= sampled.possible[0] and sampled.possible[1] <= sampled.t_high
    assert abs(sampled.t_low - exact.t_low) <= 3 and abs(sampled.t_high - exact.t_high) <= 3


def test_the_symmetric_form_has_the_eigenvalues_as_singular_values(landmark_op):
    """Of a reversible operator: markov matrices of symmetric affinities."""
    affinity = landmark_op + landmark_op.T
    degrees = affinity.sum(1)
    operator = symmetric_form(torch.from_numpy(affinity / degrees[:, None]), torch.from_numpy(degrees))
    torch.testing.assert_close(operator, operator.T, rtol=0, atol=1e-13)
    wanted = np.sort(np.abs(np.linalg.eigvals(affinity / degrees[:, None])))
    # The general solver is off by more than the symmetric one. Measured: at most 2e-14.
    np.testing.assert_allclose(np.sort(np.linalg.svd(operator.numpy())[1]), wanted, rtol=0, atol=1e-11)


SEEDS = range(6)


@pytest.fixture(scope="module")
def fits() -> dict[str, list[MMPHATE]]:
    """The Hopf scenario with few epochs, by the way t is chosen and by the seed."""
    trace = datasets.bifurcation("hopf", n_epochs=8, n_timesteps=40)
    op = MMPHATE(n_landmark=300, mds_solver="classic", device="cpu", landmarks="stratified")
    chosen: dict[str, list[MMPHATE]] = {"auto": [], "eigenvalues": []}
    for name, fitted in chosen.items():
        fitted += [MMPHATE(**op.get_params() | {"t": name, "random_state": seed}).fit(trace) for seed in SEEDS]
    return chosen


def test_the_bar_holds_the_times_of_other_seeds(fits):
    for name, fitted in fits.items():
        held = [a.t_range_[0] <= b.t_ <= a.t_range_[1] for a in fitted for b in fitted if a is not b]
        assert np.mean(held) >= 0.85, name


def test_eigenvalues_give_the_knee_of_the_float64_eigenvalues_for_every_seed(fits):
    for op in fits["eigenvalues"]:
        values = torch.from_numpy(np.abs(np.linalg.eigvals(op.landmark_op_)))
        wanted = entropy_of_singular_values(values).numpy()
        # The general solver is off by more than the symmetric one.
        np.testing.assert_allclose(op.von_neumann_entropy_, wanted, rtol=0, atol=1e-8)
        assert op.t_ == reference.knee(wanted)
    spread = {name: np.ptp([op.t_ for op in fitted]) for name, fitted in fits.items()}
    assert spread["eigenvalues"] <= 2 < spread["auto"]
    widths = {name: np.mean([np.ptp(op.t_range_) for op in fitted]) for name, fitted in fits.items()}
    assert widths["eigenvalues"] < widths["auto"]


def test_a_refit_with_a_fixed_t_keeps_the_entropy_and_has_no_bar(fits):
    op = fits["auto"][0]
    assert op.t_range_ == op.result_.t_range
    trace = datasets.bifurcation("hopf", n_epochs=4, n_timesteps=10)
    op = MMPHATE(n_landmark=60, random_state=0, device="cpu").fit(trace)
    op.set_params(t=9).fit(trace)
    assert op.t_range_ is None and op.result_.t_range is None
    assert [stage["reused"] for stage in op.report_ if stage["stage"] == "entropy"] == [True]
    op.set_params(t="eigenvalues").fit(trace)
    assert [stage["reused"] for stage in op.report_ if stage["stage"] == "entropy"] == [False]
