"""Label information of states that hold the label, and of states that do not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmphate_gpu import InputError, InputTypeError, as_trace, load_trace, save_trace
from mmphate_gpu.analysis import label_information, linear_probe
from mmphate_gpu.analysis.label_information import spectral_information

from .labeled_states import noise_states, one_hot_states, without_samples

MEASURES = ("per_unit", "mean", "bound", "dsmi")


def test_a_label_that_the_states_hold():
    """Unit k tells class k from three others: H(1 / 4) bits; all units together have 2 bits."""
    result = label_information(one_hot_states(), random_state=0)
    binary = -(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75))
    assert result.label_entropy == pytest.approx(2)
    # Noise of 1 / 20 between 0 and 1 hides nothing. One estimate from 80 samples has a deviation of 0.1.
    assert (np.abs(result.per_unit[2:].mean((0, 1)) - binary) < 0.1).all()
    assert (np.abs(result.bound[2:] - 2) < 0.1).all() and (result.bound[2:] <= 2).all()
    assert (result.mean[2:] > result.permuted_high[2:] + 0.5).all()
    assert (result.permuted_bound < 0.1).all()
    assert (result.dsmi[2:] > result.permuted_dsmi_high[2:]).all()


def test_a_unit_that_holds_the_label_alone():
    label = np.arange(90) % 3
    rng = np.random.default_rng(0)
    states = rng.normal(0, 0.05, (1, 4, 2, 90))
    states[:, :, 0] += label
    per_unit = label_information(states, label, permutations=1, random_state=0).per_unit
    assert (np.abs(per_unit[:, :, 0] - np.log2(3)) < 0.1).all()
    assert abs(per_unit[:, :, 1].mean()) < 0.1  # 4 estimates with deviations of 0.1


def test_a_label_that_the_states_do_not_hold():
    result = label_information(noise_states(), permutations=40, random_state=0)
    # 40 slices. Their means of 6 units have a deviation of 0.1 / sqrt(6), and the mean of 40 of them one of 0.007.
    assert abs(result.mean.mean()) < 0.03 and abs(result.permuted_mean.mean()) < 0.01
    for value, low, high in (
        (result.mean, result.permuted_low, result.permuted_high),
        (result.dsmi, result.permuted_dsmi_low, result.permuted_dsmi_high),
    ):
        # 95 % of 40 less 3 deviations of 0.034. The quantiles of 40 permutations are narrow by a few percent.
        assert ((value >= low) & (value <= high)).mean() >= 0.82
    assert ((result.permuted_low <= 0) & (result.permuted_high >= 0)).all()
    assert (result.bound < 0.1).all()  # below 0 where the probe is overconfident


def test_permuted_labels_of_states_that_hold_the_label():
    result = label_information(one_hot_states(), permutations=40, random_state=0)
    assert ((result.permuted_low <= 0) & (result.permuted_high >= 0)).all()
    assert abs(result.permuted_mean.mean()) < 0.02


def test_the_bound_is_that_of_the_probe():
    trace = one_hot_states(noise=1)
    probe = linear_probe(trace, C=0.1, random_state=3)
    result = label_information(trace, probe=probe, permutations=1)
    np.testing.assert_array_equal(result.bound, 2 - probe.cross_entropy)
    np.testing.assert_array_equal(result.permuted_bound, 2 - probe.permuted_cross_entropy)
    default = label_information(trace, permutations=1, random_state=3)
    np.testing.assert_array_equal(default.bound, 2 - linear_probe(trace, random_state=3).cross_entropy)


def test_spectral_information_by_hand():
    """Two distant points, each of which is a class. With a bandwidth of their distance, the kernel between them is
    exp(-1 / 2), which is also the affinity after the division by the row sums. The eigenvalues are 1 and
    (1 - exp(-1 / 2)) / (1 + exp(-1 / 2)). Each class has an entropy of 0."""
    label = torch.arange(10) % 2
    states = label.double()[None, :, None] * torch.tensor([3.0, 4.0], dtype=torch.float64)
    second = (1 - np.exp(-0.5)) / (1 + np.exp(-0.5))
    shares = np.array([1, second]) / (1 + second)
    exact = -(shares * np.log2(shares)).sum()
    mixed = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1, 0, 1])  # both points in each class, 3 to 2
    information = spectral_information(states, torch.stack([label, mixed]), t=1)
    assert float(information[0, 0]) == pytest.approx(exact, abs=1e-12)
    assert abs(float(information[1, 0])) < 0.05 < exact


def test_spectral_information_without_information_is_positive():
    """The trap: few points have a low entropy. The permuted labels show by how much."""
    result = label_information(noise_states(), random_state=0)
    assert result.dsmi.min() > 0.2
    assert abs((result.dsmi - result.permuted_dsmi).mean()) < 0.02


def test_without_the_spectral_entropy():
    trace = one_hot_states(noise=1)
    full, quick = (label_information(trace, t=t, permutations=2, random_state=0) for t in (1, None))
    assert np.isnan(quick.dsmi).all() and np.isnan(quick.permuted_dsmi_high).all()
    np.testing.assert_array_equal(quick.mean, full.mean)


def test_hidden_samples_leave_their_slice():
    trace, hidden = one_hot_states(noise=1), [0, 5, 17]
    masked = label_information(without_samples(trace, 1, hidden), random_state=0)
    kept = np.setdiff1d(np.arange(80), hidden)
    alone = label_information(trace.subsample(timesteps=[1], samples=kept), random_state=0)
    for name in MEASURES:
        np.testing.assert_allclose(getattr(masked, name)[:, 1], getattr(alone, name)[:, 0], atol=1e-6, err_msg=name)
    # 19, 19, 19 and 20 samples of the classes have less than 2 bits.
    assert alone.label_entropy < 2 and masked.label_entropy == 2


def test_a_slice_with_too_few_samples_is_nan():
    hidden = list(range(0, 80, 4))[1:]  # all but one of a class
    result = label_information(without_samples(one_hot_states(), 2, hidden), permutations=2, random_state=0)
    assert result.n_skipped == 4
    for name in (*MEASURES, "permuted_low", "permuted_bound", "permuted_dsmi"):
        values = getattr(result, name)
        assert np.isnan(values[:, 2]).all() and np.isfinite(values[:, :2]).all(), name
    assert "whole state at least" in repr(result) and "of 2.00 bits at epoch" in repr(result)


def test_a_trace_whose_slices_all_have_too_few_samples_can_be_read():
    mask = np.zeros((2, 2, 3, 6), dtype=bool)
    mask[..., 0] = True
    result = label_information(as_trace(np.ones(mask.shape), mask=mask, label=np.arange(6) % 2), random_state=0)
    assert result.n_skipped == 4 and repr(result) == "LabelInformation(every slice has too few samples)"


def test_samples_that_are_enough_for_units_but_not_for_the_probe():
    """Four samples in each slice, and five folds."""
    rng = np.random.default_rng(0)
    mask = np.ones((2, 2, 3, 6), dtype=bool)
    mask[..., [2, 5]] = False
    trace = as_trace(rng.normal(size=mask.shape), mask=mask, label=np.repeat([0, 1], 3))
    result = label_information(trace, permutations=2, random_state=0)
    assert np.isnan(result.bound).all() and np.isfinite(result.mean).all()
    assert "every slice has too few samples for the probe; a unit" in repr(result)


def test_dead_units_and_dead_slices_have_none():
    trace = one_hot_states()
    states = trace.data.numpy().copy()
    states[:, 0] = 0.1
    states[:, :, 3] = 7
    result = label_information(states, trace.label, permutations=2, random_state=0)
    assert (result.per_unit[:, 0] == 0).all() and (result.per_unit[:, :, 3] == 0).all()
    assert (np.abs(result.dsmi[:, 0]) < 1e-9).all() and (np.abs(result.bound[:, 0]) < 0.01).all()


@pytest.mark.parametrize("factor", [2.0**-600, 2.0**450])
def test_squares_of_states_may_leave_the_range_of_float64(factor):
    """A factor that is a power of two changes no bit."""
    trace = one_hot_states(noise=1)
    plain, scaled = (
        label_information(states, trace.label, permutations=2, random_state=0)
        for states in (trace.data, trace.data * factor)
    )
    assert plain.to_dict() == scaled.to_dict()


def test_float32_and_a_file_on_disk(tmp_path):
    trace = one_hot_states(noise=1)
    single = as_trace(trace.data.float(), label=trace.label)
    save_trace(tmp_path / "trace.npz", single)
    stored = load_trace(tmp_path / "trace.npz", stream=True)
    results = [label_information(data, permutations=3, random_state=0) for data in (single, stored, trace)]
    assert results[0].to_dict() == results[1].to_dict()
    for name in MEASURES:  # the rounding of states may change a count of neighbors, which is 1e-3 bits of 80 samples
        np.testing.assert_allclose(getattr(results[2], name), getattr(results[0], name), atol=0.01, err_msg=name)


def test_progress_and_table():
    calls: list[tuple[str, int, int]] = []
    trace = one_hot_states()
    result = label_information(trace, permutations=2, random_state=0, callback=lambda *call: calls.append(call))
    assert ("linear probe", 12, 12) in calls and calls[-1] == ("label information", 12, 12)
    pandas = pytest.importorskip("pandas")
    frame = result.to_frame()
    assert isinstance(frame, pandas.DataFrame) and len(frame) == 12
    row = frame[(frame.epoch == 3) & (frame.timestep == 1)].iloc[0]
    assert row.bound == result.bound[3, 1] and row.permuted_dsmi_low == result.permuted_dsmi_low[3, 1]


@pytest.mark.parametrize(
    ("labels", "options", "error", "message"),
    [
        (None, {}, InputError, "labels is None, and the trace has no label"),
        (np.linspace(0, 1, 60), {}, InputError, "labels has numbers with a fraction; accepted: classes"),
        (np.arange(60) % 2, {"k": 0}, InputError, "k=0 is out of range"),
        (np.arange(60) % 2, {"t": 0}, InputError, "t=0 is out of range"),
        (np.arange(60) % 2, {"t": 10**30}, InputError, r"t=1\d+ is out of range"),
        (np.arange(60) % 2, {"permutations": 0}, InputError, "permutations=0 is out of range"),
        (np.arange(60) % 2, {"probe": 0.5}, InputTypeError, "probe is a float; accepted: what linear_probe returns"),
    ],
)
def test_bad_arguments_are_refused(labels, options, error, message):
    with pytest.raises(error, match=message):
        label_information(noise_states(1, 2).data, labels, **options)


def test_the_probe_of_another_trace_is_refused():
    trace = noise_states(1, 2)
    with pytest.raises(InputError, match=r"probe has shape \(1, 3\) and chance 0.333333; accepted: .*\(1, 2\)"):
        label_information(trace, probe=linear_probe(noise_states(1, 3), random_state=0))
    with pytest.raises(InputError, match="and chance 0.5; accepted: .* chance 0.333333"):
        label_information(trace, probe=linear_probe(trace, np.arange(60) % 2, random_state=0))
