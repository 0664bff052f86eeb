"""Bad traces and parameters get one clear sentence, from Python and on the command line, and leave nothing."""

import numpy as np
import pytest
import torch

import mmphate_gpu as mp

NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


def walk(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).cumsum(axis=0)


TRACE = walk(30, 3, 4)


def spoiled(value, *index):
    trace = TRACE.copy()
    trace[index] = value
    return trace


def fit(trace=TRACE, **parameters):
    return mp.MMPHATE(**{"n_landmark": 40, "random_state": 0, "device": "cpu"} | parameters).fit(trace)


# ---------------------------------------------------------------- traces


ACCEPTED = "accepted: 4 axes (epoch, timestep, unit, sample) or 3 axes (slice, unit, sample)"
TRACES = {
    "no axes": (np.float64(3), mp.InputError, ["data has 0 axes", ACCEPTED]),
    "two axes": (np.zeros((30, 4)), mp.InputError, ["data has 2 axes, shape (30, 4)", ACCEPTED]),
    "five axes": (np.zeros((2,) * 5), mp.InputError, ["data has 5 axes", ACCEPTED]),
    "no units": (np.zeros((30, 0, 4)), mp.InputError, ["data has an empty axis unit", "at least 1 entry"]),
    "no samples": (np.zeros((5, 6, 3, 0)), mp.InputError, ["data has an empty axis sample", "at least 1 entry"]),
    "no slices": (np.zeros((0, 3, 4)), mp.InputError, ["data has an empty axis slice", "at least 1 entry"]),
    "one slice": (TRACE[:1], mp.InputError, ["data has 1 slice(s)", "at least 2"]),
    "one slice of four axes": (TRACE[None, :1], mp.InputError, ["data has 1 slice(s)", "at least 2"]),
    "a single node": (TRACE[:1, :1], mp.InputError, ["data has 1 slice(s)", "at least 2"]),
    "NaN": (spoiled(np.nan, slice(8, None), 1, 2), mp.InputError, ["holds nan at slice 8, unit 1, sample 2", "mask"]),
    "infinity": (spoiled(-np.inf, 29, 2, 3), mp.InputError, ["holds -inf at slice 29, unit 2, sample 3", "finite"]),
    "NaN of four axes": (
        spoiled(np.nan, 8, 1, 2).reshape(5, 6, 3, 4),
        mp.InputError,
        ["data holds nan at epoch 1, timestep 2, unit 1, sample 2", "mask"],
    ),
    "squares that overflow": (TRACE * 1e200, mp.InputError, ["at slice 0, unit 0, sample 0", "up to 1e+150"]),
    "complex": (TRACE + 1j, mp.InputTypeError, ["data has dtype complex128", "accepted: real numbers"]),
    "booleans": (TRACE > 0, mp.InputTypeError, ["data has dtype bool", "accepted: real numbers"]),
    "text": (TRACE.astype(str), mp.InputTypeError, ["data has dtype <U", "accepted: real numbers"]),
    "dates": (TRACE.astype("M8[s]"), mp.InputTypeError, ["data has dtype datetime64[s]", "accepted: real numbers"]),
}


@pytest.mark.parametrize("name", TRACES)
def test_trace(refused, name, rejects):
    trace, error, words = TRACES[name]
    refused(lambda: fit(trace), *words, error=error)
    refused(lambda: mp.multislice_affinity(trace, device="cpu"), *words, error=error)
    np.save("bad.npy", trace)
    words = [word.replace("data has 1 slice(s)", "1 slice(s)") for word in words]
    rejects("embed", "bad.npy", "--out", "new", words=words)


@pytest.mark.parametrize("name", ["objects", "ragged lists", "None", "sparse"])
def test_what_is_no_array_of_numbers(refused, name):
    from scipy import sparse

    inputs = {"objects": TRACE.astype(object), "ragged lists": [[1.0], [1.0, 2.0]], "None": None}
    inputs["sparse"] = sparse.eye(4)
    refused(lambda: fit(inputs[name]), "data ", "accepted" if name != "ragged lists" else "no array", error=TypeError)


def test_the_same_nan_under_a_mask_is_legal():
    trace, mask = spoiled(np.nan, 8, 1, 2), np.ones(TRACE.shape, bool)
    mask[8, 1, 2] = False
    assert np.isfinite(np.asarray(fit(mp.as_trace(trace, mask=mask)).embedding_)).all()


@pytest.mark.parametrize(
    ("mask", "error", "words"),
    [
        (np.ones((30, 3), bool), mp.InputError, ["mask has shape (30, 3)", "(30, 3, 4) or (slice, sample) = (30, 4)"]),
        (np.ones((1, 30, 3, 4), bool), mp.InputError, ["mask has shape (1, 30, 3, 4)", "accepted: (30, 3, 4)"]),
        (np.ones((30, 3, 4)), mp.InputTypeError, ["mask has dtype float64", "accepted: booleans"]),
    ],
)
def test_mask(refused, rejects, mask, error, words):
    refused(lambda: mp.as_trace(TRACE, mask=mask), *words, error=error)
    np.savez("masked.npz", data=TRACE, mask=mask)
    rejects("embed", "masked.npz", "--out", "new", words=words)
    rejects("plan", "masked.npz", words=words)


def test_a_mask_that_hides_everything(refused, rejects):
    mask, words = (
        np.zeros((30, 4), bool),
        ["mask leaves too few nodes: 90 of 90 nodes have fewer than 2 present samples"],
    )
    refused(lambda: fit(mp.as_trace(TRACE, mask=mask)), *words)
    np.savez("masked.npz", data=TRACE, mask=mask)
    rejects("embed", "masked.npz", "--out", "new", words=words)


# ---------------------------------------------------------------- parameters


OUT_OF_RANGE = [
    ("n_components", 0, ["n_components=0", "integer >= 1"]),
    ("n_components", 40, ["n_components=40", "accepted: 1 to 39"]),
    ("n_landmark", 1, ["n_landmark=1", "integer >= 2"]),
    ("landmarks", "random", ["landmarks='random'", "accepted: 'spectral', 'stratified'"]),
    ("t", 0, ["t=0", "integer >= 1"]),
    ("gamma", 1.5, ["gamma=1.5", ">= -1 and <= 1"]),
    ("gamma", float("nan"), ["gamma=nan", ">= -1 and <= 1"]),
    ("device", "gpu", ["device='gpu'", "accepted: 'auto', 'cpu', 'cuda'"]),
    ("device", "cuda:99", ["device='cuda:99' is not there", "accepted here: 'cpu'"]),
    ("device", "meta", ["device='meta' is not there", "accepted here: 'cpu'"]),
    pytest.param("device", "cuda", ["device='cuda' is not there", "accepted here: 'cpu'"], marks=NO_CUDA),
    ("storage", "dense", ["storage='dense'", "accepted: 'auto', 'sparse', 'tiles', 'lazy'"]),
    ("knn_backend", "faiss", ["knn_backend='faiss'", "accepted: 'auto', 'torch', 'scipy', 'keops', 'pynndescent'"]),
    ("mds_solver", "tsne", ["mds_solver='tsne'", "accepted: 'classic', 'smacof', 'nonmetric'"]),
]


@pytest.mark.parametrize(("name", "value", "words"), OUT_OF_RANGE)
def test_parameter_of_both(refused, name, value, words, rejects):
    refused(lambda: fit(**{name: value}), *words)
    option = f"--{name.replace('_', '-')}={value}"
    rejects("embed", "trace.npy", "--out", "new", "--n-landmark=40", option, words=words)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("intraslice_knn", 0, ["integer >= 1"]),
        ("interslice_knn", 0, ["integer >= 1"]),
        ("decay", 0, ["number > 0"]),
        ("decay", -1, ["number > 0"]),
        ("t_max", 3, ["integer >= 4"]),
        ("t", "knee", ["accepted: 'auto'"]),
        ("n_pca", 0, ["integer >= 1"]),
        ("n_init", 0, ["integer >= 1"]),
        ("refine_knn", -1, ["integer >= 0"]),
        ("n_svd", 0, ["integer >= 1"]),
        ("thresh", -1e-4, ["number >= 0 and <= 0.5"]),
        ("thresh", 0.6, ["number >= 0 and <= 0.5"]),
        ("random_state", -1, ["integer >= 0"]),
        ("mds_dist", "cityblock", ["accepted: 'euclidean', 'cosine'"]),
        ("islands", "apart", ["accepted: 'potential', 'states'"]),
    ],
)
def test_parameter_of_python(refused, name, value, words):
    refused(lambda: fit(**{name: value}), f"{name}={value!r}", *words)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_components", 2.0), ("n_components", True), ("n_components", "2"), ("n_components", None),
        ("n_landmark", 40.0), ("t", 2.5), ("t", None), ("gamma", "0"), ("decay", "5"), ("normalize", 1),
        ("random_state", np.random.RandomState(0)), ("device", 0), ("callback", 3),
    ],
)  # fmt: skip
def test_parameter_of_another_type(refused, name, value):
    refused(lambda: fit(**{name: value}), f"{name}=", "must be", error=mp.InputTypeError)


def test_a_refused_fit_leaves_the_fitted_state(refused):
    op = fit()
    before = op.embedding_
    refused(lambda: op.set_params(n_components=0).fit(TRACE), "n_components=0")
    refused(lambda: op.set_params(n_components=2).fit(TRACE[:1]), "1 slice(s)")
    assert op.embedding_ is before


# ---------------------------------------------------------------- functions of single stages


SQUARE = np.random.default_rng(0).random((12, 12))
DISTANCES = np.abs(np.subtract.outer(np.arange(12.0), np.arange(12.0)))


STAGES = {
    "affinity, storage": (lambda: mp.multislice_affinity(TRACE, storage="dense"), ["storage='dense'", "accepted"]),
    "affinity, backend": (lambda: mp.multislice_affinity(TRACE, knn_backend="x"), ["knn_backend='x'", "accepted"]),
    "affinity, device": (lambda: mp.multislice_affinity(TRACE, device="cuda:99"), ["device='cuda:99'", "accepted"]),
    "affinity, thresh": (lambda: mp.multislice_affinity(TRACE, thresh=2), ["thresh=2", "<= 0.5"]),
    "landmarks, number": (lambda: mp.landmark_diffusion(affinity(), n_landmark=1), ["n_landmark=1", ">= 2"]),
    "landmarks, seed": (
        lambda: mp.landmark_diffusion(affinity(), n_landmark=9, random_state=-1),
        ["random_state=-1", ">= 0"],
    ),
    "landmarks, clusters": (
        lambda: mp.landmark_diffusion(affinity(), clusters=np.zeros(3, int)),
        ["clusters has shape (3,)", "accepted: (90,)"],
    ),
    "entropy, shape": (lambda: mp.von_neumann_entropy(SQUARE[:5]), ["landmark_op has shape (5, 12)", "square"]),
    "entropy, NaN": (lambda: mp.von_neumann_entropy(SQUARE * np.nan), ["landmark_op contains NaN", "finite"]),
    "entropy, t_max": (lambda: mp.optimal_t(SQUARE, 3), ["t_max=3", ">= 4"]),
    "potential, t": (lambda: mp.diffusion_potential(SQUARE, 0), ["t=0", ">= 1"]),
    "potential, gamma": (lambda: mp.diffusion_potential(SQUARE, 2, gamma=3), ["gamma=3", "<= 1"]),
    "distances, metric": (lambda: mp.potential_distances(SQUARE, "l1"), ["metric='l1'", "accepted"]),
    "distances, shape": (lambda: mp.potential_distances(SQUARE[0]), ["potential has shape (12,)", "two axes"]),
    "distances, NaN": (lambda: mp.potential_distances(SQUARE * np.nan), ["potential contains NaN", "finite"]),
    "mds, solver": (lambda: mp.metric_mds(DISTANCES, solver="x"), ["solver='x'", "accepted"]),
    "mds, shape": (lambda: mp.metric_mds(DISTANCES[:5]), ["distances has shape (5, 12)", "square"]),
    "mds, asymmetric": (lambda: mp.metric_mds(SQUARE), ["distances must be symmetric"]),
    "mds, negative": (lambda: mp.metric_mds(-DISTANCES), ["distances contains", "below 0", "accepted"]),
    "mds, n_components": (lambda: mp.metric_mds(DISTANCES, 12), ["n_components=12", "<= 11"]),
    "mds, init": (lambda: mp.metric_mds(DISTANCES, 2, init=np.zeros((3, 2))), ["init has shape (3, 2)", "(12, 2)"]),
    "stress, shape": (lambda: mp.stress(DISTANCES, np.zeros((5, 2))), ["distances has shape (12, 12)", "accepted"]),
    "preservation, k": (lambda: mp.neighborhood_preservation(TRACE, np.zeros((90, 2)), 30), ["k=30", "<= 29"]),
    "preservation, shape": (
        lambda: mp.neighborhood_preservation(TRACE, np.zeros((9, 2)), 3),
        ["embedding has shape (9, 2)", "accepted: (90, n_components)"],
    ),
    "plan, axes": (lambda: mp.plan((30, 4)), ["shape_or_trace has 2 sizes", "accepted"]),
    "plan, many numbers": (lambda: mp.plan([1] * 9000), ["shape_or_trace has 9000 sizes;", "accepted"]),
    "plan, a list of values": (
        lambda: mp.plan(TRACE.tolist()),
        [f"shape_or_trace is a list of length {len(TRACE)}; accepted: a trace"],
    ),
    "plan, three lists": (lambda: mp.plan(TRACE[:3].tolist()), ["shape_or_trace is a list of length 3; accepted"]),
    "plan, a number": (lambda: mp.plan(30), ["shape_or_trace is a int", "accepted"]),
    "plan, one slice": (lambda: mp.plan(TRACE[:1]), ["shape_or_trace has one slice", "at least 2"]),
    "plan, one slice of a Trace": (lambda: mp.plan(mp.as_trace(TRACE[:1], min_slices=1)), ["one slice", "at least 2"]),
    "plan, empty axis": (lambda: mp.plan((5, 0, 3, 4)), ["shape_or_trace=0", ">= 1"]),
    "plan, storage": (lambda: mp.plan((5, 6, 3, 4), storage="x"), ["storage='x'", "accepted"]),
    "bifurcation": (lambda: mp.datasets.bifurcation("saddle"), ["scenario='saddle'", "accepted"]),
}


def affinity():
    return mp.multislice_affinity(TRACE, device="cpu")


@pytest.mark.parametrize("name", STAGES)
def test_stage_function(refused, name):
    call, words = STAGES[name]
    refused(call, *words)
