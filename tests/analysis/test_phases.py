"""Phases: exact segmentation, planted changes, curves without one, intervals, and degenerate curves."""

import itertools

import numpy as np
import pytest

from mmphate_gpu.analysis import Phases, phases
from mmphate_gpu.analysis.segments import autocorrelation, best_edges, lines, slope_weights, squares_to_the_end
from mmphate_gpu.errors import InputError, InputTypeError

E = 50
RISE, FALL = np.linspace(1, 3, 20), np.linspace(3, 2, 30)
TENT = np.concatenate([RISE, FALL])


def rng(seed=0):
    return np.random.default_rng(seed)


def autoregressive(rho, shape, generator):
    noise = generator.normal(size=shape)
    for i in range(1, shape[-1]):
        noise[..., i] += rho * noise[..., i - 1]
    return noise


def named(values, dims, replicates=None):
    """An object with named axes, as `Entropy` and a DataArray are."""
    labels = {name: np.arange(size) * 2 for name, size in zip(dims, values.shape, strict=True)}
    fields = {"values": values, "dims": dims, "coords": labels, "replicates": replicates}
    return type("Named", (), fields)()


# ---------------------------------------------------------------- the segmentation


def residual_squares(x, y, edges):
    fits = [np.polyfit(x[a:b] - x[a], y[a:b], 1) for a, b in itertools.pairwise(edges)]
    parts = zip(fits, itertools.pairwise(edges), strict=True)
    return sum(np.square(y[a:b] - np.polyval(fit, x[a:b] - x[a])).sum() for fit, (a, b) in parts)


def brute_force(x, y, n_lines, min_length):
    inner = itertools.combinations(range(1, len(y)), n_lines - 1)
    every = ([0, *cuts, len(y)] for cuts in inner)
    return min(residual_squares(x, y, edges) for edges in every if min(np.diff(edges)) >= min_length)


@pytest.mark.parametrize("min_length", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_the_lines_are_the_best_of_all(seed, min_length):
    generator = rng(seed)
    x, y = generator.uniform(0.1, 3, 12).cumsum() + 1e4, generator.normal(size=12).cumsum()
    edges = best_edges(x, y, 4, min_length)
    for n_lines in range(1, 5):
        # Sums of 12 squares of about 1, with x to 1e-12 of 1e4: they agree to 1e-11.
        expected = brute_force(x, y, n_lines, min_length)
        assert residual_squares(x, y, edges[n_lines - 1]) == pytest.approx(expected, abs=1e-10)


def test_squares_of_every_start():
    x, y = rng(1).uniform(0.1, 3, 9).cumsum() + 1e6, rng(2).normal(size=9)
    expected = [residual_squares(x[i:], y[i:], [0, 9 - i]) for i in range(8)]
    np.testing.assert_allclose(squares_to_the_end(x, y)[:8], expected, atol=1e-9)  # x to 1e-10 of 1e6
    assert squares_to_the_end(x, y)[-2:].tolist() == pytest.approx([0, 0], abs=1e-12)


def test_too_few_points_for_more_lines():
    assert [len(edges) - 1 for edges in best_edges(np.arange(7.0), rng().normal(size=7), 5, 3)] == [1, 2]


def test_lines_and_slopes_are_least_squares():
    x, y, edges = rng(3).uniform(0.1, 2, 15).cumsum(), rng(4).normal(size=15), np.array([0, 6, 15])
    fits = [np.polyfit(x[a:b], y[a:b], 1) for a, b in ((0, 6), (6, 15))]
    expected = np.concatenate([np.polyval(fits[0], x[:6]), np.polyval(fits[1], x[6:])])
    np.testing.assert_allclose(lines(x, y, edges), expected, atol=1e-12)
    np.testing.assert_allclose(slope_weights(x, edges) @ y, [fit[0] for fit in fits], atol=1e-12)


def test_autocorrelation_of_residuals():
    """200 estimates of 400 points: a mean has the standard error sqrt((1 - rho^2) / 400 / 200), below 0.004."""
    for rho in (0.0, 0.5, 0.9):
        estimates = [autocorrelation(row) for row in autoregressive(rho, (200, 400), rng(5))]
        bias = 0.02 if rho == 0 else 0.01  # negative estimates become 0: half a deviation of 1 / 20
        assert np.mean(estimates) == pytest.approx(rho, abs=bias + 0.004)


# ---------------------------------------------------------------- planted changes, and none


def test_a_planted_change_is_within_two_epochs():
    """In 60 curves, noise 0.03 on slopes of 0.04 an epoch; measured: 60 of 60, and with noise 0.05, 56."""
    generator, hits = rng(6), 0
    for _ in range(60):
        change = int(generator.integers(E // 4, 3 * E // 4))
        curve = np.minimum(np.arange(E), 2 * change - np.arange(E)) * 2 / E + 0.03 * generator.normal(size=E)
        result = phases(curve, n_bootstrap=200, random_state=0)
        hits += result.trend.tolist() == ["growth", "compression"] and abs(result.start[1] - change) <= 2
    assert hits >= 58


def test_three_phases():
    curve = np.concatenate([RISE, FALL, np.full(20, 2.0)]) + 0.03 * rng(7).normal(size=70)
    result = phases(curve, random_state=0)
    assert result.trend.tolist() == ["growth", "compression", "plateau"]
    np.testing.assert_allclose(result.start, [0, 20, 50], atol=2)
    np.testing.assert_allclose(result.slope, [2 / 19, -1 / 29, 0], atol=0.01)
    assert (result.start[1:] == result.stop[:-1] + 1).all() and result.stop[-1] == 69


@pytest.mark.parametrize(("rho", "most"), [(0.0, 2), (0.5, 5), (0.9, 10)])
def test_a_straight_line_with_noise_is_one_phase(rho, most):
    """Of 100 curves each; measured: 0, 0 and 3 with more than one phase."""
    curves = 0.3 * np.arange(E) + autoregressive(rho, (100, E), rng(8))
    assert sum(len(phases(curve, n_bootstrap=1).slope) > 1 for curve in curves) <= most


def test_without_the_penalty_noise_makes_phases():
    curves = autoregressive(0.9, (20, E), rng(9))
    assert np.mean([len(phases(curve, penalty=1, n_bootstrap=1).slope) > 1 for curve in curves]) > 0.4


def test_max_phases_and_min_length_hold():
    zigzag = np.abs(np.arange(40) % 16 - 8.0)
    assert [len(phases(zigzag, most, random_state=0).slope) for most in (5, 8)] == [5, 5]
    assert len(phases(zigzag, 3, random_state=0).slope) <= 3
    result = phases(rng().normal(size=48), 5, min_length=9, penalty=0, random_state=0)
    assert len(result.slope) == 5 and min(result.stop_index - result.start_index + 1) >= 9


def test_fewer_phases_than_the_curve_has_are_still_phases():
    """A curve of six lines, as the entropy at a bifurcation has them, keeps breaks where only some are allowed."""
    corners, values = [0, 2, 30, 37, 40, 56, 100], [-8, 3, 2, -20, -7, -14, -17]
    curve = np.interp(np.arange(101), corners, values) + 0.5 * rng(17).normal(size=101)
    starts = {most: phases(curve, most, n_bootstrap=1).start.tolist() for most in (3, 4, 5, 6, 12)}
    assert [len(start) for start in starts.values()] == [3, 4, 5, 6, 6]
    np.testing.assert_allclose(starts[3][1:], [30, 37], atol=2)
    np.testing.assert_allclose(starts[12][:-1], corners[:-2], atol=2)
    assert abs(starts[12][-1] - 56) <= 5  # at the corner of the least change of slope, 0.37 an epoch


# ---------------------------------------------------------------- intervals


@pytest.mark.parametrize(("rho", "least"), [(0.0, 0.9), (0.5, 0.84), (0.9, 0.76)])
def test_intervals_from_residuals_hold_the_slope(rho, least):
    """Of 100 straight lines; measured with 200: 98, 92 and 86 %. Few residuals underestimate their autocorrelation."""
    curves = 0.2 * np.arange(40) + autoregressive(rho, (100, 40), rng(10))
    results = [phases(curve, 1, n_bootstrap=300, random_state=0) for curve in curves]
    # The standard error of a share of 100 is 2 to 3 points.
    assert np.mean([result.low[0] <= 0.2 <= result.high[0] for result in results]) >= least
    assert {result.settings["bootstrap"] for result in results} == {"residuals"}


def test_intervals_from_units_are_those_of_the_mean():
    """The mean of 400 units has the standard error deviation / 20, and the interval is 1.96 of them on each side."""
    slopes = rng(11).normal(0.3, 0.2, 400)
    result = phases(named(slopes[:, None] * np.arange(10), ("unit", "epoch")), random_state=0)
    half = 1.96 * slopes.std() / 20 / 2  # the labels are 0, 2, ..., so slopes per label are half
    assert result.slope == pytest.approx(slopes.mean() / 2)
    assert [result.slope[0] - result.low[0], result.high[0] - result.slope[0]] == pytest.approx([half] * 2, rel=0.15)
    assert result.settings["bootstrap"] == "units"
    again = phases(slopes.mean() * np.arange(10), replicates=slopes[:, None] * np.arange(10), random_state=0)
    np.testing.assert_allclose(again.low / 2, result.low, rtol=1e-12)
    assert again.settings["bootstrap"] == "replicates"


def test_intervals_from_the_replicates_of_an_entropy():
    values, spread = np.repeat(TENT[:, None], 3, axis=1), rng(12).normal(0, 0.01, (50, 1, 1))
    replicates = values + spread * np.arange(E)[:, None]
    result = phases(named(values, ("epoch", "timestep"), replicates))
    half = 1.959964 * np.sqrt(np.square(spread).mean()) / 2
    np.testing.assert_allclose(result.high - result.slope, half, rtol=1e-6)
    assert result.settings["bootstrap"] == "replicates of the entropy"


def test_units_that_disagree_are_a_plateau():
    slopes = np.array([-1.0, 1, -2, 2, 0.1])
    result = phases(named(slopes[:, None] * np.arange(10), ("unit", "epoch")), 1, random_state=0)
    assert result.trend.tolist() == ["plateau"] and result.low < 0 < result.high


def test_one_seed_gives_one_interval():
    curve = TENT + 0.1 * rng(13).normal(size=E)
    first, second, other = (phases(curve, random_state=seed) for seed in (3, 3, 4))
    assert first.low.tolist() == second.low.tolist() != other.low.tolist()


# ---------------------------------------------------------------- labels, missing epochs, degenerate curves


def test_dates_count_days_and_text_counts_snapshots():
    days = np.datetime64("2026-01-01") + 7 * np.arange(E)
    weekly, named_epochs = (
        phases(TENT, epoch=labels, random_state=0) for labels in (days, [f"e{i}" for i in range(E)])
    )
    assert weekly.start.tolist() == [days[0].item(), days[20].item()] and weekly.settings["per"] == "day"
    assert weekly.slope == pytest.approx(np.array([2 / 19, -1 / 29]) / 7)
    assert named_epochs.stop.tolist() == ["e19", "e49"] and named_epochs.settings["per"] == "snapshot"
    assert phases(TENT, epoch=np.arange(E)[::-1], random_state=0).settings["per"] == "snapshot"


def test_uneven_epochs_are_places():
    epoch = np.concatenate([np.arange(10), np.arange(10, 200, 10)])
    result = phases(3.0 * epoch, epoch=epoch, random_state=0)
    assert result.slope == pytest.approx(3) and result.stop.tolist() == [190]


def test_missing_epochs_are_left_out():
    curve = TENT.copy()
    curve[[0, 5, 33]] = np.nan
    result = phases(curve, random_state=0)
    assert result.start.tolist() == [1, 20] and result.settings["n_left_out"] == 3
    assert np.flatnonzero(np.isnan(result.fitted)).tolist() == [0, 5, 33]
    rows = np.stack([curve, TENT, TENT])
    assert np.isfinite(phases(TENT, replicates=rows, random_state=0).low).all()


@pytest.mark.parametrize("level", [0.1, 1e8, -3.3e-9])
def test_a_constant_curve_is_one_plateau(level):
    result = phases(np.full(30, level), random_state=0)
    assert result.trend.tolist() == ["plateau"] and result.low <= 0 <= result.high
    assert phases(level * (1 + 1e-16 * rng().normal(size=30)), random_state=0).trend.tolist() == ["plateau"]


def test_three_epochs_are_one_phase():
    assert phases([1.0, 2.0, 3.0], random_state=0).trend.tolist() == ["growth"]


def test_bad_input_is_refused():
    with pytest.raises(InputError, match=r"curve has 2 epoch\(s\) with a value; accepted: 3 or more"):
        phases([1.0, 2.0])
    with pytest.raises(InputError, match=r"curve has 0 epoch\(s\) with a value"):
        phases(np.full(9, np.nan))
    with pytest.raises(InputError, match=r"curve has the axes \('timestep', 'unit'\)"):
        phases(named(np.ones((3, 4)), ("timestep", "unit")))
    with pytest.raises(InputError, match="curve holds an infinity"):
        phases([1.0, np.inf, 2, 3])
    with pytest.raises(InputError, match=r"curve holds 1e\+200; accepted: numbers up to 1e\+150 in size"):
        phases([1.0, -1e200, 2, np.nan, 3])
    with pytest.raises(InputTypeError, match="curve has dtype complex128"):
        phases(np.ones(5) * 1j)
    with pytest.raises(InputError, match=r"epoch has shape \(4,\)"):
        phases(TENT, epoch=range(4))
    with pytest.raises(InputError, match=r"replicates has shape \(3, 4\); accepted: \(R, 50\)"):
        phases(TENT, replicates=np.ones((3, 4)))
    with pytest.raises(InputError, match="replicates has another mean than curve"):
        phases(TENT, replicates=np.ones((3, E)))
    for setting, value in (("max_phases", 0), ("min_length", 1), ("penalty", -1), ("n_bootstrap", 0), ("level", 1)):
        with pytest.raises(InputError, match=f"{setting}={value}"):
            phases(TENT, **{setting: value})


def test_the_result_can_be_read():
    result = phases(TENT, random_state=0)
    assert isinstance(result, Phases) and repr(result) == "Phases(growth 0 to 19, compression 20 to 49)"
    assert result.to_frame().columns.tolist() == ["start", "stop", "slope", "low", "high", "trend"]
    assert result.to_dict()["trend"] == ["growth", "compression"] and len(result.to_frame()) == 2
