"""Spread and displacement by hand, their laws, and nodes without a place."""

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from mmphate_gpu import Embedding, InputError, InputTypeError
from mmphate_gpu.analysis import displacement, spread
from mmphate_gpu.slices import SliceLayout


def embedding_of(places, epoch=None):  # (E, T, M, C)
    sizes = places.shape[:3]
    epoch = np.arange(sizes[0]) if epoch is None else epoch
    return Embedding(places.reshape(-1, places.shape[-1]), SliceLayout(epoch, *map(np.arange, sizes[1:])))


def walk(seed=0, shape=(8, 3, 5, 2)):
    return np.random.default_rng(seed).normal(size=shape).cumsum(0)


def turned(places, seed=1):
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(places.shape[-1],) * 2))
    return places @ turn


# ---------------------------------------------------------------- spread


def test_spread_is_the_trace_of_the_covariance():
    places = walk()
    result = spread(embedding_of(places))
    expected = [np.trace(np.cov(epoch.reshape(15, 2).T)) for epoch in places]
    assert result.variance == pytest.approx(expected, rel=1e-12)
    assert result.total == pytest.approx(sum(expected), rel=1e-12)


def test_spread_of_a_single_time_step_by_hand():
    """Units at 0 and 2 have the variance 2; those at (0, 0) and (0, 4) have 8."""
    places = np.array([[[[0.0, 0.0], [2.0, 0.0]]], [[[0.0, 0.0], [0.0, 4.0]]]])
    result = spread(embedding_of(places))
    assert result.variance.tolist() == [2.0, 8.0] and result.total == 10.0
    assert repr(result) == "Spread(total variance 10 over 2 epochs, 2 components)"


def test_spread_has_the_laws_of_a_variance():
    places = walk()
    base = spread(embedding_of(places)).total
    moved = places + np.arange(8)[:, None, None, None]  # each epoch as a whole
    assert spread(embedding_of(moved)).total == pytest.approx(base, rel=1e-12)
    assert spread(embedding_of(turned(places))).total == pytest.approx(base, rel=1e-12)
    assert spread(embedding_of(3 * places)).total == pytest.approx(9 * base, rel=1e-12)


def test_spread_leaves_nodes_without_a_place_out():
    places = walk()
    places[0, 1, 2] = np.nan
    places[3] = np.nan
    places[4, :, 1:] = places[4, 1:] = np.nan
    result = spread(embedding_of(places))
    rest = np.delete(places[0].reshape(15, 2), 1 * 5 + 2, axis=0)
    assert result.variance[0] == pytest.approx(rest.var(0, ddof=1).sum())
    assert np.isnan(result.variance).tolist() == [False] * 3 + [True] * 2 + [False] * 3
    assert result.total == pytest.approx(np.nansum(result.variance))
    assert np.isnan(spread(embedding_of(np.full_like(places, np.nan))).total)


# ---------------------------------------------------------------- displacement


def test_displacement_by_hand():
    """The first unit goes by (1, 0) and (3, 4): squares 1 and 25, over two components. The second stays."""
    places = np.array([[[[0.0, 0.0], [5.0, 5.0]]], [[[1.0, 0.0], [5.0, 5.0]]], [[[4.0, 4.0], [5.0, 5.0]]]])
    result = displacement(embedding_of(places, np.array([0, 10, 30])))
    assert result.values.tolist() == [[0.5, 0.0], [12.5, 0.0]]
    assert result.before.tolist() == [0, 10] and result.epoch.tolist() == [10, 30]
    assert result.change is None and result.mean_pearson is None
    assert repr(result) == "Displacement(2 x 2 (pair of epochs x unit))"


def test_displacement_is_the_mean_over_time_steps():
    places = walk()
    result = displacement(embedding_of(places))
    steps = [displacement(embedding_of(places[:, [t]])).values for t in range(3)]
    assert result.values == pytest.approx(np.mean(steps, axis=0), rel=1e-12)


def test_displacement_has_the_laws_of_a_squared_distance():
    places = walk()
    base = displacement(embedding_of(places)).values
    assert displacement(embedding_of(turned(places) + 5)).values == pytest.approx(base, rel=1e-9)
    assert displacement(embedding_of(2 * places)).values == pytest.approx(4 * base, rel=1e-12)
    assert displacement(embedding_of(places[::-1])).values[::-1] == pytest.approx(base, rel=1e-12)


def test_displacement_leaves_nodes_without_a_place_out():
    places = walk()
    places[2, 0, 1] = np.nan
    places[5, :, 3] = np.nan
    values, full = displacement(embedding_of(places)).values, displacement(embedding_of(places[:, 1:])).values
    assert values[[1, 2], 1].tolist() == full[[1, 2], 1].tolist()
    assert np.argwhere(np.isnan(values)).tolist() == [[4, 3], [5, 3]]


def test_displacement_against_a_metric():
    places, loss = walk(), np.random.default_rng(2).normal(size=8)
    result = displacement(embedding_of(places), against=loss)
    change = np.diff(loss)
    assert result.change.tolist() == change.tolist()
    for unit in range(5):
        assert result.pearson[unit] == pytest.approx(pearsonr(result.values[:, unit], change).statistic)
        assert result.spearman[unit] == pytest.approx(spearmanr(result.values[:, unit], change).statistic)
    assert result.mean_pearson == pytest.approx(pearsonr(result.values.mean(1), change).statistic)
    assert result.mean_spearman == pytest.approx(spearmanr(result.values.mean(1), change).statistic)
    assert "Spearman" in repr(result)


@pytest.mark.parametrize("size", [1e-150, 1e149])
def test_correlations_do_not_depend_on_the_size(size):
    places, loss = walk(), np.random.default_rng(2).normal(size=8)
    plain = displacement(embedding_of(places), against=loss)
    sized = displacement(embedding_of(size * places), against=size * loss)
    assert sized.pearson == pytest.approx(plain.pearson, rel=1e-9) and sized.mean_spearman == plain.mean_spearman


def test_a_planted_relation_is_seen():
    """Units that move by the square root of the change of the loss."""
    loss = np.array([1.0, 1.5, 1.6, 2.6, 2.8, 3.6])
    steps = np.concatenate([[0], np.sqrt(np.diff(loss))]).cumsum()
    places = np.tile(steps[:, None, None, None], (1, 2, 4, 1))
    result = displacement(embedding_of(places), against=loss)
    assert result.pearson == pytest.approx(np.ones(4)) and result.mean_spearman == pytest.approx(1)


def test_metrics_that_lack_values_leave_pairs_out():
    places, loss = walk(), np.random.default_rng(2).normal(size=8)
    loss[0], loss[4] = np.nan, np.inf
    result = displacement(embedding_of(places), against=loss)
    kept = [1, 2, 5, 6]
    assert np.flatnonzero(~np.isnan(result.change)).tolist() == kept
    expected = pearsonr(result.values[kept, 0], np.diff(loss[[1, 2, 3]]).tolist() + np.diff(loss[5:]).tolist())
    assert result.pearson[0] == pytest.approx(expected.statistic)


def test_correlations_of_constants_and_of_two_pairs_are_nan():
    assert np.isnan(displacement(embedding_of(walk()), against=np.ones(8)).mean_pearson)
    short = displacement(embedding_of(walk(shape=(3, 1, 2, 2))), against=[1.0, 2.0, 4.0])
    assert np.isnan([*short.pearson, short.mean_spearman]).all()


def test_tables():
    pytest.importorskip("pandas")
    dated = embedding_of(walk(), np.datetime64("2026-01-01") + np.arange(8))
    assert spread(dated).to_frame().shape == (8, 2)
    frame = displacement(dated).to_frame()
    assert list(frame) == ["epoch", "unit", "displacement"] and len(frame) == 35
    assert displacement(dated).to_dict()["epoch"][0] == "2026-01-02"


def test_bad_input_is_named():
    with pytest.raises(InputError, match=r"embedding has 1 epoch; accepted: at least 2"):
        displacement(embedding_of(walk(shape=(1, 4, 2, 2))))
    with pytest.raises(InputError, match=r"against is float64 of shape \(7,\); accepted: real numbers of shape \(8,\)"):
        displacement(embedding_of(walk()), against=np.zeros(7))
    with pytest.raises(InputError, match="against is"):
        displacement(embedding_of(walk()), against=["a"] * 8)
    for measure in (spread, displacement):
        with pytest.raises(InputError, match=r"embedding holds \S+e\+200; accepted: coordinates up to 1e\+150"):
            measure(embedding_of(1e200 * walk()))
        with pytest.raises(InputTypeError, match="embedding is a Tensor|embedding is a ndarray"):
            measure(walk())
