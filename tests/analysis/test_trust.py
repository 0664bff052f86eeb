"""Trust: ranks as scikit-learn has them, and pictures whose faithfulness is known."""

import re

import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import connected_components
from sklearn.manifold import trustworthiness

import mmphate_gpu as mp
from mmphate_gpu import Embedding, InputError, InputTypeError, as_trace
from mmphate_gpu.analysis import neighborhood_preservation, preservation, trust
from mmphate_gpu.analysis import node_sets as node_sets_module
from mmphate_gpu.analysis.node_distances import NodeDistances, geodesic_spearman, picture_scale, stress_of
from mmphate_gpu.analysis.node_sets import node_points, node_sets
from mmphate_gpu.analysis.rank_quality import rank_quality
from mmphate_gpu.analysis.refit import disparity
from mmphate_gpu.slices import SliceLayout
from mmphate_gpu.trace import stored


def walk(shape=(30, 9, 6), seed=0):
    return np.random.default_rng(seed).standard_normal(shape).cumsum(axis=0)


def z_scored(values):
    return (values - values.mean(-1, keepdims=True)) / (values.std(-1, ddof=1, keepdims=True) + 1e-8)


def random_picture(n, seed=1):
    return np.random.default_rng(seed).standard_normal((n, 2))


def curve(n_slices=60, n_units=4, n_samples=40):
    """Units that walk along one arc in sample space, and the angle of each node, which unrolls the arc."""
    angle = np.linspace(0, 3, n_slices)[:, None] + 0.01 * np.arange(n_units)
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(np.column_stack([np.ones(n_samples), rng.standard_normal((n_samples, 2))]))[0][:, 1:]
    arc = np.stack([np.cos(angle), np.sin(angle)], -1) @ basis.T  # of mean 0 and equal deviation over samples
    return arc, np.column_stack([angle.ravel(), np.zeros(angle.size)])


# ---------------------------------------------------------------- ranks


@pytest.mark.parametrize("k", [1, 3, 10])
def test_ranks_within_slices_and_units_are_those_of_scikit_learn(k):
    trace, picture = walk(), random_picture(270)
    points, places = z_scored(trace), picture.reshape(30, 9, 2)
    result = rank_quality(node_sets(as_trace(trace), picture), [k])
    intra, inter = min(k, 4), k  # 4 is the largest number of neighbors that is defined for 9 units
    for scores, (first, second) in zip(result, ((points, places), (places, points)), strict=True):
        slices = [trustworthiness(first[s], second[s], n_neighbors=intra) for s in range(30)]
        units = [trustworthiness(first[:, m], second[:, m], n_neighbors=inter) for m in range(9)]
        # Both sum the same integers, in another order.
        np.testing.assert_allclose(scores[:, 0], [np.mean(slices), np.mean(units)], rtol=1e-12)


def test_sample_space_itself_keeps_everything():
    trace = walk()
    result = trust(trace, z_scored(trace).reshape(270, 6), k=(3, 10), random_state=0)
    assert np.array_equal(result.trustworthiness, np.ones((2, 2)))
    assert np.array_equal(result.continuity, np.ones((2, 2)))
    assert np.array_equal(result.inter, [1, 1]) and np.array_equal(result.intra, [1, 1])
    assert result.stress == pytest.approx(0, abs=1e-7)  # the root of a sum of squared roundings
    np.testing.assert_allclose([*result.stress_by_epoch, *result.stress_by_timestep], 0, atol=1e-7)


def test_a_random_picture_is_at_chance():
    """A random node of n - 1 others has a mean rank of n / 2, and for k = 1 the worst rank is n - 1."""
    trace = walk((100, 5, 6))
    result = trust(trace, random_picture(500), k=1, random_state=0)
    expected = 1 - np.mean(np.arange(99)) / 98  # of a neighbor of random rank: 0.5
    # 500 nodes whose scores have a deviation below 0.3, and those of a unit are not independent.
    assert result.trustworthiness[1, 0] == pytest.approx(expected, abs=0.08)
    assert result.continuity[1, 0] == pytest.approx(expected, abs=0.08)
    assert abs(result.geodesic_spearman) < 0.1
    assert result.inter[0] < 0.05  # chance is 1 / 99


def test_masked_nodes_count_among_those_that_they_can_be_compared_with():
    """Units 0 to 3 have the first half of the samples, and units 4 to 8 the second half: two sets that never meet."""
    trace, picture = walk((4, 9, 6)), random_picture(36)
    mask = np.zeros(trace.shape, dtype=bool)
    mask[:, :4, :3] = mask[:, 4:, 3:] = True
    result = rank_quality(node_sets(as_trace(trace, mask=mask), picture), [1])[0]
    places = picture.reshape(4, 9, 2)
    halves = ((slice(0, 4), slice(0, 3)), (slice(4, 9), slice(3, 6)))
    scores = [
        (trustworthiness(z_scored(trace[s, units][:, samples]), places[s, units], n_neighbors=1), len(places[s, units]))
        for s in range(4)
        for units, samples in halves
    ]
    values, sizes = np.array(scores).T
    assert result[0, 0] == pytest.approx(np.average(values, weights=sizes), rel=1e-12)


def test_one_and_two_units_have_no_ranks():
    result = rank_quality(node_sets(as_trace(walk((12, 2, 6))), random_picture(24)), [1])
    assert np.isnan(result[0][0]).all() and np.isfinite(result[0][1]).all()


def test_a_node_without_a_place_counts_nowhere():
    trace, picture = walk(), random_picture(270)
    picture[3::9] = np.nan  # unit 3
    others = np.delete(np.arange(9), 3)
    kept = trust(trace[:, others], picture.reshape(30, 9, 2)[:, others].reshape(240, 2), k=2, random_state=0)
    result = trust(trace, picture, k=2, random_state=0)
    np.testing.assert_allclose(result.trustworthiness, kept.trustworthiness, rtol=1e-12)  # sums in another order
    assert (result.intra, result.inter) == (kept.intra, kept.inter)
    assert np.isfinite(result.stress_by_epoch).all() and np.isfinite(result.geodesic_spearman)


# ---------------------------------------------------------------- samples of nodes, blocks


def test_a_sample_of_slices_asks_these_slices_only():
    trace, picture = as_trace(walk((200, 5, 6))), random_picture(1000)
    sets = node_sets(trace, picture, n_slices=50, random_state=0)
    near = z_scored(trace.data[:, 0].numpy())
    places = picture.reshape(200, 5, 2)
    shares = []
    for unit in range(5):
        for s in sets.slices:
            pair = [np.linalg.norm(x[:, unit] - x[s, unit], axis=1) for x in (near, places)]
            shares.append(len(np.intersect1d(*(np.argsort(d)[1:8] for d in pair))) / 7)
    assert len(sets.slices) == 50
    assert preservation.preserved(sets, [7])[0][1] == pytest.approx(np.mean(shares), abs=1e-12)


@pytest.mark.parametrize("masked", [False, True])
def test_a_trace_on_disk_gives_the_same(tmp_path, masked):
    values = walk((8, 5, 6, 7))
    mask = np.random.default_rng(3).random(values.shape) < 0.9 if masked else None
    trace = as_trace(values, mask=mask)
    mp.save_trace(tmp_path / "t.npz", trace)
    on_disk = mp.load_trace(tmp_path / "t.npz", stream=True)
    assert not isinstance(on_disk.data, torch.Tensor)
    options = {"k": 3, "n_slices": 10, "random_state": 0}
    first, second = (trust(t, random_picture(240), **options).to_dict() for t in (trace, on_disk))
    assert first == second


def test_blocks_without_a_chosen_node_are_passed(monkeypatch):
    """A large trace has more blocks than slices that are asked."""
    options = {"k": 3, "n_slices": 4, "n_nodes": 20, "random_state": 0}
    whole = trust(walk(), random_picture(270), **options)
    monkeypatch.setattr(stored, "BLOCK_ELEMENTS", 60)
    monkeypatch.setattr(node_sets_module, "GROUP_ELEMENTS", 60)
    result = trust(walk(), random_picture(270), **options)
    for name in ("intra", "inter", "trustworthiness", "continuity", "stress_by_epoch", "geodesic_spearman"):
        np.testing.assert_allclose(getattr(result, name), getattr(whole, name), rtol=1e-12)  # sums in another order


def test_a_picture_without_any_place_has_no_measure():
    result = trust(walk(), np.full((270, 2), np.nan), k=2)
    assert np.isnan([*result.intra, *result.inter, result.stress, result.geodesic_spearman]).all()


def test_points_of_nodes_are_those_of_the_trace():
    trace = walk((7, 3, 5))
    nodes = np.array([4, 20, 0, 4])
    points = node_points(as_trace(trace), nodes).numpy()
    np.testing.assert_allclose(points, z_scored(trace).reshape(21, 5)[nodes], rtol=1e-12)
    assert np.array_equal(node_points(as_trace(trace), nodes, normalize=False), trace.reshape(21, 5)[nodes])


def test_raw_preservation_sees_the_size_of_activity():
    """M-PHATE's form: units that differ by a factor are equal when z-scored, and apart as they were recorded."""
    rng = np.random.default_rng(0)
    size = rng.uniform(1, 5, (40, 6))
    trace = size[..., None] * np.array([1.0, -1.0, 2.0, -2.0])
    picture = size.reshape(-1, 1)
    assert neighborhood_preservation(trace, picture, 3, normalize=False) == (1.0, 1.0)
    assert max(neighborhood_preservation(trace, picture, 3)) < 1


# ---------------------------------------------------------------- distances


def test_geodesics_of_a_curve_are_its_arc_length():
    trace, unrolled = curve()
    result = trust(trace, unrolled, k=3, random_state=0)
    # Paths cut corners of the arc, and jump between neighbors.
    assert result.geodesic_spearman > 0.999 and result.geodesic_share == 1
    straight = trust(trace, np.sin(unrolled), k=3, random_state=0)  # the arc folded onto a chord
    assert straight.geodesic_spearman < 0.7


def test_geodesics_by_hand():
    """Two groups of a line that no path joins: 12 of the 20 pairs from the first two sources count, in both orders."""
    place = np.array([0.0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110])
    near = np.abs(place[:, None] - place)
    distances = NodeDistances(near[None], near[None] ** 2)  # each of 11 nodes has the 10 others as neighbors
    correlation, share = geodesic_spearman(distances, n_sources=2)
    assert correlation == pytest.approx(1) and share == 10 / 21


def test_equal_points_are_joined_and_a_picture_of_one_place_has_no_correlation():
    near = np.zeros((1, 14, 14))
    assert (
        np.isnan(geodesic_spearman(NodeDistances(near, near))[0])
        and geodesic_spearman(NodeDistances(near, near))[1] == 1
    )
    near = np.abs(np.arange(14.0)[:, None] - np.arange(14))[None]
    distances = NodeDistances(near, np.zeros_like(near))
    assert picture_scale(distances) == 0 and stress_of(distances, 0.0).tolist() == [1]


def test_stress_by_hand():
    """Distances 3 in both regions, drawn as 1 and as 2: scale (3 + 6) / (1 + 4), and the rest is stress."""
    near = np.full((2, 2, 2), 3.0) * (1 - np.eye(2))
    distances = NodeDistances(near, near / 3 * np.array([1, 2])[:, None, None])
    assert picture_scale(distances) == pytest.approx(9 / 5)
    np.testing.assert_allclose(stress_of(distances, 9 / 5), [1.2 / 3, 0.6 / 3])


def test_the_epoch_that_is_drawn_wrong_has_the_most_stress():
    trace = walk((12, 5, 9, 6))
    picture = z_scored(trace).reshape(12, 45, 6)
    picture[7] = np.random.default_rng(0).permutation(picture[7])
    result = trust(trace, picture.reshape(540, 6), k=3, random_state=0)
    assert result.stress_by_epoch.argmax() == 7 and result.stress_by_epoch[7] > 5 * np.median(result.stress_by_epoch)
    assert result.stress_by_timestep.shape == (5,)


def test_stress_does_not_depend_on_the_scale_of_raw_states():
    """Numbers below 1e-100 are scaled before they are squared, regions and all nodes alike."""
    sizes = np.exp(4 * np.random.default_rng(0).standard_normal((6, 1, 1, 1)))
    trace = sizes * walk((6, 2, 5, 4))
    options = {"k": 3, "normalize": False, "n_nodes": 4, "random_state": 0}
    first, second = (trust(states, random_picture(60), **options) for states in (trace, trace * 1e-150))
    np.testing.assert_allclose(second.stress_by_epoch, first.stress_by_epoch, rtol=1e-12)  # products with 1e-150 round
    np.testing.assert_allclose(second.stress_by_timestep, first.stress_by_timestep, rtol=1e-12)


# ---------------------------------------------------------------- islands and seeds


def test_islands_are_the_components_of_the_graph():
    """Units of two groups that never come near: without links between groups, each is an island."""
    rng = np.random.default_rng(0)
    patterns = 4 * rng.standard_normal((2, 12))
    trace = 0.05 * rng.standard_normal((40, 6, 12)).cumsum(0) + patterns[np.arange(6) // 3]
    with pytest.warns(UserWarning, match="the diffusion graph has 2 islands"):
        operator = mp.MMPHATE(n_landmark=None, random_state=0).fit(trace)
    result = trust(trace, operator.result_, estimator=operator, k=3, random_state=0)
    number, labels = connected_components(mp.to_scipy(operator.affinity_))
    assert result.islands == number == 2
    np.testing.assert_allclose(result.island_shares, np.sort(np.bincount(labels) / 240)[::-1])
    assert trust(trace, operator.result_, k=3).islands is None


def test_the_pictures_of_seeds_are_compared_in_pairs():
    trace, calls = walk((30, 4, 5)), []
    estimator = mp.MMPHATE(n_landmark=30, callback=lambda *_: calls.append("fit"))
    options = {"k": 3, "seeds": 3, "estimator": estimator, "random_state": 0}
    result = trust(trace, random_picture(120), callback=lambda *call: calls.append(call), **options)
    assert result.seed_procrustes.shape == (3,) and (result.seed_procrustes >= 0).all()
    assert calls == [("trust", done, 6) for done in range(1, 7)]
    again = trust(trace, random_picture(120), **options)
    assert again.to_dict() == result.to_dict()


def test_disparity_does_not_see_similarities():
    places = random_picture(40)
    turned = 3 * places @ np.array([[0.0, 1.0], [-1.0, 0.0]]) + 5
    assert disparity(places, turned) == pytest.approx(0, abs=1e-12)
    turned[:3] = np.nan
    assert disparity(places, turned) == pytest.approx(0, abs=1e-12)
    assert disparity(places, random_picture(40, 2)) > 0.8
    assert np.isnan(disparity(places, np.ones((40, 2))))


# ---------------------------------------------------------------- the result, and bad input


def test_the_result_is_a_table_and_a_line():
    result = trust(walk(), random_picture(270), k=(3, 10), random_state=0)
    frame = result.to_frame()
    assert frame["scope"].tolist() == ["intra", "intra", "inter", "inter"] and frame["k"].tolist() == [3, 10, 3, 10]
    assert frame["preservation"].tolist() == [*result.intra, *result.inter]
    assert "\n" not in repr(result)
    assert re.search(
        r"of 3 neighbors 0.\d\d \(chance 0.38\) are kept within slices and 0.\d\d \(chance 0.10\)", repr(result)
    )
    assert frame["chance"].tolist() == [3 / 8, 1, 3 / 29, 10 / 29]  # 9 units and 30 slices
    assert np.isnan(trust(walk((30, 1, 9)), random_picture(30), k=3).chance[0, 0])  # a unit alone has no others
    assert result.settings["random_state"] == 0


def test_k_is_at_most_the_number_of_other_slices():
    assert trust(walk((12, 3, 4)), random_picture(36), k=(3, 40)).preservation_k.tolist() == [3, 11]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"seeds": 1}, InputError, "seeds=1 gives no pair"),
        ({"seeds": -1}, InputError, "seeds=-1 is out of range"),
        ({"n_slices": 0}, InputError, "n_slices=0 is out of range"),
        ({"n_nodes": 2}, InputError, "n_nodes=2 is out of range"),
        ({"k": 0}, InputError, "k=0 is out of range"),
        ({"estimator": "MMPHATE"}, InputTypeError, "estimator is a str; accepted: an MMPHATE"),
        ({"callback": 3}, InputTypeError, "callback=3 must be callable"),
        ({"random_state": -1}, InputError, "random_state=-1 is out of range"),
    ],
)
def test_bad_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        trust(walk(), random_picture(270), **options)


def test_a_picture_or_a_fit_of_another_trace_is_refused():
    picture = Embedding(random_picture(270), SliceLayout.of_shape(15, 2, 9))
    with pytest.raises(InputError, match=r"embedding has the .* \(15, 2, 9\); accepted: \(30, 1, 9\)"):
        trust(walk(), picture)
    fitted = mp.MMPHATE(n_landmark=30, random_state=0).fit(walk((30, 4, 5)))
    with pytest.raises(InputError, match=r"fitted to .* \(30, 1, 4\); accepted: .* \(30, 1, 9\)"):
        trust(walk(), random_picture(270), estimator=fitted)
