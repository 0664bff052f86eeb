"""Null models: each null keeps and destroys what it says, and p is small for planted structure only."""

import numpy as np
import pytest
import torch

import mmphate_gpu as mp
from mmphate_gpu import InputError, InputTypeError, as_trace
from mmphate_gpu.analysis import null_models
from mmphate_gpu.analysis.null_models import two_sided_p
from mmphate_gpu.analysis.picture_metrics import METRICS
from mmphate_gpu.analysis.shuffles import NULLS, shuffled

SMALL = mp.MMPHATE(n_landmark=30, interslice_knn=10, mds_solver="classic")


def recorded(shape=(6, 8, 5, 4), seed=0, masked=False):
    values = np.random.default_rng(seed).standard_normal(shape)
    mask = np.random.default_rng(seed + 1).random(shape) < 0.8 if masked else None
    return as_trace(values, mask=mask, label=np.arange(shape[3]) % 2, metrics={"loss": np.arange(shape[0])})


def null(name, trace=None, seed=0):
    return shuffled(recorded() if trace is None else trace, name, np.random.default_rng(seed)).data.numpy()


def rows(values):
    """The rows of (..., P) as a sorted list."""
    return sorted(map(tuple, np.reshape(values, (-1, values.shape[-1]))))


def planted():
    """Two groups of units that move apart along smooth paths: identity, order and groups of units are all structure."""
    rng = np.random.default_rng(5)
    time = np.linspace(0, 1, 30)[:, None, None]
    patterns = rng.standard_normal((2, 2, 12))[:, np.arange(6) // 3]  # start and end of each unit's group
    return (1 - time) * patterns[0] + time * patterns[1] + 0.02 * rng.standard_normal((30, 6, 12))


# ---------------------------------------------------------------- what the nulls keep


def test_shuffled_units_keep_the_states_of_each_slice():
    before, after = recorded().data.numpy(), null("units")
    for e, t in np.ndindex(6, 8):
        assert rows(after[e, t]) == rows(before[e, t])
    moved = (after != before).any(-1)
    assert 0.6 < moved.mean() < 0.95  # 4 of 5 units leave their place on average
    assert len({tuple(row) for row in moved.reshape(48, 5).tolist()}) > 5  # another order in each slice


def test_shuffled_timesteps_keep_the_states_of_a_unit_in_an_epoch():
    before, after = recorded().data.numpy(), null("timesteps")
    for e, m in np.ndindex(6, 5):
        assert rows(after[e, :, m]) == rows(before[e, :, m])
    assert sum(rows(after[e, t]) == rows(before[e, t]) for e, t in np.ndindex(6, 8)) < 3


def test_shuffled_epochs_keep_the_sequences_of_a_unit():
    before, after = recorded().data.numpy(), null("epochs")
    orders = set()
    for m in range(5):
        sequences = [row.tolist() for row in before[:, :, m]]
        orders.add(tuple(sequences.index(row.tolist()) for row in after[:, :, m]))
    assert all(sorted(order) == list(range(6)) for order in orders) and len(orders) == 5


@pytest.mark.parametrize(
    ("shape", "axis"), [((6, 8, 5, 4), 1), ((6, 9, 5, 4), 1), ((7, 1, 5, 4), 0), ((8, 3, 5, 4), 0)]
)
def test_random_phases_keep_the_mean_and_the_spectrum(shape, axis):
    trace = recorded(shape)
    before, after = trace.data.numpy(), null("phase", trace)
    spectra = [np.abs(np.fft.rfft(values, axis=axis)) for values in (before, after)]
    # rfft and irfft of some ten float64 numbers round by a few eps of their sum.
    np.testing.assert_allclose(*spectra, atol=1e-13)
    np.testing.assert_allclose(after.mean(axis), before.mean(axis), atol=1e-14)
    assert np.abs(after - before).max() > 0.1


def test_random_phases_destroy_correlations_of_series():
    """All series are one sine: equal before, and afterwards shifted by independent phases."""
    wave = np.sin(2 * np.pi * 3 * np.arange(32) / 32)
    trace = as_trace(np.broadcast_to(wave[:, None, None], (2, 32, 10, 20)).copy())
    after = null("phase", trace)
    correlations = np.corrcoef(after[0].reshape(32, -1).T)
    # The correlation of two sines is the cosine of their shift: mean square 1 / 2, mean 0 over 19,900 pairs.
    assert abs(correlations[np.triu_indices(200, 1)].mean()) < 0.05


@pytest.mark.parametrize("n_timesteps", [5, 8, 17])
def test_random_phases_leave_constant_series_as_they_are(n_timesteps):
    """A dead unit stays dead, to the bit: with rounding in its samples its z-scores would be noise."""
    values = np.random.default_rng(0).standard_normal((3, n_timesteps, 4, 6)).astype(np.float32)
    values[:, :, 1], values[0, :, 2, 3] = np.float32(0.9999), 7
    after = null("phase", as_trace(values))
    assert (after[:, :, 1] == np.float32(0.9999)).all() and (after[0, :, 2, 3] == 7).all()
    assert (after[:, :, 0] != values[:, :, 0]).mean() > 0.9


@pytest.mark.parametrize("name", ["units", "timesteps", "epochs"])
def test_masks_move_with_their_samples(name):
    trace = recorded(masked=True)
    after = shuffled(trace, name, np.random.default_rng(0))
    both = [np.concatenate([t.data.numpy(), t.mask.numpy()], axis=-1) for t in (trace, after)]
    assert rows(both[0]) == rows(both[1])
    assert np.array_equal(after.metrics["loss"], trace.metrics["loss"]) and np.array_equal(after.label, trace.label)


@pytest.mark.parametrize("name", NULLS)
def test_a_null_depends_on_its_seed_only_and_leaves_the_trace_alone(name):
    trace = recorded()
    before = trace.data.clone()
    assert np.array_equal(null(name, trace), null(name, trace)) and torch.equal(trace.data, before)
    assert not np.array_equal(null(name, trace), null(name, trace, seed=1))


# ---------------------------------------------------------------- what they say


def test_p_by_hand():
    null_values = np.arange(9.0).reshape(1, 9, 1)
    assert two_sided_p(np.array([20.0]), null_values).item() == 0.1
    assert two_sided_p(np.array([-9.0]), null_values).item() == 0.1
    assert two_sided_p(np.array([4.0]), null_values).item() == 1
    assert np.isnan(two_sided_p(np.array([np.nan]), null_values)).all()


def test_p_is_uniform_for_numbers_that_differ_by_chance():
    draws = np.random.default_rng(0).standard_normal((4000, 20, 1))
    p = two_sided_p(np.zeros(0), np.zeros((0, 3, 0)))
    assert p.shape == (0, 0)
    p = np.array([two_sided_p(draw[0], draw[None, 1:])[0, 0] for draw in draws])
    assert np.mean(p <= 0.05) == pytest.approx(0.05, abs=0.012)  # 3.5 standard errors of 4,000 draws
    assert np.mean(p <= 0.5) == pytest.approx(0.5, abs=0.03)


def test_planted_structure_is_outside_its_null():
    result = null_models(planted(), ("units",), repeats=9, k=5, estimator=SMALL, random_state=0)
    p = dict(zip(result.metrics, result.p[0], strict=True))
    assert p["inter"] == p["silhouette"] == p["entropy"] == p["geodesic_spearman"] == 0.1  # the least of 9 nulls
    at = result.metrics.index("silhouette")
    assert result.data[at] > 0.8 > result.null[0, :, at].max()


def test_white_noise_is_within_its_nulls():
    options = {"metrics": ("inter",), "repeats": 9, "k": 5, "estimator": SMALL}
    noise = [np.random.default_rng(seed).standard_normal((30, 6, 12)) for seed in range(5)]
    p = [null_models(noise[seed], "units", random_state=seed, **options).p.item() for seed in range(5)]
    # Each is 0.1 with a probability of 0.1: three of five are with 0.009.
    assert sum(value == 0.1 for value in p) < 3


# ---------------------------------------------------------------- the result, and bad input


def test_the_result_is_a_table_and_a_line():
    calls = []
    trace = recorded((6, 8, 5, 6))
    options = {"repeats": 2, "k": 3, "estimator": SMALL, "random_state": 3}
    result = null_models(trace, ["units", "phase"], callback=lambda *call: calls.append(call), **options)
    assert result.metrics == list(METRICS) and result.kinds == ["units", "phase"]
    assert result.null.shape == (2, 2, len(METRICS)) and np.isfinite(result.null).all()
    assert calls == [("null models", done, 5) for done in range(1, 6)]
    frame = result.to_frame()
    assert len(frame) == 2 * len(METRICS) and frame["null"].tolist()[:2] == ["units", "units"]
    assert frame["data"].tolist() == 2 * result.data.tolist()
    assert "of 9 metrics, outside all 2 nulls: units" in repr(result)
    assert null_models(trace, ["units", "phase"], **options).to_dict() == result.to_dict()


def test_metrics_may_be_functions():
    metrics = {"mean of unit 0": lambda trace, embedding: trace.data[:, :, 0].mean(), "t": lambda _, e: e.t}
    result = null_models(recorded(), "epochs", metrics=metrics, repeats=2, estimator=SMALL, random_state=0)
    assert result.metrics == list(metrics)
    np.testing.assert_allclose(result.null[0, :, 0], result.data[0], rtol=1e-12)  # epochs of a unit only move


def test_nulls_that_a_trace_cannot_have_are_left_out_of_the_default():
    one_step = recorded((30, 1, 4, 4))
    options = {"metrics": ("inter",), "repeats": 1, "estimator": SMALL, "random_state": 0}
    assert null_models(one_step, **options).kinds == ["units", "epochs", "phase"]
    assert null_models(recorded(masked=True), **options).kinds == ["units", "timesteps", "epochs"]
    one_unit = null_models(recorded((5, 8, 1, 4)), metrics=("intra", "inter"), repeats=1, estimator=SMALL)
    assert one_unit.kinds == ["timesteps", "epochs", "phase"] and np.isnan(one_unit.p[:, 0]).all()
    assert np.isnan(one_unit.to_frame()["median"][0])


@pytest.mark.parametrize(
    ("kinds", "options", "error", "message"),
    [
        (("unit",), {}, InputError, "kinds='unit' is unknown; accepted: 'units'"),
        ((), {}, InputError, r"kinds=\[\]: accepted: units, timesteps, epochs, phase"),
        (5, {}, InputTypeError, "kinds=5; accepted: a sequence of names"),
        ("units", {"repeats": 0}, InputError, "repeats=0 is out of range"),
        ("units", {"k": 0}, InputError, "k=0 is out of range"),
        ("units", {"metrics": ()}, InputError, "metrics is empty"),
        ("units", {"metrics": {}}, InputError, "metrics is empty"),
        ("units", {"metrics": "inter"}, InputTypeError, "metrics='inter'; accepted: a sequence of names"),
        ("units", {"metrics": ("outer",)}, InputError, "metrics='outer' is unknown; accepted: 'intra'"),
        ("units", {"metrics": {"a": 3}}, InputTypeError, r"metrics\['a'\] is a int; accepted: a function"),
        ("units", {"metrics": {"a": lambda *_: "no"}}, InputTypeError, r"metrics\['a'\] returned a str; accepted: a"),
        ("units", {"metrics": {"a": lambda *_: np.ones(2)}}, InputTypeError, r"metrics\['a'\] returned a ndarray"),
        ("units", {"estimator": 3}, InputTypeError, "estimator is a int"),
        ("units", {"random_state": 1.5}, InputTypeError, "random_state=1.5 must be an integer"),
    ],
)
def test_bad_options_are_refused(kinds, options, error, message):
    with pytest.raises(error, match=message):
        null_models(recorded(), kinds, **options)


def test_nulls_that_a_trace_cannot_have_are_refused_where_they_are_asked_for():
    with pytest.raises(InputError, match=r"kinds=\['timesteps'\]: the trace has 1 of them; accepted: at least 2"):
        null_models(recorded((30, 1, 4, 4)), ("timesteps",))
    with pytest.raises(InputError, match="the trace is masked; accepted"):
        null_models(recorded(masked=True), ("units", "phase"))
    with pytest.raises(InputError, match="its series are shorter than 4"):
        null_models(recorded((3, 2, 5, 4)), ("phase",))


def test_a_trace_on_disk_is_refused(tmp_path):
    mp.save_trace(tmp_path / "t.npz", recorded())
    stored = mp.load_trace(tmp_path / "t.npz", stream=True)
    with pytest.raises(InputError, match=r"trace is read block by block; accepted: .* Trace\.load returns"):
        null_models(stored)
