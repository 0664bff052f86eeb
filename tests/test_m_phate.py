"""M_PHATE runs scripts that were written for M-PHATE, and docs/m_phate.md is correct and complete."""

import inspect
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import issparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from mmphate_gpu import M_PHATE, MMPHATE, InputError, InputTypeError, reference
from mmphate_gpu.m_phate import DONE_ANYWAY, INSTEAD, OF_METHODS, _threads

PAGE = Path(__file__).resolve().parents[1] / "docs" / "m_phate.md"
OPTIONS = {"n_landmark": 60, "random_state": 0, "device": "cpu"}


def walk(n_slices=30, n_units=4, n_samples=10, seed=0):
    return np.random.default_rng(seed).normal(size=(n_slices, n_units, n_samples)).cumsum(0)


@pytest.fixture(scope="module")
def fitted():
    return M_PHATE(n_jobs=1, **OPTIONS).fit(walk())


# ---------------------------------------------------------------- the constructor


def test_its_parameters_are_those_of_mmphate_and_n_jobs():
    assert M_PHATE().get_params() == MMPHATE().get_params() | {"n_jobs": None}
    op = M_PHATE(3, t=7, n_jobs=2, landmarks=np.arange(120) % 50)
    assert clone(op).get_params()["landmarks"] is not None
    assert repr(clone(M_PHATE(3, t=7, n_jobs=2))) == "M_PHATE(n_components=3, n_jobs=2, t=7)"
    assert inspect.signature(M_PHATE).parameters["n_landmark"].default == 4000


def test_eight_arguments_may_be_passed_by_position():
    op = M_PHATE(3, 4, 12, None, 9, 1, 500, False)
    named = {"n_components": 3, "intraslice_knn": 4, "interslice_knn": 12, "decay": None, "t": 9, "gamma": 1}
    assert op.get_params() == M_PHATE(**named, n_landmark=500, normalize=False).get_params()
    with pytest.raises(TypeError, match="positional"):
        M_PHATE(3, 4, 12, None, 9, 1, 500, False, "smacof")
    with pytest.raises(TypeError, match="n_components"):
        M_PHATE(3, n_components=3)
    with pytest.raises(TypeError, match="n_landmarks"):
        M_PHATE(n_landmarks=3)


@pytest.mark.parametrize(
    "options, solver",
    [
        ({"mds": "metric"}, "smacof"),
        ({"mds": "classic"}, "classic"),
        ({"mds": "nonmetric", "mds_solver": "sgd"}, "nonmetric"),
        ({"mds": "metric", "mds_solver": "smacof"}, "smacof"),
        ({"mds_solver": "sgd"}, "smacof"),
        ({"mds_solver": "nonmetric"}, "nonmetric"),
    ],
)
def test_the_names_of_solvers_in_m_phate_are_accepted(options, solver):
    op = M_PHATE(**options)
    assert op.mds_solver == solver and clone(op).mds_solver == solver
    assert M_PHATE().set_params(**options).mds_solver == solver


def test_arguments_that_ask_for_the_only_behavior_are_accepted():
    assert M_PHATE(**DONE_ANYWAY).get_params() == M_PHATE().get_params()


@pytest.mark.parametrize("name", INSTEAD)
def test_unsupported_arguments_are_refused_by_name(name):
    for refuse in (M_PHATE, M_PHATE().set_params):
        with pytest.raises(InputTypeError, match=rf"^{name}='cosine' is not accepted by M_PHATE: .{{9}}"):
            refuse(**{name: "cosine"})


def test_contradictions_and_unknown_values_are_refused():
    with pytest.raises(InputError, match="mds='metric' contradicts mds_solver='classic'"):
        M_PHATE(mds="metric", mds_solver="classic")
    with pytest.raises(InputError, match="mds='umap' is unknown; accepted: 'metric'"):
        M_PHATE(mds="umap")


# ---------------------------------------------------------------- attributes


def test_attributes_need_a_fit_and_are_those_of_mmphate():
    new = M_PHATE()
    for name in ("X", "embedding", "diff_op", "diff_potential", "optimal_t", "graph"):
        with pytest.raises(NotFittedError):
            getattr(new, name)
    with pytest.raises(NotFittedError):
        new.transform()
    threads = torch.get_num_threads()
    trace = walk()
    op = M_PHATE(n_jobs=1, **OPTIONS).fit(trace)
    assert torch.get_num_threads() == threads
    assert op.X is trace and op.embedding is op.embedding_ and op.optimal_t == op.t_
    assert op.diff_op is op.landmark_op_ and op.diff_potential.shape == op.diff_op.shape == (op.n_landmark_,) * 2
    np.testing.assert_array_equal(op.von_neumann_entropy(), op.von_neumann_entropy_)
    # A shorter curve is the beginning of the longer one.
    np.testing.assert_allclose(op.von_neumann_entropy(20), op.von_neumann_entropy_[:20], rtol=1e-12)


def test_the_graph_is_that_of_the_reference(fitted):
    expected = reference.multislice_affinity(walk())
    graph = fitted.graph
    assert issparse(graph.K) and graph.kernel is graph.K and graph.P is graph.diff_op and graph is fitted.graph
    # Float64 on both sides: a few roundings of numbers of at most 2.
    np.testing.assert_allclose(graph.K.toarray(), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(graph.diff_op.toarray(), expected / expected.sum(1, keepdims=True), rtol=0, atol=1e-12)


def test_writing_into_a_matrix_of_the_graph_does_not_change_another(fitted):
    expected = fitted.graph.diff_op.toarray()
    graph = M_PHATE(**OPTIONS).fit(walk()).graph
    graph.K.data[:] = 1
    np.testing.assert_array_equal(graph.diff_op.toarray(), expected)


@pytest.mark.parametrize("n_jobs", [10**9, 2**70, -(2**70), -1, 1])
def test_there_are_no_more_threads_than_cpus(n_jobs, monkeypatch):
    """So many threads would crash the process, so this test fits nothing."""
    monkeypatch.setattr("psutil.cpu_count", lambda: 6)
    assert _threads(n_jobs, 3) == {1: 1, -(2**70): 1}.get(n_jobs, 6)
    assert _threads(None, 3) == 3


def test_writing_into_the_graph_changes_no_later_fit():
    op = M_PHATE(**OPTIONS).fit(walk())
    op.graph.K.data[:] = 0
    op.set_params(n_landmark=50).fit(walk())
    np.testing.assert_array_equal(op.embedding_, M_PHATE(**OPTIONS | {"n_landmark": 50}).fit_transform(walk()))
    assert op.graph.K.sum() > 0


# ---------------------------------------------------------------- transform


def test_transform_without_an_argument_uses_the_current_parameters():
    trace = walk()
    op = M_PHATE(**OPTIONS)
    first = op.fit_transform(trace)
    assert np.array_equal(op.transform(), op.embedding_) and np.array_equal(op.transform(), first)
    assert np.array_equal(op.transform(trace), first) and np.array_equal(op.transform(walk()[:, None]), first)
    for change in ({"n_components": 3}, {"t": 5}, {"gamma": 1}, {"landmarks": np.arange(120) % 40}):
        result = op.set_params(**change).transform()
        np.testing.assert_array_equal(result, clone(op).fit_transform(trace))
    assert np.array_equal(op.transform(trace), result)
    assert result.shape == (120, 3) and np.array_equal(op.transform(), op.embedding_)


@pytest.mark.parametrize("library", ["numpy", "torch", "xarray"])
def test_writing_into_an_embedding_does_not_change_transform(library):
    trace = torch.from_numpy(walk()) if library == "torch" else walk()
    if library == "xarray":
        trace = pytest.importorskip("xarray").DataArray(trace, dims=("slice", "unit", "sample"))
    op = M_PHATE(**OPTIONS)
    rows = op.fit_transform(trace)
    expected = np.asarray(rows).copy()
    rows *= 100
    op.embedding[:5] = 0
    again = op.transform()
    assert type(again) is type(rows) and np.array_equal(again, expected)
    again[:] = 7
    for same in (op.transform(), op.transform(trace), pickle.loads(pickle.dumps(op)).transform()):
        assert np.array_equal(same, expected)
    if library == "xarray":
        assert same.dims == ("node", "component") and same["unit"][:5].values.tolist() == [0, 1, 2, 3, 0]


@pytest.mark.parametrize("name", OF_METHODS)
def test_arguments_of_methods_are_refused_by_name(fitted, name):
    for method in (fitted.transform, M_PHATE().fit_transform):
        with pytest.raises(InputTypeError, match=rf"^{name}=50 is not accepted by \w*transform of M_PHATE: .{{9}}"):
            method(walk(), **{name: 50})
    with pytest.raises(InputTypeError, match="^color=3 is not accepted by transform of M_PHATE: it takes"):
        fitted.transform(color=3)
    assert np.array_equal(fitted.transform(plot_optimal_t=False, ax=None), fitted.embedding_)


@pytest.mark.parametrize("name", ["reset_mds", "reset_potential"])
def test_methods_that_reset_are_refused(fitted, name):
    with pytest.raises(InputTypeError, match=rf"^{name}\(\) is not accepted by M_PHATE: transform\(\) runs again"):
        getattr(fitted, name)()


def test_transform_of_new_slices_is_that_of_mmphate(fitted):
    plain = MMPHATE(**OPTIONS).fit(walk())
    for new in (walk(seed=1)[:3], walk()[:5]):
        np.testing.assert_array_equal(fitted.transform(new), plain.transform(new))
    new = walk(seed=1)[:3]
    assert fitted.transform(X=new).shape == (12, 2)


def test_a_pickled_estimator_transforms_and_refits(fitted):
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.transform(), fitted.embedding_)
    np.testing.assert_array_equal(again.graph.K.toarray(), fitted.graph.K.toarray())
    assert again.set_params(n_components=3).transform().shape == (120, 3)


def test_set_output_gives_data_frames():
    pandas = pytest.importorskip("pandas")
    op = M_PHATE(**OPTIONS).set_output(transform="pandas").fit(walk())
    for frame in (op.transform(), op.transform(walk()[:2])):
        assert isinstance(frame, pandas.DataFrame) and list(frame.columns) == ["m_phate0", "m_phate1"]


# ---------------------------------------------------------------- docs/m_phate.md


def test_the_page_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), space)
    assert space["m_phate_data"].shape == (400, 2)


def test_the_page_names_every_argument():
    text = PAGE.read_text(encoding="utf-8")
    missing = [name for name in (*INSTEAD, "mds", *M_PHATE().get_params()) if f"`{name}`" not in text]
    assert not missing


def test_transform_gives_the_array_type_of_its_argument(fitted):
    placed = fitted.transform(torch.from_numpy(walk()))
    assert isinstance(placed, torch.Tensor) and np.array_equal(placed.numpy(), fitted.embedding_)
    assert isinstance(fitted.transform(walk()), np.ndarray)


def test_data_that_changed_since_fit_are_not_fitted_again():
    trace = walk()
    op = M_PHATE(**OPTIONS).fit(trace)
    trace *= -1
    assert np.array_equal(op.transform(), op.embedding)  # needs no other fit
    with pytest.raises(InputError, match="X holds other values than it did at fit"):
        op.set_params(t=6).transform()


def test_mds_and_mds_solver_may_agree():
    assert M_PHATE(mds="classic", mds_solver="classic").mds_solver == "classic"
    assert M_PHATE(mds="classic", mds_solver="smacof").mds_solver == "classic"  # M-PHATE's solver of metric MDS alone
    with pytest.raises(InputError, match="contradict"):
        M_PHATE(mds="classic", mds_solver="nonmetric")


def test_zero_threads_are_refused():
    with pytest.raises(InputError, match="n_jobs=0"):
        M_PHATE(n_jobs=0).fit(walk())
