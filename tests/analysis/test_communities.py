"""Planted groups of units are recovered, shuffled and structureless ones are not; the numbers are those of formulas."""

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import normalized_mutual_info_score

from mmphate_gpu import Embedding, InputError, InputTypeError, reference
from mmphate_gpu.analysis import communities, unit_communities, unit_points
from mmphate_gpu.slices import SliceLayout
from mmphate_gpu.trace import as_trace, load_trace, save_trace

GROUPS = np.repeat([0, 1, 2], 5)
QUICK = {"n_null": 19, "random_state": 0}


def embedding_of(places, epoch=None):  # (E, T, M, C)
    sizes = places.shape[:3]
    epoch = np.arange(sizes[0]) if epoch is None else epoch
    return Embedding(places.reshape(-1, places.shape[-1]), SliceLayout(epoch, *map(np.arange, sizes[1:])))


def planted(seed=0, shape=(12, 3), noise=0.3, groups=GROUPS):  # (E, T, M, 2)
    """Units that walk with their group."""
    rng = np.random.default_rng(seed)
    walks = rng.normal(size=(*shape, groups.max() + 1, 2)).cumsum(0)
    return walks[:, :, groups] + noise * rng.normal(size=(*shape, len(groups), 2))


def planted_states(seed=0, shape=(10, 3), n_samples=20, noise=0.5, groups=GROUPS):  # (E, T, M, P)
    rng = np.random.default_rng(seed)
    signals = rng.normal(size=(*shape, groups.max() + 1, n_samples))
    return signals[:, :, groups] + noise * rng.normal(size=(*shape, len(groups), n_samples))


def shuffled_units(values, seed=0):
    """The units of each slice in another order."""
    rng = np.random.default_rng(seed)
    order = rng.permuted(np.tile(np.arange(values.shape[2]), (*values.shape[:2], 1)), axis=2)
    return np.take_along_axis(values, order[..., None], axis=2)


# ---------------------------------------------------------------- planted groups, and the null


@pytest.mark.parametrize("method", ["kmeans", "hierarchical", "hdbscan"])
@pytest.mark.parametrize("make", [planted, planted_states])
def test_planted_groups_are_recovered_and_significant(make, method):
    values = make()
    result = unit_communities(
        embedding_of(values) if make is planted else values, method=method, groups=GROUPS, **QUICK
    )
    assert result.n_communities.tolist() == [3]
    assert result.ari[0] > 0.95 and result.nmi[0] > 0.95
    assert result.p[0] == pytest.approx(1 / 20)  # the least p of 19 draws
    assert result.null_silhouette.max() < result.silhouette[0] - 0.2
    assert result.modularity[0] > 0.1


@pytest.mark.parametrize("null", communities.NULLS)
@pytest.mark.parametrize("make", [planted, planted_states])
def test_planted_groups_are_not_recovered_after_a_shuffle(make, null):
    values = shuffled_units(make())
    of = embedding_of(values) if make is planted else values
    result = unit_communities(of, groups=GROUPS, null=null, **QUICK)
    assert abs(result.ari[0]) < 0.3 and result.p[0] > 0.05


@pytest.mark.parametrize("null", communities.NULLS)
def test_structureless_units_have_no_low_p(null):
    """At the 5 % level at most 3 of 20 draws: a binomial count with p = 0.05 is above 3 with probability 0.016."""
    draws = [np.random.default_rng(seed).normal(size=(6, 2, 12, 2)) for seed in range(20)]
    p = [unit_communities(embedding_of(values), null=null, **QUICK).p[0] for values in draws]
    assert sum(np.array(p) <= 0.05) <= 3


def test_a_lasting_spread_without_gaps_has_a_low_p_under_one_null_only():
    """The trap that the docstring names: units that stay where they are keep their company."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(15, 2)) + 0.1 * rng.normal(size=(20, 1, 15, 2))
    p = {null: unit_communities(embedding_of(values), null=null, **QUICK).p[0] for null in communities.NULLS}
    assert p["units"] == 1 / 20 and p["normal"] > 0.05


def test_the_shuffled_null_is_the_silhouette_of_shuffled_data():
    """Its draws have the distribution of the silhouettes of data whose units were shuffled before the call."""
    values = planted(shape=(4, 2))
    null = unit_communities(embedding_of(values), n_null=200, random_state=0).null_silhouette[0]
    options = {"n_null": 0, "random_state": 0}
    again = [
        unit_communities(embedding_of(shuffled_units(values, seed)), **options).silhouette[0] for seed in range(50)
    ]
    # The standard error of the difference of both means.
    error = np.hypot(np.std(null) / 200**0.5, np.std(again) / 50**0.5)
    assert abs(np.mean(null) - np.mean(again)) < 4 * error


# ---------------------------------------------------------------- formulas


def test_distances_are_those_of_the_paths():
    """The positions of a picture are divided by the largest coordinate."""
    values = planted(shape=(5, 3))
    points = unit_points.unit_points(embedding_of(values))
    squares = unit_points.path_squares(points, points.members(slice(3, 9)))
    paths = values[1:3].transpose(2, 0, 1, 3).reshape(15, -1) / np.abs(values).max()
    assert squares == pytest.approx(((paths[:, None] - paths) ** 2).sum(-1), abs=1e-9 * squares.max())


def test_distances_of_states_are_those_of_z_scores():
    values = planted_states(shape=(4, 2))
    points = unit_points.unit_points(values)
    squares = unit_points.path_squares(points, points.members(slice(0, 8)))
    z = (values - values.mean(-1, keepdims=True)) / values.std(-1, keepdims=True)
    paths = z.transpose(2, 0, 1, 3).reshape(15, -1)
    assert squares == pytest.approx(((paths[:, None] - paths) ** 2).sum(-1), abs=1e-9 * squares.max())


@pytest.mark.parametrize("n_samples", [4, 40])
def test_shuffled_paths_have_the_shuffled_units_of_each_slice(n_samples):
    """With two slices a pair of units has one of the sums of a distance in the first and a distance in the second."""
    values = planted_states(shape=(2, 1), n_samples=n_samples, groups=np.arange(4))
    points = unit_points.unit_points(values)
    first, second = (unit_points.path_squares(points, points.members(slice(s, s + 1))) for s in (0, 1))
    sums = (first[..., None, None] + second)[~np.eye(4, dtype=bool)][:, ~np.eye(4, dtype=bool)].ravel()
    draws = unit_points.shuffled_squares(points, points.members(slice(0, 2)), 30, np.random.default_rng(0))
    pairs = draws[(slice(None), *np.triu_indices(4, 1))]
    assert np.abs(pairs[..., None] - sums).min(-1).max() < 1e-9
    assert pairs.sum(1) == pytest.approx((first + second).sum() / 2)
    assert len(np.unique(pairs.round(6))) > 30  # of the 36 sums


@pytest.mark.parametrize("elements", [1, 100, 10**6])
def test_blocks_of_any_size_give_the_same(monkeypatch, elements):
    values = planted_states(shape=(4, 2))
    expected = unit_communities(values, **QUICK)
    monkeypatch.setattr(unit_points, "BLOCK_ELEMENTS", elements)
    result = unit_communities(values, **QUICK)
    assert result.community.tolist() == expected.community.tolist()
    assert result.modularity == pytest.approx(expected.modularity, abs=1e-12)
    assert result.silhouette == pytest.approx(expected.silhouette, abs=1e-12)


def test_the_affinity_is_that_of_the_reference():
    values = planted_states(shape=(4, 2))
    points = unit_points.unit_points(values)
    summed = unit_points.summed_affinity(points, points.members(slice(2, 8)))
    z = reference.normalize(values)
    assert summed == pytest.approx(reference.intraslice_affinity(z[2:8]).sum(0), abs=1e-12)


def test_agreement_is_that_of_scikit_learn():
    result = unit_communities(planted_states(), groups=GROUPS % 2, n_null=0, random_state=0)
    assert result.nmi[0] == pytest.approx(normalized_mutual_info_score(GROUPS % 2, result.community[0]))
    assert np.isnan(result.p[0]) and result.null_silhouette.shape == (1, 0)


def test_turning_and_shifting_each_slice_alike_changes_nothing():
    values = planted()
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(2, 2)))
    first, second = (unit_communities(embedding_of(v), **QUICK) for v in (values, 1e-30 * (values @ turn + 7)))
    assert second.community.tolist() == first.community.tolist()
    # 7 / 0.3 of a coordinate's digits are lost by the shift.
    assert second.silhouette == pytest.approx(first.silhouette, abs=1e-9)
    assert second.modularity == pytest.approx(first.modularity, abs=1e-6)


# ---------------------------------------------------------------- epoch by epoch


def test_each_epoch_has_a_partition_whose_numbers_stay():
    groups = np.array([0] * 4 + [1] * 8)
    values = planted(groups=groups, shape=(8, 3), noise=0.02)
    switched = planted(seed=1, groups=1 - groups, shape=(8, 3), noise=0.02)
    values[4:] = switched[4:]  # another picture with the same groups
    result = unit_communities(embedding_of(values), "each", 2, n_null=0, random_state=0)
    assert result.community.tolist() == [groups.tolist()] * 8
    assert result.epoch_stability.tolist() == [1.0] * 7
    assert result.epoch.tolist() == list(range(8)) and result.n_slices.tolist() == [3] * 8


def test_an_epoch_by_its_label_is_the_row_of_each():
    epoch = np.array(["2026-01-01", "2026-02-01", "2026-03-01"], dtype="datetime64[D]")
    embedding = embedding_of(planted(shape=(3, 4)), epoch)
    every = unit_communities(embedding, "each", 3, n_null=0)
    for label in ("2026-02-01", np.datetime64("2026-02-01")):
        result = unit_communities(embedding, label, 3, n_null=0)
        assert result.epoch.tolist() == [epoch[1]]
        assert result.silhouette[0] == pytest.approx(every.silhouette[1])
        assert json.loads(json.dumps(result.to_dict()))["epoch"] == ["2026-02-01"]
    text = embedding_of(planted(shape=(3, 4)), np.array(["a", "b", "c"]))
    assert unit_communities(text, "b", n_null=0).epoch.tolist() == ["b"]


def test_shuffling_a_single_slice_tests_nothing():
    result = unit_communities(embedding_of(planted(shape=(3, 1))), "each", **QUICK)
    assert np.isnan(result.p).all() and np.isnan(result.null_silhouette).all()
    result = unit_communities(embedding_of(planted(shape=(3, 1), noise=0.01)), "each", null="normal", **QUICK)
    assert not np.isnan(result.p).any()


# ---------------------------------------------------------------- units without a place, few units, equal units


def test_a_unit_without_a_place_at_an_epoch_has_no_community_there():
    values = planted(shape=(4, 3))
    values[1, :, 2] = np.nan
    values[2, 0, 7] = np.nan
    result = unit_communities(embedding_of(values), "each", 3, n_null=0, random_state=0)
    assert np.flatnonzero(result.community[1] < 0).tolist() == [2] and (result.community[[0, 2, 3]] >= 0).all()
    assert result.n_slices.tolist() == [3, 3, 2, 3]
    whole = unit_communities(embedding_of(values), groups=GROUPS, **QUICK)
    assert whole.n_slices.tolist() == [12 - 4] and whole.ari[0] == 1.0


def test_an_epoch_without_any_place_has_no_partition():
    values = planted(shape=(3, 2))
    values[1] = np.nan
    result = unit_communities(embedding_of(values), "each", 3, groups=GROUPS, **QUICK)
    assert (result.community[1] == -1).all() and result.n_slices.tolist() == [2, 0, 2]
    assert np.isnan(result.silhouette[1]) and np.isnan(result.epoch_stability).all()
    assert "15 units at 3 epoch(s)" in repr(result)


def test_samples_that_a_unit_lacks_leave_the_slice():
    values, mask = planted_states(), np.ones((10, 3, 15, 20), dtype=bool)
    mask[2, 1, 3, 5:9] = False
    hidden = np.where(mask, values, 1e6)
    result = unit_communities(as_trace(hidden, mask=mask), groups=GROUPS, **QUICK)
    assert result.ari[0] == 1.0 and result.n_slices.tolist() == [30]
    points = unit_points.unit_points(as_trace(hidden, mask=mask))
    members = points.members(slice(7, 8))  # epoch 2, time step 1
    z = reference.normalize(values, mask=mask)[7][:, [*range(5), *range(9, 20)]]
    expected = ((z[:, None] - z) ** 2).sum(-1)
    assert unit_points.path_squares(points, members) == pytest.approx(expected, abs=1e-9)
    mask[2, 1, 3] = False
    assert unit_communities(as_trace(hidden, mask=mask), **QUICK).n_slices.tolist() == [29]


@pytest.mark.parametrize("n_units", [1, 2])
def test_units_that_are_too_few_are_one_community(n_units):
    embedding = embedding_of(planted()[:, :, :n_units])
    result = unit_communities(embedding, groups=np.arange(n_units), **QUICK)
    assert result.community.tolist() == [[0] * n_units]
    assert np.isnan([result.silhouette[0], result.p[0], result.modularity[0], result.ari[0]]).all()
    assert repr(result).endswith("no p)")


def test_two_units_may_be_two_communities():
    assert unit_communities(embedding_of(planted()[:, :, 4:6]), n=2, **QUICK).community.tolist() == [[0, 1]]


@pytest.mark.parametrize("method", ["kmeans", "hierarchical"])
def test_equal_units_are_never_divided(method):
    values = np.repeat(planted_states(groups=np.arange(3)), 4, axis=2)
    result = unit_communities(values, n=8, method=method, n_null=5, random_state=0)
    assert result.community.tolist() == [[0] * 4 + [1] * 4 + [2] * 4]
    assert result.silhouette[0] == 1.0
    constant = unit_communities(np.ones((4, 2, 5, 6)), n_null=5)
    assert constant.community.tolist() == [[0] * 5] and np.isnan(constant.silhouette[0])


def test_draws_that_are_the_data_count_as_high():
    """Three units in two slices have 6 arrangements, one of which is that of the data: p is about 1 / 6 or more.

    Less than 12 of 199 draws are that one with a probability below 1e-5. Its distances round in another way.
    """
    rng = np.random.default_rng(1)
    for _ in range(20):
        result = unit_communities(rng.normal(size=(2, 1, 3, 5)), n_seeds=1, n_null=199, random_state=0)
        assert result.p[0] > 0.06


def test_noise_of_hdbscan_has_no_community():
    values = planted(noise=0.1)
    values[:, :, 14] = 100 * np.random.default_rng(0).normal(size=(12, 3, 2))
    result = unit_communities(embedding_of(values), method="hdbscan", groups=GROUPS, **QUICK)
    assert result.community[0, 14] == -1 and result.ari[0] == 1.0 and np.isnan(result.seed_stability[0])


# ---------------------------------------------------------------- the call


def test_a_stored_trace_gives_the_same(tmp_path):
    values = planted_states().astype(np.float32)
    save_trace(tmp_path / "trace.npy", as_trace(values))
    stored = load_trace(tmp_path / "trace.npy", stream=True)
    assert not isinstance(stored.data, torch.Tensor)
    first, second = (unit_communities(of, "each", **QUICK) for of in (values, stored))
    np.testing.assert_equal(second.to_dict(), first.to_dict())


def test_a_seed_gives_the_same_and_is_kept():
    embedding = embedding_of(planted())
    first = unit_communities(embedding, n_null=5)
    again = unit_communities(embedding, n_null=5, random_state=first.settings["random_state"])
    assert again.null_silhouette.tolist() == first.null_silhouette.tolist()


def test_the_callback_counts_partitions():
    calls = []
    unit_communities(embedding_of(planted(shape=(3, 2))), "each", n_null=0, callback=lambda *call: calls.append(call))
    assert calls == [("communities", done, 3) for done in (1, 2, 3)]


def test_tables_have_a_row_for_each_unit():
    pytest.importorskip("pandas")
    embedding = embedding_of(planted(shape=(3, 2)))
    assert unit_communities(embedding, n_null=0).to_frame().shape == (15, 2)
    assert list(unit_communities(embedding, "each", n_null=0).to_frame()) == ["epoch", "unit", "community"]
    assert "at 3 epoch(s)" in repr(unit_communities(embedding, "each", **QUICK))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epoch": 77}, r"epoch=77 is no label of an epoch; accepted: None, 'each', or one of 0, 1, 2, ..."),
        ({"epoch": "all"}, "epoch='all' is no label"),
        ({"epoch": [1, 2]}, "is no label"),
        ({"method": "spectral"}, "method='spectral' is unknown"),
        ({"null": "phases"}, "null='phases' is unknown"),
        ({"n": 16}, "n=16 is out of range; it must be an integer >= 1 and <= 15"),
        ({"n": 3, "method": "hdbscan"}, "n=3 has no meaning"),
        ({"n_seeds": 0}, "n_seeds=0 is out of range"),
        ({"n_null": -1}, "n_null=-1 is out of range"),
        ({"groups": [0, 1]}, r"groups has shape \(2,\); accepted: \(15,\)"),
        ({"groups": [None] + ["a"] * 14}, "groups cannot be ordered .*; accepted: numbers, or text"),
        ({"random_state": -1}, "random_state=-1"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(InputError, match=message):
        unit_communities(embedding_of(planted()), **options)


def test_bad_dates_and_types_are_named():
    dated = embedding_of(planted(shape=(2, 1)), np.array(["2026-01-01", "2026-02-01"], dtype="datetime64[D]"))
    with pytest.raises(InputError, match="epoch='soon' is no date"):
        unit_communities(dated, "soon")
    with pytest.raises(InputTypeError, match="callback"):
        unit_communities(dated, callback=3)
