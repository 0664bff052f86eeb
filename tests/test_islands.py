"""A fit whose graph has islands: places by their states, with ``islands="states"``."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import procrustes
from scipy.spatial.distance import cdist, pdist
from scipy.stats import spearmanr

import mmphate_gpu as mp
from mmphate_gpu import MMPHATE, PictureWarning

pytestmark = pytest.mark.filterwarnings("ignore:this picture may mislead")
RNG = np.random.default_rng


def rings(centers: np.ndarray, n: int = 30, noise: float = 0.05) -> np.ndarray:  # (k, P) -> (k n, 2, P)
    """Slices on rings of radius 1 around ``centers``; the units of a slice are near each other."""
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    ring = np.zeros((n, centers.shape[1]))
    ring[:, 0], ring[:, 1] = np.cos(angle), np.sin(angle)
    slices = (centers[:, None] + ring).reshape(-1, 1, centers.shape[1])
    return slices + noise * RNG(0).normal(size=(len(slices), 2, centers.shape[1]))


def fit(trace, **options) -> MMPHATE:
    settings = {"normalize": False, "interslice_knn": 4, "islands": "states", "random_state": 0, "device": "cpu"}
    return MMPHATE(**settings | options).fit(trace)


def counted(op: MMPHATE) -> int:
    return {report["stage"]: report for report in op.report_}["landmarks"]["islands"]


def middles_and_radii(op: MMPHATE, n_islands: int) -> tuple[np.ndarray, np.ndarray]:
    places = op.embedding_.reshape(n_islands, -1, op.n_components)
    middles = places.mean(1)
    return middles, np.linalg.norm(places - middles[:, None], axis=2).max(1)


def order_kept(op: MMPHATE, centers: np.ndarray) -> float:
    """Spearman's correlation of the distances between islands, before the graph was cut and in the picture."""
    return spearmanr(pdist(centers), pdist(middles_and_radii(op, len(centers))[0])).statistic


THREE = np.array([[0.0, 0, 0, 0], [12, 0, 0, 0], [12, 40, 0, 0]])
MANY = 30 * RNG(5).normal(size=(9, 2)) @ [[1, 0, 0, 0], [0, 1, 0, 0]]


@pytest.mark.parametrize("centers", [THREE, MANY], ids=["three", "more than dimensions"])
@pytest.mark.parametrize("options", [{"n_landmark": None}, {"landmarks": "stratified", "n_landmark": 240}], ids=str)
def test_far_rings_keep_the_order_of_their_distances_and_do_not_overlap(centers, options):
    op = fit(rings(centers), **options | ({"n_landmark": 120} if len(centers) == 3 and len(options) == 2 else {}))
    assert counted(op) == len(centers)
    # Measured: 1.0 for three rings; 0.90 and 0.99 for nine. With islands="potential": 0.09 and 0.11 for nine.
    assert order_kept(op, centers) > 0.85
    middles, radii = middles_and_radii(op, len(centers))
    assert (pdist(middles) > [a + b for i, a in enumerate(radii) for b in radii[i + 1 :]]).all()
    for island, place in enumerate(op.embedding_.reshape(len(centers), 30, 2, 2).mean(2)):
        nearest = cdist(place, place).argsort(1)[:, 1]
        apart = np.abs(nearest - np.arange(30)) % 30
        assert np.isin(apart, [1, 2, 28, 29]).mean() > 0.9, island  # the ring is one still


@pytest.mark.parametrize("n_components", [1, 2, 3])
def test_the_seed_decides_nothing_when_the_landmarks_are_the_same(n_components):
    trace, options = rings(MANY), {"landmarks": np.arange(540) // 6, "n_components": n_components}
    first, *others = (fit(trace, random_state=seed, **options).embedding_ for seed in (0, 1, 2))
    for other in others:
        assert procrustes(first, other)[2] < 1e-6  # SMACOF stops when the stress falls by less than 1e-6


def test_nothing_changes_in_a_graph_of_one_island():
    trace = RNG(0).normal(size=(30, 4, 10)).cumsum(0)
    by_states, usual = fit(trace, interslice_knn=10), fit(trace, interslice_knn=10, islands="potential")
    assert counted(by_states) == 1
    assert np.array_equal(by_states.embedding_, usual.embedding_) and by_states.stress_ == usual.stress_


def test_the_diffusion_is_the_same_with_islands():
    trace = rings(THREE)
    by_states, usual = fit(trace), fit(trace, islands="potential")
    assert by_states.t_ == usual.t_ and np.array_equal(by_states.diff_potential_, usual.diff_potential_)
    assert not np.array_equal(by_states.embedding_, usual.embedding_)


def test_an_island_within_another_stays_there():
    """One ring around a slice of its own. The states of the slice are in the middle, and so is its place."""
    trace = np.concatenate([rings(np.zeros((1, 4)), n=100, noise=0.01), np.zeros((1, 2, 4))])
    op = fit(trace, n_landmark=None)
    assert counted(op) == 2
    place, middle = op.embedding_[:200].reshape(100, 2, 2).mean(1), op.embedding_[200:].mean(0)
    assert np.linalg.norm(middle - place.mean(0)) < 0.2 * np.linalg.norm(place - place.mean(0), axis=1).min()


def test_islands_of_one_landmark():
    """40 near slices have one landmark, and so has each of 25 far slices: the picture is that of the states."""
    states = 100 * RNG(0).normal(size=(25, 1, 2)) @ np.eye(2, 4)
    trace = np.concatenate([RNG(1).normal(size=(40, 2, 4)), states.repeat(2, 1)])
    op = fit(trace, landmarks=np.maximum(np.arange(130) // 2 - 39, 0))
    assert counted(op) == op.n_landmark_ == 26
    measured = spearmanr(pdist(op.embedding_[80::2]), pdist(states[:, 0])).statistic
    usual = fit(trace, landmarks=np.maximum(np.arange(130) // 2 - 39, 0), islands="potential").embedding_[80::2]
    assert measured > 0.98 and abs(spearmanr(pdist(usual), pdist(states[:, 0])).statistic) < 0.3


def test_islands_of_equal_states_keep_a_gap():
    """Unit 0 visits the states of unit 1 at other slices, so that two islands have the same states."""
    walk = RNG(0).normal(size=(30, 1, 4)).cumsum(0)
    far = np.full_like(walk, 1e4) + np.arange(30)[:, None, None] * 1e3
    trace = np.concatenate([np.concatenate([walk, far], 1), np.concatenate([-far, walk], 1)])
    labels = np.arange(120)
    op = fit(trace, interslice_knn=3, n_landmark=None)
    clusters, operator = op.clusters_, op.landmark_op_
    assert np.array_equal(clusters, labels)
    first, second = op.embedding_[:60:2], op.embedding_[61::2]
    assert not operator[np.ix_(np.arange(0, 60, 2), np.arange(61, 120, 2))].any()
    gap = 0.1 * 2 * np.linalg.norm(op.embedding_ - op.embedding_.mean(0)) / np.sqrt(120) / np.sqrt(120)
    assert cdist(first, second).min() > 0.99 * gap


@pytest.mark.parametrize("options", [
    {"mds_solver": "classic"},
    {"mds_solver": "nonmetric"},
    {"mds_dist": "cosine"},
    {"gamma": 1},
    {"gamma": -1},
    {"n_components": 1},
    {"n_components": 5},
    {"t": 10**6},  # the islands collapse
    {"landmarks": np.arange(180) // 60, "n_components": 2},  # one landmark an island
    {"landmarks": np.arange(180) // 30, "n_components": 3},
], ids=str)  # fmt: skip
def test_every_setting_takes_places_from_states(options):
    op = fit(rings(THREE), **options)
    assert counted(op) == 3 and np.isfinite(op.embedding_).all() and np.isfinite(op.stress_)
    if options.get("n_components") != 1:
        assert order_kept(op, THREE) == 1


def test_a_masked_trace():
    trace = rings(THREE)
    mask = RNG(1).random(trace.shape) > 0.1
    mask[..., :2] = True  # a node that lacks the samples which tell the rings apart would link them
    mask[5], mask[40, 1] = False, False  # a slice and a node without a sample
    with pytest.warns(UserWarning, match="3 of 180 nodes"):
        op = fit(mp.as_trace(np.where(mask, trace, np.nan), mask=mask), landmarks="stratified", n_landmark=60)
    places = np.stack([np.nanmean(part, 0) for part in op.embedding_.numpy().reshape(3, -1, 2)])
    assert counted(op) >= 3 and pdist(places).argsort().tolist() == [0, 2, 1]
    assert op.embedding_.isnan().any(1).sum() == 3


def test_new_slices_go_to_their_island():
    op = fit(rings(THREE), n_landmark=None)
    places = op.transform(rings(THREE, n=10)).reshape(3, -1, 2).mean(1)
    middles, radii = middles_and_radii(op, 3)
    assert (np.linalg.norm(places - middles, axis=1) < 0.2 * radii).all()


def test_the_sentence_says_what_the_places_mean():
    with pytest.warns(PictureWarning, match="relative to each other are arbitrary, .* or islands='states' may help"):
        fit(rings(THREE), islands="potential")
    with pytest.warns(PictureWarning) as caught:
        fit(rings(THREE))
    text = str(caught[0].message)
    assert "3 islands, whose places relative to each other show how far their mean states are apart" in text
    assert "arbitrary" not in text and "islands=" not in text


@pytest.mark.slow
def test_the_seed_matters_less_on_the_bifurcation_suite():
    trace = mp.datasets.bifurcation("hopf", n_epochs=101).data.numpy()
    options = {"n_landmark": 2000, "n_components": 3, "normalize": True, "interslice_knn": 25, "t": 30}
    fits = [fit(trace, random_state=seed, islands="potential", **options) for seed in (0, 1)]
    apart, kept = {}, {}
    for islands in ("potential", "states"):
        first, second = (op.set_params(islands=islands).fit_transform(trace) for op in fits)
        apart[islands] = procrustes(first, second)[2]
        kept[islands] = mp.analysis.neighborhood_preservation(trace, first, 40)[1]
    assert apart["states"] < 0.5 * apart["potential"] and kept["states"] > kept["potential"]
