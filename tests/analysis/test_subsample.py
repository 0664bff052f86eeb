"""Studies of parts: a part that is the whole has its picture, and parts are drawn as they should be."""

import numpy as np
import pytest

import mmphate_gpu as mp
from mmphate_gpu import InputError, as_trace
from mmphate_gpu.analysis import entropy, neighborhood_preservation, subsample_study
from mmphate_gpu.analysis.refit import disparity, refitted
from mmphate_gpu.analysis.seeds import seeds_of
from mmphate_gpu.analysis.subsample import _draws

SMALL = mp.MMPHATE(n_landmark=30, interslice_knn=10, mds_solver="classic")
AXES = ("timesteps", "epochs", "units", "samples")


def recorded(shape=(6, 8, 5, 9), seed=0, **fields):
    values = np.random.default_rng(seed).standard_normal(shape).cumsum(0).cumsum(1)
    return as_trace(values, epoch=10 * np.arange(shape[0]), **fields)


def study(over="timesteps", rates=(0.5,), repeats=2, trace=None, **options):
    trace = recorded() if trace is None else trace
    return subsample_study(trace, over, rates, repeats, k=3, estimator=SMALL, **{"random_state": 0} | options)


@pytest.mark.parametrize("over", AXES)
def test_a_part_that_is_the_whole_has_its_picture(over):
    result = study(over, (1,), 2)
    procrustes = result.metrics.index("procrustes")
    # The part has the seed of the whole, so its picture has the same bits; the disparity rounds.
    assert (result.values[0, :, procrustes] < 1e-12).all()
    assert np.array_equal(result.values[0, :, :procrustes], np.tile(result.full[:procrustes], (2, 1)))
    assert np.array_equal(result.curves[0], np.tile(result.full_curve, (2, 1)))
    assert result.full[procrustes] > 1e-6  # another seed gives another picture


def test_a_study_is_what_its_parts_say():
    """Two of eight time steps, drawn by hand, embedded by hand."""
    trace = recorded()
    result = study("timesteps", sizes=(2,), repeats=1, trace=trace)
    offset = np.random.default_rng(0).random()
    steps = np.floor((np.arange(2) + offset) * 4).astype(int)
    seed = seeds_of(0, 2)[0]
    whole, picture = refitted(trace, SMALL, seed), refitted(trace.subsample(timesteps=steps), SMALL, seed)
    nodes = np.arange(240).reshape(6, 8, 5)[:, steps].ravel()
    shares = neighborhood_preservation(trace.subsample(timesteps=steps), picture, [2, 3])
    # Of 5 units each has at most half of the 4 others as neighbors.
    expected = [shares[0][0], shares[1][1], disparity(whole.coordinates[nodes], picture.coordinates)]
    np.testing.assert_allclose(result.values[0, 0], expected, rtol=1e-12)
    with pytest.warns(UserWarning, match="fewer than 10 points"):
        curve = entropy(picture, "units", "kde", n_bootstrap=0).values.mean(1)
    np.testing.assert_allclose(result.curves[0, 0], curve, rtol=1e-12)
    assert result.sizes.tolist() == [2] and result.rates.tolist() == [0.25]


def test_parts_of_epochs_leave_gaps_in_the_curve():
    result = study("epochs", (0.5,), 4)
    present = np.isfinite(result.curves[0])
    assert (present.sum(1) == 3).all() and {tuple(np.flatnonzero(row) % 2) for row in present} == {(0,) * 3, (1,) * 3}
    assert np.array_equal(result.epoch, 10 * np.arange(6)) and np.isfinite(result.full_curve).all()


@pytest.mark.parametrize("repeats", [1, 4, 7])
def test_drawn_time_steps_are_even_and_start_everywhere(repeats):
    draws = np.array(list(_draws(recorded((3, 80, 2, 3)), "timestep", 20, repeats, np.random.default_rng(0))))
    assert draws.shape == (repeats, 20) and (np.diff(draws) == 4).all()
    assert len(set(draws[:, 0].tolist())) == min(repeats, 4)
    draws = np.array(list(_draws(recorded((3, 80, 2, 3)), "timestep", 30, repeats, np.random.default_rng(0))))
    assert set(np.diff(draws).ravel().tolist()) == {2, 3} and draws.max() < 80


def test_drawn_samples_keep_the_share_of_each_class():
    label = np.repeat([0, 1, 2], [40, 20, 20])[np.random.default_rng(0).permutation(80)]
    trace = recorded((3, 2, 2, 80), label=label)
    draws = list(_draws(trace, "sample", 20, 5, np.random.default_rng(0)))
    assert all(np.bincount(label[draw]).tolist() == [10, 5, 5] for draw in draws)
    assert len({draw.tobytes() for draw in draws}) == 5 and all((np.diff(draw) > 0).all() for draw in draws)


def test_drawn_units_are_random():
    draws = list(_draws(recorded((3, 2, 20, 3)), "unit", 5, 200, np.random.default_rng(0)))
    assert all((np.diff(draw) > 0).all() for draw in draws)
    counts = np.bincount(np.concatenate(draws), minlength=20)
    assert counts.min() > 25 and counts.max() < 80  # 50 on average, with a standard deviation of 6


def test_less_noise_is_lost_with_more_samples():
    """Units follow two sines with noise in every sample: a tenth of the samples shows a worse picture than a half."""
    rng = np.random.default_rng(0)
    angle = np.linspace(0, 6, 40)[:, None] + np.arange(4)
    readout = rng.standard_normal((2, 200))
    states = np.stack([np.cos(angle), np.sin(angle)], -1) @ readout
    trace = states + 1.5 * rng.standard_normal(states.shape)
    result = study("samples", (0.5, 0.05), 3, trace=trace)
    away = result.values[:, :, result.metrics.index("procrustes")].mean(1)
    assert away[0] < away[1] and result.sizes.tolist() == [100, 10]


def test_a_masked_trace_and_a_trace_on_disk(tmp_path):
    mask = np.random.default_rng(1).random((6, 8, 5, 9)) < 0.8
    trace = recorded(mask=mask)
    mp.save_trace(tmp_path / "t.npz", trace)
    stored = mp.load_trace(tmp_path / "t.npz", stream=True)
    first, second = (study("timesteps", trace=t).to_dict() for t in (trace, stored))
    assert first == second and np.isfinite(first["values"]).all()


def test_the_result_is_a_table_and_a_line():
    calls = []
    result = study("units", (0.8, 0.4), 2, callback=lambda *call: calls.append(call), metrics=("inter", "spread"))
    assert calls == [("subsample study", done, 6) for done in range(1, 7)]
    frame = result.to_frame()
    assert len(frame) == 2 * 2 * 3 and set(frame["metric"]) == {"inter", "spread", "procrustes"}
    assert frame["value"].tolist() == result.values.ravel().tolist()
    assert repr(result).startswith("SubsampleStudy(Procrustes disparity to the picture of all units: ")
    assert "\n" not in repr(result)


@pytest.mark.parametrize(
    ("over", "options", "message"),
    [
        ("slices", {}, "over='slices' is unknown; accepted: 'timesteps'"),
        ("units", {"rates": (0,)}, "rates=0 is out of range"),
        ("units", {"rates": (1.5,)}, "rates=1.5 is out of range"),
        ("units", {"rates": ()}, "rates is empty"),
        ("units", {"sizes": (6,)}, "sizes=6 is out of range; it must be an integer >= 1 and <= 5"),
        ("units", {"sizes": (2.5,)}, "sizes=2.5 must be an integer"),
        ("units", {"repeats": 0}, "repeats=0 is out of range"),
        ("units", {"metrics": ("outer",)}, "metrics='outer' is unknown"),
        ("units", {"metrics": {"procrustes": len}}, "metrics has 'procrustes'"),
    ],
)
def test_bad_options_are_refused(over, options, message):
    with pytest.raises(InputError, match=message):
        study(over, **options)


def test_rates_of_equal_sizes_count_once():
    result = study("units", (0.5, 0.25, 0.1), 1)  # 2, 1 and 0.5 of 5 units
    assert result.sizes.tolist() == [2, 1] and result.rates.tolist() == [0.4, 0.2] and result.values.shape[:2] == (2, 1)
    assert not result.to_frame().duplicated(["size", "repeat", "metric"]).any()


def test_a_part_of_one_slice_is_refused():
    with pytest.raises(InputError, match=r"a part with 1 epoch\(s\) has a single slice"):
        study("epochs", (0.1,), trace=recorded((12, 1, 4, 5)))
