"""Baselines: each method draws what it says, and the table has the metrics of the pictures."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.manifold import Isomap

import mmphate_gpu as mp
from mmphate_gpu import Embedding, InputError, InputTypeError, as_trace
from mmphate_gpu.analysis import Baselines, baselines, neighborhood_preservation, other_methods
from mmphate_gpu.analysis.other_methods import rotated_onto
from mmphate_gpu.analysis.picture_metrics import checked_metrics
from mmphate_gpu.slices import SliceLayout

SMALL = mp.MMPHATE(n_landmark=30, interslice_knn=10, mds_solver="classic")


def recorded(shape=(20, 2, 5, 9), seed=0, **fields):
    values = np.random.default_rng(seed).standard_normal(shape).cumsum(0)
    return as_trace(values, epoch=10 * np.arange(shape[0]), **fields)


def z_scored(trace):
    values = trace.data.numpy().reshape(-1, trace.n_samples)
    return (values - values.mean(1, keepdims=True)) / values.std(1, ddof=1, keepdims=True)


def drawn(*methods, trace=None, **options):
    trace = recorded() if trace is None else trace
    options = {"k": 4, "estimator": SMALL, "random_state": 0} | options
    return baselines(trace, methods, **options)


def picture(trace, n_components=2, seed=1):
    layout = SliceLayout(trace.epoch, trace.timestep, trace.unit)
    return Embedding(np.random.default_rng(seed).standard_normal((trace.n_nodes, n_components)), layout)


def distances(points):
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


# ---------------------------------------------------------------- the methods


def test_pca_and_isomap_see_z_scored_nodes():
    points = z_scored(recorded())
    result = drawn("pca", "isomap")
    # Both are unique up to signs. Isomap places its nodes anew, which rounds.
    for name, model in (("pca", PCA(2)), ("isomap", Isomap(n_neighbors=15))):
        expected = model.fit_transform(points)
        np.testing.assert_allclose(distances(result.coordinates[name]), distances(expected), atol=1e-4)


def test_isomap_places_the_nodes_that_are_left_out():
    """Nodes on one arc, of which a fourth is chosen: the first component is the place on the arc."""
    angle = np.linspace(0, 3, 120)[:, None]
    basis = np.linalg.qr(np.column_stack([np.ones(9), np.random.default_rng(0).standard_normal((9, 2))]))[0][:, 1:]
    trace = as_trace((np.concatenate([np.cos(angle), np.sin(angle)], 1) @ basis.T).reshape(60, 1, 2, 9))
    places = drawn("isomap", trace=trace, max_nodes=30).coordinates["isomap"][:, 0]
    assert np.abs(np.corrcoef(places, angle[:, 0])[0, 1]) > 0.999


def test_each_time_step_is_embedded_by_itself():
    trace = recorded((25, 3, 5, 9))
    result = drawn("m_phate_per_step", trace=trace)
    places = result.coordinates["m_phate_per_step"].reshape(25, 3, 5, 2)
    sizes = ((places - places.mean((0, 2), keepdims=True)) ** 2).sum((0, 2, 3))
    np.testing.assert_allclose(sizes, sizes[0], rtol=1e-12)
    np.testing.assert_allclose(places.mean((0, 2)), np.tile(places[:, 0].mean((0, 1)), (3, 1)), atol=1e-12)
    for step in range(3):
        alone = drawn(trace=trace.subsample(timesteps=[step]))  # with the same seed
        expected = distances(alone.coordinates["mm_phate"])
        shape = distances(places[:, step].reshape(-1, 2))
        np.testing.assert_allclose(shape * (expected.max() / shape.max()), expected, atol=1e-9 * expected.max())


def test_points_are_turned_onto_a_target_and_keep_its_size():
    points = np.random.default_rng(0).standard_normal((30, 2))
    turn = np.array([[0.6, 0.8], [0.8, -0.6]])  # a rotation and a reflection
    np.testing.assert_allclose(rotated_onto(points, 5 * points @ turn + 3), points, atol=1e-12)
    other = np.random.default_rng(1).standard_normal((30, 2))
    result = rotated_onto(points, other)
    assert np.linalg.norm(result - result.mean(0)) == pytest.approx(np.linalg.norm(points - points.mean(0)))
    assert np.array_equal(rotated_onto(points, np.ones((30, 2))), np.tile(points.mean(0), (30, 1)))
    shifted = rotated_onto(np.ones((30, 2)), points)  # a step that is a point does not shrink those after it
    np.testing.assert_allclose(distances(shifted), distances(points), atol=1e-12)


def planted(n=8):
    """Two groups of units with other patterns: two clouds of nodes, far from each other."""
    patterns = 5 * np.random.default_rng(0).standard_normal((2, 12))
    noise = 0.2 * np.random.default_rng(1).standard_normal((20, 1, n, 12))
    return as_trace(patterns[np.arange(n) % 2] + noise), np.tile(np.arange(n) % 2, 20)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tsne", "umap"])
def test_installed_methods_keep_planted_groups_apart(name):
    pytest.importorskip({"tsne": "openTSNE", "umap": "umap"}[name])
    trace, group = planted()
    places = drawn(name, trace=trace).coordinates[name]
    nearest = (distances(places) + np.diag(np.full(len(places), np.inf))).argmin(1)
    assert (group[nearest] == group).all()


def test_without_opentsne_scikit_learn_draws(monkeypatch):
    monkeypatch.setattr(other_methods, "available", lambda name: name != "openTSNE")
    trace, group = planted(4)
    result = drawn("tsne", trace=trace)
    near = distances(result.coordinates["tsne"])
    assert near[group[:, None] == group].mean() < near[group[:, None] != group].mean()
    assert result.settings["tsne"] == "scikit-learn"


def test_without_umap_learn_a_warning_names_it(monkeypatch):
    monkeypatch.setattr(other_methods, "available", lambda name: name != "umap")
    with pytest.warns(UserWarning, match=r"'umap' is left out, because umap-learn .* \"mmphate-gpu\[baselines\]\""):
        assert drawn("umap", "pca").methods == ["mm_phate", "pca"]


def test_a_single_epoch_has_no_m_phate():
    trace = as_trace(np.random.default_rng(0).standard_normal((1, 20, 4, 6)))
    with pytest.warns(UserWarning, match="'m_phate_per_step' is left out, because the trace has a single epoch"):
        assert drawn("m_phate_per_step", trace=trace).methods == ["mm_phate"]


def test_isomap_has_a_seed_and_leaves_the_random_numbers_of_the_user():
    """Above 200 nodes it starts an eigensolver with random numbers of NumPy."""
    trace, results = recorded((60, 1, 5, 9)), []
    for seed in (1, 2):
        np.random.seed(seed)
        results.append(drawn("isomap", trace=trace).coordinates["isomap"])
        assert np.random.random() == np.random.RandomState(seed).random()
    assert np.array_equal(*results)


def test_warnings_of_other_libraries_are_silent(monkeypatch):
    def noisy(work):
        import warnings

        warnings.warn("of another library", DeprecationWarning, stacklevel=1)
        return np.zeros((work.trace.n_nodes, 1))

    monkeypatch.setitem(other_methods._METHODS, "pca", noisy)
    assert np.array_equal(drawn("pca").coordinates["pca"], np.zeros((200, 2)))  # also a second component


# ---------------------------------------------------------------- the table


def test_the_table_has_the_metrics_of_the_pictures():
    trace = recorded()
    result = drawn("pca", trace=trace)
    layout = SliceLayout(trace.epoch, trace.timestep, trace.unit)
    for row, name in enumerate(result.methods):
        coordinates = result.coordinates[name]
        # Of 4 other units 2 are neighbors: half of them. Of 39 other slices all 4 that were asked for are.
        intra = neighborhood_preservation(trace, coordinates, 2)[0]
        inter = neighborhood_preservation(trace, coordinates, 4)[1]
        assert result.table[row, :2].tolist() == [intra, inter]
        metrics = checked_metrics(result.metrics, 4)
        seed = np.random.default_rng(0).integers(2**31, size=1).item()
        np.testing.assert_array_equal(result.table[row], metrics(trace, Embedding(coordinates, layout), seed))
    assert result.metrics == ["intra", "inter", "trustworthiness", "continuity", "geodesic_spearman"]
    assert (result.seconds > 0).all()


@pytest.mark.parametrize("n_components", [1, 2, 3])
def test_a_picture_that_was_passed_in_is_compared_in_the_plane(n_components):
    trace = recorded()
    ready = picture(trace, n_components)
    result = drawn(trace=trace, embedding=ready)
    expected = np.column_stack([ready.coordinates, np.zeros(200)])[:, :2]
    assert np.array_equal(result.coordinates["mm_phate"], expected)
    assert result.table[0, 1] == neighborhood_preservation(trace, expected, 4)[1]
    assert np.isnan(result.seconds).all()


def test_fits_have_two_components_whatever_the_estimator_has():
    solid = mp.MMPHATE(n_components=3, n_landmark=30, mds_solver="classic")
    result = drawn("m_phate_per_step", estimator=solid)
    assert {array.shape for array in result.coordinates.values()} == {(200, 2)}


def test_metrics_may_be_functions():
    result = drawn("pca", metrics={"width": lambda trace, embedding: np.ptp(embedding.coordinates[:, 0])})
    np.testing.assert_allclose(result.table[:, 0], [np.ptp(xy[:, 0]) for xy in result.coordinates.values()])
    assert result.best("width") == [] and repr(result) == "Baselines(2 methods)"


def invented(table, metrics):
    fields = {"coordinates": {}, "layout": None, "seconds": np.ones(3), "similarity": {}, "settings": {}}
    return Baselines(methods=["mm_phate", "pca", "umap"], metrics=metrics, table=np.array(table), **fields)


def test_all_best_values_are_named():
    metrics = ["intra", "stress", "spread", "inter"]
    result = invented([[0.5, 0.2, 1, np.nan], [0.704, 0.3, 2, np.nan], [0.699, np.nan, 3, np.nan]], metrics)
    assert result.best("intra") == ["pca", "umap"] and result.best("intra", digits=3) == ["pca"]
    assert result.best("stress") == ["mm_phate"] and result.best("spread") == result.best("inter") == []
    assert repr(result) == "Baselines(3 methods; best intra: pca and umap; best stress: mm_phate)"


# ---------------------------------------------------------------- similarities, progress, bad input


def test_similarities_are_of_epochs_and_time_steps():
    calls = []
    result = drawn("svcca", "cka", "cka", callback=lambda *call: calls.append(call))
    assert {name: matrix.shape for name, matrix in result.similarity.items()} == {
        "svcca of epochs": (20, 20),
        "svcca of timesteps": (2, 2),
        "cka of epochs": (20, 20),
        "cka of timesteps": (2, 2),
    }
    assert calls == [("baselines", done, 3) for done in (1, 2, 3)]
    assert result.methods == ["mm_phate"]


def test_a_seed_gives_the_same_bits_and_a_stored_trace_too(tmp_path):
    trace = recorded()
    mp.save_trace(tmp_path / "t.npz", trace)
    methods = ("pca", "isomap", "m_phate_per_step", "cka")
    results = [drawn(*methods, trace=of) for of in (trace, trace, mp.load_trace(tmp_path / "t.npz", stream=True))]
    first, *others = [result.to_dict() | {"seconds": None, "layout": None} for result in results]
    assert others == [first, first]
    frame = results[0].to_frame()
    assert frame["method"].tolist() == ["mm_phate", "pca", "isomap", "m_phate_per_step"]
    assert frame.columns.tolist() == ["method", *results[0].metrics, "seconds"]


@pytest.mark.parametrize("has_open_tsne", [True, False])
def test_a_single_sample_is_drawn(monkeypatch, has_open_tsne):
    """Its z-score is 0, so all nodes are one point. Other methods refuse points with a single feature."""
    if has_open_tsne:
        pytest.importorskip("openTSNE")
    else:
        monkeypatch.setattr(other_methods, "tsne_library", lambda: "scikit-learn")
    result = drawn("pca", "tsne", "isomap", trace=recorded((20, 1, 2, 1)))
    assert result.methods == ["mm_phate", "pca", "tsne", "isomap"] and not result.coordinates["pca"].any()


def test_two_units_have_no_intra_and_are_drawn():
    result = drawn("pca", trace=recorded((20, 2, 2, 9)))
    assert np.isnan(result.table[:, 0]).all() and np.isfinite(result.table[:, 1]).all()
    assert "best intra" not in repr(result)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"methods": "pca"}, InputTypeError, "methods='pca'; accepted: a sequence of names"),
        ({"methods": ["lda"]}, InputError, "methods='lda' is unknown; accepted: 'pca'"),
        ({"methods": ["mm_phate"]}, InputError, "methods='mm_phate' is unknown"),
        ({"max_nodes": 9}, InputError, "max_nodes=9 is out of range"),
        ({"k": 0}, InputError, "k=0 is out of range"),
        ({"metrics": "intra"}, InputTypeError, "metrics='intra'; accepted"),
        ({"estimator": 3}, InputTypeError, "estimator is a int"),
        ({"random_state": -1}, InputError, "random_state=-1 is out of range"),
        ({"embedding": np.zeros((200, 2))}, InputTypeError, "embedding is a ndarray; accepted: an Embedding, or None"),
        ({"embedding": picture(recorded((10, 4, 5, 9)))}, InputError, r"layout \(10, 4, 5\); accepted: \(20, 2, 5\)"),
        ({"callback": 3}, InputTypeError, "callback=3 must be callable"),
    ],
)
def test_bad_arguments_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        baselines(recorded(), **{"methods": ["pca"], **options})


def test_a_masked_trace_is_refused():
    mask = np.ones((20, 2, 5, 9), dtype=bool)
    mask[0, 0, 0, 0] = False
    with pytest.raises(InputError, match="the trace is masked; accepted: a trace without missing samples"):
        drawn("pca", trace=recorded(mask=mask))
