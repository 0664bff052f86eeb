"""Linear probes of labels that the states hold, and of labels that they do not."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from mmphate_gpu import InputError, InputTypeError, as_trace, load_trace, save_trace
from mmphate_gpu.analysis import LinearProbe, linear_probe, softmax_regression

from .labeled_states import noise_states, one_hot_states, without_samples

FIELDS = ("score", "cross_entropy", "low", "high")


def same(first: LinearProbe, second: LinearProbe, atol: float = 0.0) -> None:
    for name in FIELDS:
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), rtol=0, atol=atol, err_msg=name)


def test_a_label_that_the_states_hold():
    trace = one_hot_states()
    probe = linear_probe(trace, random_state=0)
    assert probe.measure == "balanced accuracy" and probe.chance == 0.25 and probe.n_skipped == 0
    assert (probe.score[2:] == 1).all() and (probe.high[2:] > 1 - 1e-12).all()
    # 80 right of 80: Wilson's lower limit is 80 / (80 + 1.96^2).
    np.testing.assert_allclose(probe.low[2:], 80 / (80 + 1.959964**2), atol=1e-6)
    assert (probe.cross_entropy[2:] < 0.1).all()
    # Of 12 scores of 80 samples near 1 / 4; 4 deviations of sqrt(3 / 16 / 80), which is 0.048.
    assert (np.abs(probe.score[:2] - 0.25) < 4 * 0.048).all()
    assert (probe.p[2:] == 1 / 13).all() and probe.p[:2].max() > 0.2


def test_permuted_labels_are_at_chance():
    """Also of states that hold the label, and with classes of different sizes."""
    trace = one_hot_states(n_epochs=8, n_timesteps=6)
    label = np.where(np.arange(80) % 8 == 0, 3, np.arange(80) % 3)
    probe = linear_probe(as_trace(trace.data, label=label), permutations=3, random_state=0)
    # 144 permutations, independent between slices: the deviation of a score is at most sqrt(3 / 16 / 10 / 4) = 0.068.
    assert abs(probe.permuted_score.mean() - 0.25) < 4 * 0.068 / 144**0.5
    shares = np.bincount(label) / 80
    assert probe.permuted_cross_entropy.min() > -(shares * np.log2(shares)).sum() - 0.1


def test_intervals_of_noise_cover_chance():
    probe = linear_probe(noise_states(), random_state=0)
    covered = (probe.low <= 1 / 3) & (probe.high >= 1 / 3)
    # 95 % of 40 within 3 deviations of sqrt(0.05 * 0.95 / 40), which is 0.034.
    assert covered.mean() >= 0.85
    assert np.median(probe.p) > 0.2


def test_a_real_target_that_the_states_hold():
    trace = noise_states(n_epochs=2, n_timesteps=4)
    target = trace.data[1, 0, 2].numpy() * 3 + 0.01 * trace.data[0, 0, 0].numpy() + 10
    probe = linear_probe(trace.data, target, permutations=5, random_state=0)
    assert probe.measure == "R2" and probe.chance == 0
    assert (
        probe.score[1, 0] > 0.99 and probe.low[1, 0] > 0.98 and probe.low[1, 0] < probe.score[1, 0] < probe.high[1, 0]
    )
    # The penalty shrinks a coefficient of 48 training samples by 1 / 48: an error of 2 % of the deviation.
    assert probe.cross_entropy[1, 0] < (0.04 * target.std()) ** 2
    others = np.delete(probe.score.ravel(), 4)
    # R^2 outside the training falls below 0 by the number of units over that of samples, 6 / 48, on average.
    assert others.max() < 0.2 and (np.delete(probe.low.ravel(), 4) < 0.05).all()
    assert -0.4 < probe.permuted_score.mean() < 0 and probe.settings["target"] == "real"


def test_a_target_is_recognized_by_its_fractions():
    data = noise_states(1, 2).data
    whole = np.arange(60) % 5
    assert linear_probe(data, whole.astype(float), random_state=0).chance == 0.2
    assert linear_probe(data, whole, target="real", random_state=0).measure == "R2"
    assert linear_probe(data, whole / 2, target="classes", random_state=0).chance == 0.2
    text = np.array(["left", "right"])[whole % 2]
    same(linear_probe(data, text, random_state=0), linear_probe(data, whole % 2 == 1, random_state=0))
    same(linear_probe(data, text.astype(object), random_state=0), linear_probe(data, text, random_state=0))


def test_hidden_samples_leave_their_slice():
    trace, hidden = one_hot_states(), [0, 5, 17]
    probe = linear_probe(without_samples(trace, 1, hidden), random_state=0)
    kept = np.setdiff1d(np.arange(80), hidden)
    same_samples = linear_probe(trace.subsample(timesteps=[1], samples=kept), random_state=0)
    for name in FIELDS:
        np.testing.assert_allclose(getattr(probe, name)[:, 1], getattr(same_samples, name)[:, 0], atol=1e-12)
    whole = linear_probe(trace, random_state=0)
    np.testing.assert_allclose(probe.cross_entropy[:, 0], whole.cross_entropy[:, 0], atol=1e-12)


def test_chance_is_that_of_as_many_samples():
    """Noise of 20 samples in one slice, beside 9 slices of 200: its permuted scores vary three times as much."""
    p = []
    for seed in range(20):
        states = np.random.default_rng(seed).normal(size=(10, 1, 3, 200))
        mask = np.ones(states.shape, dtype=bool)
        mask[0, :, :, 20:] = False
        probe = linear_probe(as_trace(states, mask=mask, label=np.arange(200) % 2), permutations=19, random_state=seed)
        p.append(probe.p[:, 0])
    p = np.array(p)
    assert (p >= [[1 / 20] + [1 / (1 + 9 * 19)] * 9]).all()
    # Of 20 draws at the 5 % level more than 3 have a probability of 0.016; against all slices 9 of them had p <= 0.05.
    assert (p[:, 0] <= 0.05).sum() <= 3


def test_equal_scores_are_ties():
    """They are multiples of 1 / 20, which are rounded in the order of their sum."""
    rng = np.random.default_rng(0)
    probe = linear_probe(rng.normal(size=(10, 4, 5, 20)), np.arange(20) % 2, random_state=0)
    score, chance = (np.round(values * 20) for values in (probe.score, probe.permuted_score))
    expected = (1 + (chance.ravel() >= score[..., None]).sum(-1)) / 41
    np.testing.assert_allclose(probe.p, expected, rtol=1e-12)


@pytest.mark.parametrize("hidden", [list(range(0, 80, 4))[1:], list(range(4, 80))])
def test_a_slice_with_too_few_samples_is_nan(hidden):
    """A class with one sample, or fewer samples than folds."""
    probe = linear_probe(without_samples(one_hot_states(), 2, hidden), random_state=0)
    assert probe.n_skipped == 4
    for name in (*FIELDS, "permuted_score", "permuted_cross_entropy", "p"):
        values = getattr(probe, name)
        assert np.isnan(values[:, 2]).all() and np.isfinite(values[:, :2]).all(), name
    assert "best balanced accuracy 1.00 at epoch 2, time step" in repr(probe)


def test_scale_shift_and_constant_units_do_not_matter():
    data = one_hot_states(noise=1).data.numpy()
    labels = np.arange(80) % 4
    dead = np.broadcast_to(np.float64(0.1), data[:, :, :1].shape)
    changed = np.concatenate([data * np.array([1, 1e-6, 1e6, 3])[:, None] + 7, dead], axis=2)
    same(linear_probe(data, labels, random_state=0), linear_probe(changed, labels, random_state=0), atol=1e-5)


def test_squares_of_states_may_leave_the_range_of_float64():
    """A factor that is a power of two changes no bit."""
    data = one_hot_states(noise=1).data.numpy()
    sizes = 2.0 ** np.array([-600, 0, 400, -1])[:, None]
    labels = np.arange(80) % 4
    same(linear_probe(data, labels, random_state=0), linear_probe(data * sizes, labels, random_state=0))


def test_dead_states_predict_the_frequencies():
    labels = np.array([0] * 30 + [1] * 10)
    probe = linear_probe(np.ones((2, 1, 3, 40)), labels, random_state=0)
    assert (probe.score == 0.5).all()
    np.testing.assert_allclose(probe.cross_entropy, -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25)), atol=1e-4)


def test_one_unit_and_more_units_than_samples():
    """A unit that holds the label is read alone, and beside 200 units of noise."""
    label = np.arange(40) % 2
    rng = np.random.default_rng(0)
    states = rng.normal(0, 0.1, (2, 3, 200, 40))
    states[:, :, 0] += 3 * label
    alone = linear_probe(states[:, :, :1], label, random_state=0)
    assert (alone.score == 1).all()
    unscaled = linear_probe(np.concatenate([states[:, :, :1]] * 200, axis=2), label, random_state=0)
    assert (unscaled.score == 1).all() and (unscaled.cross_entropy < alone.cross_entropy).all()
    # Standardized units of noise count as much as the unit with the label, so few samples do not suffice.
    beside = linear_probe(states, label, random_state=0)
    assert (beside.score < 0.9).all() and beside.score.mean() > 0.5


def test_float32_and_a_file_on_disk(tmp_path):
    trace = one_hot_states(noise=1)
    single = as_trace(trace.data.float(), label=trace.label)
    save_trace(tmp_path / "trace.npz", single)
    stored = load_trace(tmp_path / "trace.npz", stream=True)
    probe = linear_probe(single, random_state=0)
    same(probe, linear_probe(stored, random_state=0))
    # States rounded to 6e-8 have fits that differ by no more than the tolerance of the solver.
    same(probe, linear_probe(trace, random_state=0), atol=1e-4)


def test_a_seed_decides_the_result():
    trace = noise_states(2, 2)
    first, second, third = (linear_probe(trace, random_state=seed) for seed in (0, 0, 1))
    assert first.to_dict() == second.to_dict() and first.to_dict() != third.to_dict()


def test_progress_and_table():
    calls: list[tuple[str, int, int]] = []
    trace = one_hot_states()
    probe = linear_probe(trace, random_state=0, callback=lambda *call: calls.append(call))
    assert calls[-1] == ("linear probe", 12, 12)
    pandas = pytest.importorskip("pandas")
    frame = probe.to_frame()
    assert isinstance(frame, pandas.DataFrame) and len(frame) == 12
    row = frame[(frame.epoch == 3) & (frame.timestep == 1)].iloc[0]
    assert row.score == probe.score[3, 1] and row.permuted_score == probe.permuted_score[3, 1]


@pytest.mark.parametrize(
    ("labels", "options", "error", "message"),
    [
        (None, {}, InputError, "labels is None, and the trace has no label"),
        (np.arange(59) % 2, {}, InputError, r"labels has shape \(59,\); accepted: \(60,\)"),
        (np.zeros(60, int), {}, InputError, "labels has the one class 0"),
        (np.arange(60) == 3, {}, InputError, "labels has one sample of class True"),
        (np.arange(60) % 2 + 1j, {}, InputTypeError, "labels has dtype complex128"),
        (np.full(60, np.nan), {}, InputError, "labels has NaN"),
        (np.full(60, 0.5), {}, InputError, "labels is 0.5 for every sample"),
        (np.linspace(0, 1e-110, 60), {}, InputError, r"labels holds numbers up to 1e-110 in size; accepted: 1e-100 to"),
        (np.linspace(0, 1e160, 60), {"target": "real"}, InputError, r"labels holds numbers up to 1e\+160 in size"),
        (np.array(["a", "b"] * 30), {"target": "real"}, InputTypeError, "accepted with target='real': real numbers"),
        (np.arange(60) % 2, {"target": "text"}, InputError, "target='text' is unknown"),
        (np.arange(60) % 2, {"folds": 61}, InputError, "folds=61 is more than the 60 samples; accepted: 2 to 60"),
        (np.arange(60) % 2, {"folds": 1}, InputError, "folds=1 is out of range"),
        (np.arange(60) % 2, {"C": 0}, InputError, "C=0 is out of range"),
        (np.arange(60) % 2, {"permutations": 0}, InputError, "permutations=0 is out of range"),
        (np.arange(60) % 2, {"random_state": -1}, InputError, "random_state=-1 is out of range"),
        (np.arange(60) % 2, {"callback": 3}, InputTypeError, "callback=3 must be callable"),
    ],
)
def test_bad_arguments_are_refused(labels, options, error, message):
    with pytest.raises(error, match=message):
        linear_probe(noise_states(1, 2).data, labels, **options)


def test_fits_that_do_not_converge_are_counted(monkeypatch):
    monkeypatch.setattr(softmax_regression, "minimize", partial(softmax_regression.minimize, max_iter=1))
    with pytest.warns(UserWarning, match="20 fits of the linear probe did not converge"):
        linear_probe(noise_states(1, 2), random_state=0)
