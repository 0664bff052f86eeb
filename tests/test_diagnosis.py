"""What a fit says of its picture: equal states, islands, nodes without interslice neighbors, a t at the end."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

import mmphate_gpu as mp
from mmphate_gpu import MMPHATE, PictureWarning
from mmphate_gpu.diagnosis import Diagnosis
from mmphate_gpu.params import Params

SIGNS = {
    "reduce": ["constant"],
    "affinity": ["share_without_interslice_neighbor"],
    "landmarks": ["islands", "share_outside_largest_island"],
    "entropy": ["t_at_end"],
    "distances": ["collapsed"],
}


def fit(trace, **options):
    return MMPHATE(**{"normalize": False, "interslice_knn": 5, "random_state": 0} | options).fit(trace)


def signs(op: MMPHATE) -> dict[str, object]:
    """All signs in the report; checks the stage of each."""
    reports = {report["stage"]: report for report in op.report_}
    return {name: reports[stage][name] for stage, names in SIGNS.items() for name in names}


def two_clusters() -> np.ndarray:  # (S, M, P), 30 slices near the origin and 10 far away
    trace = np.random.default_rng(0).normal(size=(40, 3, 4))
    trace[30:] += 1000
    return trace


def scattered() -> np.ndarray:  # (S, M, P), 30 slices near the origin and 20 far from all others
    trace = np.random.default_rng(0).normal(size=(50, 3, 4))
    trace[30:] += 1e3 * np.arange(1, 21)[:, None, None]
    return trace


def test_a_report_gives_the_sentence_again():
    """Also after JSON, as `mmphate-gpu report` reads it; with a sign of a wrong type nothing is known."""
    with pytest.warns(PictureWarning) as caught:
        op = fit(two_clusters())
    stages = json.loads(json.dumps(op.report_, default=str))
    params = Params(normalize=False, interslice_knn=5)
    assert Diagnosis.of_stages(stages).sentence(params, op.t_) == str(caught[0].message)
    for wrong in (
        [],
        stages[:-5],
        [*stages, {"islands": "2"}],
        [*stages, {"t_at_end": 0}],
        [*stages, {"islands": True}],
    ):
        assert Diagnosis.of_stages(wrong) is None


def test_two_islands_are_counted_and_named_at_the_line_of_the_caller():
    with pytest.warns(PictureWarning) as caught:
        op = fit(two_clusters())
    (warning,) = caught
    assert warning.filename == __file__
    assert str(warning.message) == (
        "this picture may mislead: the diffusion graph has 2 islands, whose places relative to each other are "
        "arbitrary, and 25.0% of the nodes are outside the largest; an interslice_knn above 5 or "
        "landmarks='stratified' or islands='states' may help"
    )
    assert signs(op) == {
        "constant": False,
        "share_without_interslice_neighbor": 0,
        "islands": 2,
        "share_outside_largest_island": 0.25,
        "t_at_end": False,
        "collapsed": False,
    }


def test_the_setting_that_the_sentence_names_joins_the_islands():
    op = fit(two_clusters(), interslice_knn=35)  # a slice has 29 others in its cluster at most
    assert signs(op)["islands"] == 1 and signs(op)["share_outside_largest_island"] == 0


@pytest.mark.parametrize("storage", ["sparse", "tiles", "lazy"])
@pytest.mark.filterwarnings("ignore:this picture may mislead")
def test_nodes_without_an_interslice_neighbor_are_counted_in_every_form(storage):
    report = signs(fit(scattered(), storage=storage))
    assert report["share_without_interslice_neighbor"] == 0.4 and report["islands"] == 21


def test_nodes_without_an_interslice_neighbor_are_told_even_in_one_island():
    trace = np.random.default_rng(0).normal(size=(50, 2, 4))
    trace[30:, 0] += 1e3 * np.arange(1, 21)[:, None]  # unit 0 alone is scattered; unit 1 links the slices
    with pytest.warns(PictureWarning, match="mislead: 20.4% of the nodes have no interslice neighbor; an interslice"):
        op = fit(trace[1:])  # 20 of 98 nodes
    assert signs(op)["islands"] == 1


def test_few_nodes_outside_the_largest_island_are_only_reported():
    trace = np.random.default_rng(0).normal(size=(150, 2, 4))
    trace[-1] += 1000
    report = signs(fit(trace))
    assert report["islands"] == 2 and report["share_outside_largest_island"] == pytest.approx(1 / 150)


def test_a_t_at_the_end_of_its_range():
    trace = np.random.default_rng(0).normal(size=(40, 4, 10)).cumsum(0)
    with pytest.warns(PictureWarning, match="mislead: t=2 is the end of its range; a t_max above 4 may help"):
        op = fit(trace, t_max=4)
    assert signs(op)["t_at_end"]
    assert not signs(fit(trace, t_max=10))["t_at_end"]
    assert not signs(fit(trace, t_max=4, t=2))["t_at_end"]  # the t of the user is no end of a range


@pytest.mark.parametrize("n_samples", [8, 120])  # the second is reduced to 100 components
def test_states_that_are_all_equal(n_samples):
    level = np.array([0.1, 0.7, 5, -2])[:, None]  # of each unit
    dead = np.broadcast_to(level, (30, 4, n_samples)).copy()
    with pytest.warns(PictureWarning, match="the z-scored states of all nodes are equal, .*; normalize=False may help"):
        assert signs(fit(dead, normalize=True))["constant"]
    assert not signs(fit(dead))["constant"]
    with pytest.warns(PictureWarning, match="mislead: the states of all nodes .*; a trace whose states differ may"):
        fit(np.full_like(dead, 0.1))
    dead[7, 2, 3] += 1e-9
    assert not signs(fit(dead, normalize=True))["constant"]


def test_left_out_nodes_of_a_masked_trace_do_not_count():
    mask = np.ones((40, 3, 4), dtype=bool)
    mask[:8] = False  # a fifth of the nodes has no sample
    with pytest.warns(UserWarning) as caught:
        op = fit(mp.as_trace(two_clusters(), mask=mask))
    assert [issubclass(warning.category, PictureWarning) for warning in caught] == [False, True]
    assert signs(op)["share_outside_largest_island"] == 10 / 32
    assert signs(op)["share_without_interslice_neighbor"] == 0


def test_a_refit_says_it_again_and_a_filter_silences_it():
    op = MMPHATE(normalize=False, interslice_knn=5, random_state=0)
    for t in (3, 4):
        with pytest.warns(PictureWarning, match="2 islands"):
            op.set_params(t=t).fit(two_clusters())
    assert op.report_[3]["reused"] and op.report_[3]["islands"] == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", PictureWarning)
        op.set_params(t=5).fit(two_clusters())


def test_healthy_fits_say_nothing():
    """Every warning is an error in the tests."""
    op = MMPHATE(random_state=0).fit(mp.datasets.bifurcation("hopf", n_epochs=12, n_timesteps=8))
    assert signs(op) == dict.fromkeys(signs(op), 0) | {"islands": 1}


class Recording:
    """A source of `LiveEmbedding` that has the first ``epochs`` of a trace."""

    def __init__(self, trace: np.ndarray) -> None:
        self.whole, self.epochs = trace, []

    def add_listener(self, listener) -> None:
        self.listener = listener

    def trace(self) -> mp.Trace:
        return mp.as_trace(self.whole[: len(self.epochs)])

    def snapshot(self) -> None:
        self.epochs.append(len(self.epochs))
        self.listener(self, self.epochs[-1])


def test_a_live_embedding_says_it_at_the_end_only():
    recording = Recording(two_clusters()[:, None])
    live = mp.LiveEmbedding(recording, refit_every=10, out=None, max_overhead=None, normalize=False, interslice_knn=5)
    for _ in range(40):  # the refit at the 32nd snapshot has two islands
        recording.snapshot()
    with pytest.warns(PictureWarning, match="2 islands"):
        live.close()


@pytest.mark.slow
def test_settings_that_the_sentence_names_help_on_the_bifurcation_suite():
    trace = mp.datasets.bifurcation("hopf_pitchfork", n_epochs=51, n_timesteps=40)
    options = {"n_landmark": 1000, "mds_solver": "classic", "random_state": 0}
    with pytest.warns(PictureWarning, match=r"islands, .*; 29\.\d% of the nodes have no interslice neighbor; an"):
        MMPHATE(**options).fit(trace)
    linked = signs(MMPHATE(**options, interslice_knn=100).fit(trace))
    assert linked["islands"] == 1 and linked["share_without_interslice_neighbor"] < 0.02
    # Landmarks that mix nodes of several islands join these, and nodes without a neighbor stay so.
    with pytest.warns(PictureWarning, match=r"mislead: 29\.\d% of the nodes have no interslice neighbor; an"):
        MMPHATE(**options, landmarks="stratified").fit(trace)
