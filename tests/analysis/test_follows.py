"""Whether curves follow a metric: coefficients and chances by hand, planted lags, and what the result says."""

import numpy as np
import pytest
from scipy.stats import false_discovery_control, pearsonr, spearmanr

from mmphate_gpu.analysis import Follows, follows
from mmphate_gpu.analysis.innovations import innovations, without_line
from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.trace import as_trace

E, T = 60, 8
COEFFICIENTS = ("pearson", "spearman", "tested_pearson", "tested_spearman")
CHANCES = ("pearson_p", "spearman_p", "pearson_q", "spearman_q")


def walks(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).cumsum(-1)


def pairs(curve, metric, lag):
    """The values ``lag`` epochs apart; a positive lag has the curve later."""
    n = len(metric)
    together = [(curve[i + lag], metric[i]) for i in range(n) if 0 <= i + lag < n]
    return np.array(together).T


def by_hand(curve, metric, lags, coefficient):
    return np.array([coefficient(*pairs(curve, metric, lag)).statistic for lag in lags])


# ---------------------------------------------------------------- coefficients and chances by hand


def test_coefficients_are_those_of_scipy():
    curves, metric = walks(3, E), walks(E, seed=1).round()  # the metric has ties
    result = follows(curves.T, metric, 4, random_state=0)
    assert result.lag.tolist() == list(range(-4, 5))
    for row, curve in enumerate(curves):
        np.testing.assert_allclose(result.pearson[row], by_hand(curve, metric, result.lag, pearsonr), atol=1e-12)
        np.testing.assert_allclose(result.spearman[row], by_hand(curve, metric, result.lag, spearmanr), atol=1e-12)
        np.testing.assert_allclose(
            result.changes.pearson[row], by_hand(np.diff(curve), np.diff(metric), result.lag, pearsonr), atol=1e-12
        )


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_shifts_by_hand(name):
    coefficient = {"pearson": pearsonr, "spearman": spearmanr}[name]
    curves, metric = walks(3, 14, seed=2), walks(14, seed=3)
    result = follows(curves.T, metric, 2, null="shifts")
    # (shifts, T, k), the first shift is none
    sizes = np.abs(
        [[by_hand(curve, np.roll(metric, s), result.lag, coefficient) for curve in curves] for s in range(14)]
    )
    p = (sizes >= sizes[0] - 1e-9).mean(0)
    over_lags = (sizes.max(2)[..., None] >= sizes[0] - 1e-9).mean(0)
    q = np.stack([false_discovery_control(column) for column in over_lags.T], axis=1)
    np.testing.assert_allclose(getattr(result, f"{name}_p"), p, atol=1e-12)
    np.testing.assert_allclose(getattr(result, f"{name}_q"), q, atol=1e-12)
    assert result.settings["least_p"] == pytest.approx(1 / 14) and (p >= 1 / 14 - 1e-12).all()


def test_permutations_of_innovations():
    """p is that of 999 other permutations, to three standard errors of a share of 999."""
    curve, metric = walks(E, seed=4), walks(E, seed=5)
    result = follows(curve, metric, 0, random_state=0)
    pair = innovations(np.stack([curve, metric]))
    x, y = without_line(pair[:, E // 4 :])
    assert result.tested_pearson[0, 0] == pytest.approx(pearsonr(x, y).statistic)
    generator = np.random.default_rng(7)
    null = [abs(pearsonr(x, without_line(generator.permutation(y)[None])[0]).statistic) for _ in range(999)]
    p = np.mean(np.array(null) >= abs(result.tested_pearson[0, 0]))
    assert result.pearson_p[0, 0] == pytest.approx(p, abs=3 * np.sqrt(2 * 0.25 / 999))


# ---------------------------------------------------------------- innovations


def autoregression(values, order):
    """Residuals of a line and ``order`` past values, by least squares."""
    n = len(values) - order
    past = [values[order - lag : len(values) - lag] for lag in range(1, order + 1)]
    columns = np.stack([np.ones(n), np.arange(n), *past], axis=1)
    return values[order:] - columns @ np.linalg.lstsq(columns, values[order:])[0]


def test_innovations_are_residuals_of_an_autoregression():
    rows = walks(5, E, seed=6)
    for row, result in zip(rows, innovations(rows), strict=True):
        order = int(np.isnan(result).sum())
        np.testing.assert_allclose(result[order:], autoregression(row, order), atol=1e-9)


def test_a_line_is_left_out():
    rows = walks(3, E, seed=21)
    expected = [row - np.polyval(np.polyfit(np.arange(E), row, 1), np.arange(E)) for row in rows]
    np.testing.assert_allclose(without_line(rows), expected, atol=1e-9)


def test_innovations_of_a_second_order_process():
    """Of 100 rows of 400 values, AIC takes order 2 or some more, and the innovations are those that made the rows."""
    noise = np.random.default_rng(8).normal(size=(100, 400))
    rows = noise.copy()
    for i in range(2, 400):
        rows[:, i] += 1.2 * rows[:, i - 1] - 0.6 * rows[:, i - 2]
    result = innovations(rows)
    orders = np.isnan(result).sum(1)
    assert np.median(orders) == 2 and (orders >= 2).all()
    # An estimate from 400 values has relative errors near sqrt(order / 400).
    assert np.nanmean(np.square(result - noise)[:, 16:]) < 0.03


def test_what_follows_from_the_past_has_no_innovations():
    time = np.arange(E)
    rounded = 0.1 + 1e-17 * np.random.default_rng(8).normal(size=E)
    rows = np.stack([np.full(E, 0.1), 2.0 * time, np.exp(-time / 9), np.sin(time / 3), 1e9 + 0 * time, rounded])
    assert np.nanmax(np.abs(innovations(rows))) == 0


# ---------------------------------------------------------------- planted lags


@pytest.mark.parametrize("lag", [2, 0, -3])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_planted_lag_is_the_most_significant(lag, sign):
    metric, noise = walks(E + 10, seed=9), 0.3 * np.random.default_rng(10).normal(size=E)
    result = follows(sign * metric[5 - lag : 5 - lag + E] + noise, metric[5 : 5 + E], random_state=0)
    for name in ("pearson", "spearman"):
        size, q = np.abs(getattr(result, f"tested_{name}")[0]), getattr(result, f"{name}_q")[0]
        assert result.lag[size.argmax()] == lag and q[size.argmax()] <= 0.005
        assert np.sign(getattr(result, name)[0, size.argmax()]) == sign
        assert result.lag[np.abs(getattr(result.changes, name)[0]).argmax()] == lag


def test_one_time_step_of_many_is_seen():
    metric, curves = walks(E, seed=11), walks(T, E, seed=12)
    curves[5] = metric + 0.3 * np.random.default_rng(13).normal(size=E)
    result = follows(curves.T, metric, random_state=0)
    assert (result.pearson_q <= 0.05).any(1).tolist() == [step == 5 for step in range(T)]
    assert result.timestep.tolist() == list(range(T)) and result.pearson.shape == (T, 11)


def test_settling_at_the_same_time_is_not_evidence():
    """Two curves that settle exponentially correlate nearly perfectly, and no test calls it significant."""
    generator = np.random.default_rng(14)
    settle = 1 - np.exp(-np.arange(E) / np.array([[6.0], [9.0]])) + 0.02 * generator.normal(size=(2, E))
    result = follows(*settle, random_state=0)
    assert result.pearson[0, 5] > 0.9 and result.pearson_q.min() > 0.05


# ---------------------------------------------------------------- missing values, labels, names


def test_epochs_without_a_metric_are_left_out():
    curves, metric = walks(T, E, seed=15), walks(E, seed=16)
    sparse = np.where(np.arange(E) % 7 == 3, np.nan, metric)
    spoiled = curves.copy()
    spoiled[2, 40] = np.nan
    kept = np.isfinite(sparse) & (np.arange(E) != 40)
    result = follows(spoiled.T, sparse, random_state=0)
    expected = follows(curves.T[kept], metric[kept], random_state=0)
    for name in (*COEFFICIENTS, *CHANCES):
        np.testing.assert_array_equal(getattr(result, name), getattr(expected, name))
    assert result.settings["epochs"].tolist() == np.flatnonzero(kept).tolist()


def test_a_curve_without_values_or_without_change_has_no_chance():
    curves, metric = walks(T, E, seed=17), walks(E, seed=18)
    curves[1], curves[4] = np.nan, 0.1
    result = follows(curves.T, metric, random_state=0)
    rest = follows(np.delete(curves, [1, 4], axis=0).T, metric, random_state=0, n_permutations=999)
    for name in (*COEFFICIENTS, *CHANCES):
        assert np.isnan(getattr(result, name)[[1, 4]]).all()
        np.testing.assert_allclose(np.delete(getattr(result, name), [1, 4], axis=0), getattr(rest, name), atol=1e-12)


def test_changes_of_a_line_have_no_chance():
    """They are equal up to rounding."""
    changes = follows(walks(E), np.linspace(0, 1, E), random_state=0).changes
    for name in (*COEFFICIENTS, *CHANCES):
        assert np.isnan(getattr(changes, name)).all()


def test_a_curve_that_does_not_vary_says_so():
    assert repr(follows(np.ones(E), walks(E))) == "Follows(metric: no curve that can be tested)"


def test_a_metric_of_a_trace_and_named_axes():
    accuracy = walks(E, seed=19)
    trace = as_trace(np.ones((E, 2, 3, 4)), metrics={"accuracy": accuracy})
    days = np.datetime64("2026-01-01") + np.arange(E)
    fields = {"values": walks(2, E, seed=20), "dims": ("timestep", "epoch"), "replicates": None}
    curve = type("Named", (), fields | {"coords": {"epoch": days, "timestep": np.array([3, 9])}})()
    result = follows(curve, "accuracy", trace=trace, random_state=0)
    plain = follows(curve.values.T, accuracy, random_state=0)
    assert result.metric == "accuracy" and result.timestep.tolist() == [3, 9]
    assert result.settings["epochs"].tolist() == days.tolist()
    np.testing.assert_array_equal(result.pearson_q, plain.pearson_q)


@pytest.mark.parametrize(
    ("dims", "coords", "axis", "labels"),
    [
        (("epoch", "unit"), {"unit": np.array(list("abcdef"))}, "unit", list("abcdef")),
        (("epoch", "unit"), {}, "unit", list(range(6))),
        (("timestep", "epoch", "unit"), {"unit": np.array(list("abc"))}, "timestep, unit", list(range(6))),
    ],
)
def test_curves_along_any_axes_have_a_row_each(dims, coords, axis, labels):
    values = np.moveaxis(walks(6, E, seed=3), 0, 1)  # (E, 6)
    if len(dims) == 3:
        values = np.moveaxis(values.reshape(E, 2, 3), 0, 1)
    curve = type("Named", (), {"values": values, "dims": dims, "coords": coords})()
    result = follows(curve, walks(E), 1, random_state=0)
    assert result.timestep.tolist() == labels and result.settings["axis"] == axis
    frame = result.to_frame()
    assert frame[axis].tolist() == np.repeat(labels, 3).tolist() and "of 6 curves" in repr(result)
    plain = follows(walks(6, E, seed=3).T, walks(E), 1, random_state=0)
    np.testing.assert_array_equal(frame["pearson_q"], plain.to_frame()["pearson_q"])


def test_bad_input_is_refused():
    metric = walks(E)
    trace = as_trace(np.ones((E, 2, 3, 4)), metrics={"loss": metric})
    cases = {
        r"metric has shape \(59,\); accepted: \(60,\)": (metric, metric[1:]),
        "metric is 2 at every epoch that is used": (metric, np.full(E, 2.0)),
        "share 2 epochs with values; accepted: 11 or more for max_lag=5": (metric[:2], metric[:2]),
        "share 0 epochs with values": (np.full(E, np.nan), metric),
        "metric='loss' is a name without trace": (metric, "loss"),
        r"curve has shape \(60, 1, 1\)": (metric[:, None, None], metric),
    }
    for message, arguments in cases.items():
        with pytest.raises(InputError, match=message):
            follows(*arguments)
    with pytest.raises(InputError, match="metric='accuracy' is unknown; accepted: 'loss'"):
        follows(metric, "accuracy", trace=trace)
    with pytest.raises(InputError, match="metric='loss' is a name, and the trace has no metrics"):
        follows(metric, "loss", trace=as_trace(np.ones((E, 2, 3, 4))))
    with pytest.raises(InputError, match="metric='loss' is a name, and the trace has no metrics"):
        follows(metric, "loss", trace=np.ones((E, 2, 3, 4)))
    with pytest.raises(InputTypeError, match="metric has dtype"):
        follows(metric, np.array(["a"] * E))
    for option, value in (("max_lag", -1), ("n_permutations", 0), ("null", "rotations"), ("random_state", -1)):
        with pytest.raises(InputError, match=f"{option}="):
            follows(metric, walks(E, seed=1), **{option: value})


def test_the_result_can_be_read():
    metric = walks(E)
    single, many = follows(metric, metric, random_state=0), follows(walks(T, E).T, metric, random_state=0)
    assert isinstance(single.changes, Follows) and single.changes.changes is None and single.timestep is None
    assert repr(single) == "Follows(metric: lag 0, Pearson 1.00, q 0.001)"
    assert repr(many).startswith("Follows(metric: 1 of 8 curves have q <= 0.05; best 0: lag 0, Pearson 1.00, q 0.0")
    assert len(single.to_frame()) == 11 and "timestep" not in single.to_frame()
    assert len(many.to_frame()) == 11 * T and many.to_frame()["timestep"].nunique() == T
    assert many.to_dict()["changes"]["lag"] == list(range(-5, 6))


def test_one_seed_gives_the_same_chances():
    metric, curve = walks(E), walks(E, seed=1)
    first, second, other = (follows(curve, metric, random_state=seed).pearson_p for seed in (1, 1, 2))
    assert np.array_equal(first, second) and not np.array_equal(first, other)
