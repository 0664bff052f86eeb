"""The result of entropy: axes, intervals, warnings, the states themselves, and what is refused."""

import inspect
import math
import re
import warnings

import numpy as np
import pytest

from mmphate_gpu import save_trace
from mmphate_gpu.analysis import Entropy, entropy, trace_entropy
from mmphate_gpu.datasets import random_walk
from mmphate_gpu.embedding import Embedding
from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.slices import SliceLayout
from mmphate_gpu.trace import as_trace, load_trace, normalize

from .clouds import embedding, gaussians

ESTIMATORS = ("histogram", "kde", "knn", "spectral")


def labeled():
    """10 epochs x 12 time steps x 11 units in two components."""
    layout = SliceLayout(np.arange(10) * 5, np.arange(12) / 2, np.array([f"u{i}" for i in range(11)]))
    return Embedding(gaussians(10 * 12 * 11, 2), layout)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(
    ("over", "dims", "order"),
    [
        ("units", ("epoch", "timestep"), (0, 1, 2, 3)),
        ("timesteps", ("epoch", "unit"), (0, 2, 1, 3)),
        ("epochs", ("timestep", "unit"), (1, 2, 0, 3)),
        ("nodes", (), None),
    ],
)
def test_every_axis_that_is_not_summed_over_remains(over, dims, order, estimator):
    whole = labeled()
    result = entropy(whole, over, estimator, bandwidth=1.0, random_state=0)
    assert result.dims == dims
    for name, size in zip(dims, result.values.shape, strict=True):
        assert np.array_equal(result.coords[name], getattr(whole.layout, name)) and size == len(result.coords[name])
    if order is None:
        assert result.values.shape == result.n_points.shape == () and result.n_points == 1320 and result.low is None
        return
    points = whole.coordinates.reshape(10, 12, 11, 2).transpose(order)
    first = embedding(points[3:4, 5].copy()) if estimator != "histogram" else None  # its edges are those of all
    if first is not None:
        value = entropy(first, "units", estimator, scale=result.scale, bandwidth=1.0, n_bootstrap=0).values[0, 0]
        assert result.values[3, 5] == pytest.approx(value, abs=1e-12)
    assert (result.n_points == points.shape[2]).all() and result.low.shape == result.values.shape


def test_a_table_has_a_row_for_every_cloud():
    result = entropy(labeled(), random_state=0)
    frame = result.to_frame()
    assert list(frame) == ["epoch", "timestep", "entropy", "low", "high", "n_points", "n_floored"]
    row = frame.iloc[1 * 12 + 3]
    assert (row.epoch, row.timestep, row.entropy) == (5, 1.5, result.values[1, 3])
    assert len(entropy(labeled(), "nodes").to_frame()) == 1


def test_the_line_says_what_it_is():
    assert repr(entropy(embedding(np.ones((3, 12, 2))), n_bootstrap=0)) == (
        "Entropy(histogram over units, 3 epochs x 1 timestep: 0 bits)"
    )
    text = repr(entropy(labeled(), "nodes", "knn", base=math.e))
    assert re.fullmatch(r"Entropy\(knn over nodes, a single cloud: [\d.]+ nats\)", text)
    points = np.full((2, 12, 2), np.nan)
    points[0] = gaussians(12, 2)
    with pytest.warns(UserWarning, match="1 of . clouds have fewer than 10 points"):
        assert repr(entropy(embedding(points), base=10)).endswith("bans, 1 undefined)")
        assert repr(entropy(embedding(points[1:]))) == (
            "Entropy(histogram over units, 1 epoch x 1 timestep: no bits, 1 undefined)"
        )


def test_settings_and_plain_values():
    result = entropy(labeled(), "timesteps", "spectral", t=2, random_state=3)
    asked = {"over": "timesteps", "estimator": "spectral", "t": 2, "random_state": 3, "n_bootstrap": None}
    assert asked.items() <= result.settings.items()
    assert result.settings["bandwidth"] == pytest.approx(1.66, abs=0.1)  # sqrt(2) * 1.18, of normal numbers
    plain = result.to_dict()
    assert plain["values"] == result.values.tolist() and "replicates" not in plain


@pytest.mark.parametrize(
    ("estimator", "least", "most"),
    [("histogram", 0.91, 0.98), ("kde", 0.92, 0.99), ("knn", 0.92, 0.99), ("spectral", 0.82, 0.95)],
)
def test_intervals_cover_what_the_estimator_is_on_average(estimator, least, most):
    """The share of 400 intervals has a standard error of 1.1 % around 95 %. Those of "spectral" cover 84 to 88 %."""
    result = entropy(embedding(gaussians(400, 60, 2)), "units", estimator, random_state=0, n_bootstrap=40)
    expected = result.values.mean()
    assert least <= np.mean((result.low <= expected) & (expected <= result.high)) <= most


def test_intervals_of_gaussians_cover_their_entropy_where_the_bias_is_small():
    result = entropy(embedding(gaussians(400, 60, 2)), "units", "knn", random_state=0)
    truth = math.log2(2 * math.pi * math.e) - 2 * math.log2(result.scale)
    assert 0.9 <= np.mean((result.low <= truth) & (truth <= result.high)) <= 0.99


def test_replicates_have_the_same_members_everywhere():
    """Equal clouds have equal replicates, so a mean over clouds keeps its spread."""
    points = np.repeat(gaussians(1, 40, 2), 3, axis=0) * np.array([1, 2, 4])[:, None, None]
    result = entropy(embedding(points), "units", "kde", random_state=1, n_bootstrap=7)
    assert result.replicates.shape == (7, 3, 1)
    deviations = result.replicates - result.values
    assert deviations[:, 1] == pytest.approx(deviations[:, 0], abs=1e-12)
    assert result.high - result.low == pytest.approx(2 * 1.96 * np.sqrt((deviations**2).mean(0)), abs=1e-12)
    assert np.abs(deviations.mean(0)).max() < 1e-12


def test_a_seed_gives_the_same_intervals_and_no_replicates_none():
    first, again, other = (entropy(labeled(), random_state=seed) for seed in (4, 4, 5))
    assert np.array_equal(first.low, again.low) and not np.array_equal(first.low, other.low)
    none = entropy(labeled(), n_bootstrap=0)
    assert none.low is None and none.high is None and none.replicates is None
    assert list(none.to_frame()) == ["epoch", "timestep", "entropy", "n_points", "n_floored"]


def test_over_nodes_halves_are_of_the_units():
    result = entropy(labeled(), "nodes", "knn", n_bootstrap=10, random_state=0)
    assert result.replicates.shape == (10,) and result.low < result.values < result.high
    few = Embedding(gaussians(10 * 12 * 4, 2), SliceLayout.of_shape(10, 12, 4))
    far = entropy(few, "nodes", "knn", k=50, n_bootstrap=10, random_state=0)  # a half has 240 nodes of two units
    near = entropy(few, "nodes", "knn", k=1, n_bootstrap=10, random_state=0)
    assert far.high - far.low < 0.7 * (near.high - near.low)  # measured: 0.54; equal if halves took fewer neighbors


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_few_points_give_a_warning_and_no_interval(estimator):
    points = gaussians(4, 3, 2)
    with pytest.warns(UserWarning, match="4 of 4 clouds have fewer than 10 points .the least 3.") as caught:
        result = entropy(embedding(points), "units", estimator, k=2)
    assert len(caught) == 1 and result.low is None and np.isfinite(result.values).all()
    with pytest.warns(UserWarning, match="the least 3"):
        assert np.isnan(entropy(embedding(points), "units", "knn", k=3).values).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        entropy(embedding(gaussians(4, 10, 2)), "units", estimator)
    with pytest.warns(UserWarning, match="4 of 4 clouds have too few points for k neighbors"):
        assert np.isnan(entropy(embedding(gaussians(4, 12, 2)), "units", "knn", k=12).values).all()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_cloud_without_points_is_nan_and_counted(estimator):
    points = gaussians(4, 20, 2)
    points[2] = np.nan
    with pytest.warns(UserWarning, match="1 of 4 clouds have fewer than 10 points"):
        result = entropy(embedding(points), "units", estimator, n_bootstrap=5)
    assert np.isnan(result.values).ravel().tolist() == [False, False, True, False] and result.n_undefined == 1
    assert np.array_equal(np.isnan(result.low), np.isnan(result.values)) and result.n_points[2, 0] == 0


@pytest.mark.filterwarnings("ignore:.* have fewer than 10 points")
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_an_embedding_without_places_is_nan(estimator):
    for over in ("units", "nodes"):
        assert np.isnan(entropy(embedding(np.full((2, 12, 2), np.nan)), over, estimator).values).all()


def test_a_common_scale_makes_fits_comparable():
    points = gaussians(2, 50, 2)
    small, large = (entropy(embedding(p), "units", "kde", scale=1.0, n_bootstrap=0) for p in (points, points * 4))
    assert large.values - small.values == pytest.approx(np.full((2, 1), 4.0), abs=1e-12) and large.scale == 1
    alone = entropy(embedding(points * 1e200), "units", "kde", n_bootstrap=0)
    assert alone.values == pytest.approx(entropy(embedding(points), "units", "kde", n_bootstrap=0).values, abs=1e-10)


def test_progress_is_reported():
    calls = []
    entropy(labeled(), n_bootstrap=3, callback=lambda *call: calls.append(call))
    assert calls == [("entropy", done, 3) for done in (1, 2, 3)]


# ---------------------------------------------------------------- the states themselves


@pytest.mark.parametrize("estimator", ["kde", "knn"])
def test_a_trace_has_the_entropy_of_its_principal_components(estimator):
    trace = random_walk(8, 15, 12)
    points = normalize(trace).numpy().reshape(-1, 12)
    centered = points - points.mean(0)
    scores = centered @ np.linalg.svd(centered, full_matrices=False)[2][:2].T
    expected = entropy(embedding(scores.reshape(8, 15, 2)), "units", estimator, n_bootstrap=0)
    result = trace_entropy(trace, "units", estimator, n_bootstrap=0)
    assert result.values == pytest.approx(expected.values, abs=1e-9)
    assert result.settings["n_components"] == 2 and result.settings["normalize"] is True


def test_units_that_gather_lose_entropy_in_the_states():
    data = gaussians(1, 1, 40, 30) * 0.5 ** np.arange(6)[:, None, None, None] + gaussians(30)
    values = trace_entropy(data, "units", "knn", normalize=False, n_components=2, n_bootstrap=0).values
    assert np.diff(values[:, 0]) == pytest.approx(np.full(5, -2.0), abs=1e-6)


def test_few_samples_stay_as_they_are():
    result = trace_entropy(random_walk(4, 12, 3), "units", "kde", n_components=5, n_bootstrap=0)
    assert result.settings["n_components"] == 3


def test_a_trace_on_disk_gives_the_same(tmp_path):
    trace = random_walk(6, 12, 9)
    save_trace(tmp_path / "walk.npz", trace)
    stored = load_trace(tmp_path / "walk.npz", stream=True)
    options = {"estimator": "kde", "random_state": 0}
    assert np.array_equal(trace_entropy(stored, **options).values, trace_entropy(trace, **options).values)


def test_a_masked_trace_is_refused():
    data = gaussians(5, 1, 12, 6)
    with pytest.raises(InputError, match="trace has missing samples; accepted: a trace without a mask"):
        trace_entropy(as_trace(data, mask=data > -1))


def test_both_functions_have_the_same_options():
    shared = inspect.signature(trace_entropy).parameters
    for name, parameter in list(inspect.signature(entropy).parameters.items())[1:]:
        assert shared[name] == parameter
    assert shared.keys() - inspect.signature(entropy).parameters == {"trace", "n_components", "normalize"}


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"over": "unit"}, InputError, "over='unit' is unknown; accepted: 'units', 'timesteps', 'epochs', 'nodes'"),
        ({"estimator": "hist"}, InputError, "estimator='hist' is unknown; accepted: 'histogram', 'kde', 'knn'"),
        ({"bins": 0}, InputError, "bins=0 is out of range"),
        ({"bins": 2**32}, InputError, "bins=4294967296 in 2 components make too many cells"),
        ({"bins": 2**62}, InputError, "bins=4611686018427387904 is out of range"),
        ({"k": 1.5}, InputTypeError, "k=1.5 must be an integer"),
        ({"t": 0}, InputError, "t=0 is out of range"),
        ({"t": 10**30, "estimator": "spectral"}, InputError, r"t=1\d+ is out of range"),
        ({"base": 1}, InputError, "base=1 is out of range"),
        ({"scale": 0}, InputError, "scale=0 is out of range"),
        ({"bandwidth": -1}, InputError, "bandwidth=-1 is out of range"),
        ({"n_bootstrap": -1}, InputError, "n_bootstrap=-1 is out of range"),
        ({"n_bootstrap": 1}, InputError, "n_bootstrap=1 gives no spread of replicates; accepted: 0, or"),
        ({"random_state": -1}, InputError, "random_state=-1 is out of range"),
        ({"callback": 3}, InputTypeError, "callback=3 must be callable"),
    ],
)
def test_bad_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        entropy(labeled(), **options)
    with pytest.raises(error, match=message):
        trace_entropy(random_walk(3, 12, 6), **options)


def test_only_an_embedding_is_accepted():
    with pytest.raises(InputTypeError, match="embedding is a ndarray; accepted: an Embedding"):
        entropy(np.zeros((4, 2)))
    with pytest.raises(InputError, match="n_components=0 is out of range"):
        trace_entropy(random_walk(3, 12, 6), n_components=0)


def test_the_embedding_is_not_changed_and_may_be_read_only():
    whole = labeled()
    whole.coordinates.flags.writeable = False
    before = whole.coordinates.copy()
    assert isinstance(entropy(whole, estimator="kde"), Entropy) and np.array_equal(whole.coordinates, before)
