"""Bad input gets one clear sentence, from Python and on the command line, and leaves nothing; odd input is handled."""

import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import mmphate_gpu as mp
from mmphate_gpu.cli import main

PACKAGE = str(Path(mp.__file__).parent.parent)
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


def refused(call, *words, kind=mp.InputError):
    """``call`` raises a ValueError (and a TypeError, for a wrong kind) of one sentence that holds every word."""
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in message and all(word in message for word in words), message


def snapshot(folder):
    """Every path below ``folder`` with what is in it."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("trace.npy", TRACE)
    return tmp_path


@pytest.fixture
def rejects(here, capsys):
    """Runs a command that must be refused: exit code 2, one line, no traceback, nothing written."""

    def run(*argv, words=()):
        before = snapshot(here)
        assert main([str(word) for word in argv]) == 2
        told = capsys.readouterr()
        assert told.out == ""
        last = told.err.splitlines()[-1]
        assert last.startswith("mmphate-gpu: error: ") and all(word in last for word in words), last
        assert "Traceback" not in told.err and told.err.count("mmphate-gpu:") == 1
        assert snapshot(here) == before

    return run


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
def test_trace(name, rejects):
    trace, kind, words = TRACES[name]
    refused(lambda: fit(trace), *words, kind=kind)
    refused(lambda: mp.multislice_affinity(trace, device="cpu"), *words, kind=kind)
    np.save("bad.npy", trace)
    words = [word.replace("data has 1 slice(s)", "1 slice(s)") for word in words]
    rejects("embed", "bad.npy", "--out", "new", words=words)


@pytest.mark.parametrize("name", ["objects", "ragged lists", "None", "sparse"])
def test_what_is_no_array_of_numbers(name):
    from scipy import sparse

    given = {"objects": TRACE.astype(object), "ragged lists": [[1.0], [1.0, 2.0]], "None": None}
    given["sparse"] = sparse.eye(4)
    refused(lambda: fit(given[name]), "data ", "accepted" if name != "ragged lists" else "no array", kind=TypeError)


def test_the_same_nan_under_a_mask_is_legal():
    trace, mask = spoiled(np.nan, 8, 1, 2), np.ones(TRACE.shape, bool)
    mask[8, 1, 2] = False
    assert np.isfinite(np.asarray(fit(mp.as_trace(trace, mask=mask)).embedding_)).all()


@pytest.mark.parametrize(
    ("mask", "kind", "words"),
    [
        (np.ones((30, 3), bool), mp.InputError, ["mask has shape (30, 3)", "(30, 3, 4) or (slice, sample) = (30, 4)"]),
        (np.ones((1, 30, 3, 4), bool), mp.InputError, ["mask has shape (1, 30, 3, 4)", "accepted: (30, 3, 4)"]),
        (np.ones((30, 3, 4)), mp.InputTypeError, ["mask has dtype float64", "accepted: booleans"]),
        (np.zeros((30, 4), bool), mp.InputError, ["mask leaves no sample present at slice 0, unit 0"]),
    ],
)
def test_mask(mask, kind, words, rejects):
    refused(lambda: mp.as_trace(TRACE, mask=mask), *words, kind=kind)
    np.savez("masked.npz", data=TRACE, mask=mask)
    rejects("embed", "masked.npz", "--out", "new", words=words)
    rejects("plan", "masked.npz", words=words)


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
    ("knn_backend", "faiss", ["knn_backend='faiss'", "accepted: 'auto', 'torch', 'keops', 'pynndescent'"]),
    ("mds_solver", "tsne", ["mds_solver='tsne'", "accepted: 'classic', 'smacof', 'nonmetric'"]),
]


@pytest.mark.parametrize(("name", "value", "words"), OUT_OF_RANGE)
def test_parameter_of_both(name, value, words, rejects):
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
        ("n_svd", 0, ["integer >= 1"]),
        ("thresh", -1e-4, ["number >= 0 and <= 0.5"]),
        ("thresh", 0.6, ["number >= 0 and <= 0.5"]),
        ("random_state", -1, ["integer >= 0"]),
        ("mds_dist", "cityblock", ["accepted: 'euclidean', 'cosine'"]),
    ],
)
def test_parameter_of_python(name, value, words):
    refused(lambda: fit(**{name: value}), f"{name}={value!r}", *words)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_components", 2.0), ("n_components", True), ("n_components", "2"), ("n_components", None),
        ("n_landmark", 40.0), ("t", 2.5), ("t", None), ("gamma", "0"), ("decay", "5"), ("normalize", 1),
        ("random_state", np.random.RandomState(0)), ("device", 0), ("callback", 3),
    ],
)  # fmt: skip
def test_parameter_of_another_kind(name, value):
    refused(lambda: fit(**{name: value}), f"{name}=", "must be", kind=mp.InputTypeError)


def test_a_refused_fit_leaves_the_fitted_state():
    op = fit()
    before = op.embedding_
    refused(lambda: op.set_params(n_components=0).fit(TRACE), "n_components=0")
    refused(lambda: op.set_params(n_components=2).fit(TRACE[:1]), "1 slice(s)")
    assert op.embedding_ is before


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
def test_stage_function(name):
    call, words = STAGES[name]
    refused(call, *words)


# ---------------------------------------------------------------- files


class Trap:
    """Unpickled, it makes a file."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


def trapped_npy(path):
    np.save(path, np.array([Trap()] * 3, dtype=object), allow_pickle=True)


def trapped_npz(path):
    np.savez(path, data=np.array([Trap()] * 3, dtype=object))


def trapped_mask(path):
    np.savez(path, data=TRACE, mask=np.array([Trap()] * 3, dtype=object))


def bare_pickle(path):
    path.write_bytes(pickle.dumps(Trap()))


def cut(path):
    saved = path.with_name(f"whole{path.suffix}")
    (np.save if path.suffix == ".npy" else np.savez)(saved, TRACE)
    path.write_bytes(saved.read_bytes()[:-700])
    saved.unlink()


FILES = {
    "missing": ("a.npy", lambda path: None, ["a.npy does not exist", "accepted: .npy, .npz"]),
    "name too long": ("a" * 300 + ".npy", lambda path: None, ["cannot be read", "too long"]),
    "other ending": ("a.csv", lambda path: path.write_text("1,2"), ["a.csv has an unknown ending", "accepted: .npy"]),
    "other format": ("a.npy", lambda path: path.write_text("1,2,3,4,5,6,7,8"), ["a.npy is truncated or not a .npy"]),
    "other format in a zip": ("a.npz", lambda path: path.write_text("1,2,3"), ["a.npz is truncated or not a .npz"]),
    "empty": ("a.npy", lambda path: path.write_bytes(b""), ["a.npy is truncated or not a .npy"]),
    "truncated npy": (
        "a.npy",
        cut,
        ["a.npy is truncated: its values have 2180 bytes; accepted: 2880, as its header says"],
    ),
    "truncated npz": ("a.npz", cut, ["a.npz is truncated or not a .npz"]),
    "npz without data": ("a.npz", lambda path: np.savez(path, x=TRACE), ["a.npz holds ['x']", "'data' or 'trace'"]),
    "folder": ("a.npy", lambda path: path.mkdir(), ["a.npy is a folder"]),
    "folder without a recording": ("a", lambda path: path.mkdir(), ["a has an unknown ending", "meta.json"]),
    "pickled npy": ("a.npy", trapped_npy, ["a.npy holds pickled Python objects, which are never loaded"]),
    "pickled npz": (
        "a.npz",
        trapped_npz,
        ["entry 'data' holds pickled Python objects, which are never loaded"],
    ),
    "pickled mask": (
        "a.npz",
        trapped_mask,
        ["entry 'mask' holds pickled Python objects, which are never loaded"],
    ),
    "bare pickle": ("a.npy", bare_pickle, ["a.npy holds a Python pickle, which is never loaded"]),
    "bare pickle as npz": ("a.npz", bare_pickle, ["a.npz is truncated or not a .npz"]),
}


@pytest.mark.parametrize("name", FILES)
def test_file(name, here, rejects):
    file, make, words = FILES[name]
    make(here / file)
    refused(lambda: mp.load_trace(file), *words)
    rejects("embed", file, "--out", "new", words=words)
    rejects("plan", file, words=words)
    assert not (here / "unpickled").exists()


def test_the_trap_works(here):
    trapped_npy(here / "a.npy")
    np.load("a.npy", allow_pickle=True)
    assert (here / "unpickled").is_dir()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, ["is no file"]),
        (cut, ["is truncated or not a .npz"]),
        (bare_pickle, ["is truncated or not a .npz"]),
        (trapped_npz, ["lacks embedding"]),
        (lambda path: np.savez(path, data=TRACE), ["lacks embedding"]),
    ],
)
def test_file_of_an_embedding(make, words, here, rejects):
    (here / "result").mkdir()
    path = here / "result" / "embedding.npz"
    make(path)
    refused(lambda: mp.Embedding.load(path), "embedding.npz", *words)
    rejects("plot", "result", words=["embedding.npz", *words])
    assert not (here / "unpickled").exists()


# ---------------------------------------------------------------- runs that do not fit


def test_a_run_that_does_not_fit(rejects, monkeypatch):
    def computes(*args, **kwargs):
        raise AssertionError("the run has started")

    monkeypatch.setattr("mmphate_gpu.planning.fit.mmphate", computes)
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", "5e5")
    words = ["shape (200, 1, 5, 4) needs", "MiB in stage", "has 488.3 KiB available", "a smaller n_landmark"]
    trace = walk(200, 5, 4)
    refused(lambda: fit(trace, n_landmark=500), *words)
    np.save("big.npy", trace)
    rejects("embed", "big.npy", "--out", "new", "--n-landmark=500", words=words)


def test_a_file_whose_run_does_not_fit_is_not_read(rejects, capsys, monkeypatch):
    def reads(*args):
        raise AssertionError("the file is being read")

    np.savez("big.npz", data=walk(200, 5, 4))
    np.save("big.npy", walk(200, 5, 4))
    monkeypatch.setattr("mmphate_gpu.trace.contents.Contents.read", reads)
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", "5e5")
    for file in ("big.npz", "big.npy"):
        rejects("embed", file, "--out", "new", "--n-landmark=500", words=["shape (200, 1, 5, 4) needs", "MiB in stage"])
        assert main(["plan", file, "--n-landmark=500"]) == 0
        assert capsys.readouterr().out.endswith("does NOT fit\n")
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", "5e9")
    for argv in (["embed", "big.npz", "--out", "new"], ["plan", "big.npz"]):  # it fits now
        assert main(argv) == 2
        assert "the file is being read" in capsys.readouterr().err


def test_an_affinity_that_does_not_fit(monkeypatch):
    from mmphate_gpu.affinities import Interslice

    def allocates(*args):
        raise AssertionError("the entries are being stored")

    trace = walk(400, 4, 3).astype(np.float32)
    needed = mp.to_scipy(mp.multislice_affinity(trace, device="cpu", storage="lazy")).nnz * 8
    monkeypatch.setattr(Interslice, "fill", allocates)
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", str(needed // 2))
    words = ["the affinity with", "entries needs", "KiB available", 'storage="lazy"']
    refused(lambda: mp.multislice_affinity(trace, device="cpu", storage="sparse"), *words)


def test_a_memory_limit_that_is_no_number(rejects, monkeypatch):
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", "much")
    refused(fit, "MMPHATE_GPU_MEMORY_LIMIT='much'", "number of bytes")
    rejects("embed", "trace.npy", "--out", "new", words=["MMPHATE_GPU_MEMORY_LIMIT='much'"])


# ---------------------------------------------------------------- usage and output folders


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], ["COMMAND", "--help"]),
        (["draw"], ["'draw'", "embed"]),
        (["embed"], ["TRACE, --out"]),
        (["embed", "trace.npy"], ["--out"]),
        (["embed", "trace.npy", "--out", "new", "--components", "3"], ["'--components'", "embed --help"]),
        (["embed", "trace.npy", "--out", "new", "--n-comp", "3"], ["'--n-comp'"]),
        (["embed", "trace.npy", "--out", "new", "--n-components", "2.5"], ["--n-components", "'2.5'", "whole number"]),
        (["embed", "trace.npy", "--out", "new", "--n-landmark", "all"], ["--n-landmark", "'all'", "or none"]),
        (["embed", "trace.npy", "--out", "new", "--t", "soon"], ["--t", "'soon'", "or auto"]),
        (["embed", "trace.npy", "--out", "new", "--gamma", "x"], ["--gamma", "'x'", "a number"]),
        (["embed", "trace.npy", "--out", "new", "--seed", "-1"], ["--seed=-1", "integer >= 0"]),
        (["embed", "trace.npy", "--out", "no/new"], ["--out no/new", "no does not exist"]),
        (["embed", "trace.npy", "--out", "."], ["--out .", "accepted: the path of a new folder"]),
        (["embed", "trace.npy", "--out", "a" * 300], ["--out aaa", "too long"]),
        (["embed", "trace.npy", "--out", "trace.npy"], ["--out trace.npy", "--force"]),
        (["embed", "trace.npy", "--out", "trace.npy", "--force"], ["--out trace.npy holds the trace"]),
        (["plan"], ["TRACE", "--shape"]),
        (["plan", "trace.npy", "--shape", "3,4,5"], ["--shape", "not allowed with"]),
        (["plan", "--shape", "3,x"], ["--shape '3,x'", "127,128,30,6"]),
        (["plan", "--shape", "3,4"], ["2 sizes", "accepted"]),
        (["plan", "--shape", "1,1,4,4"], ["one slice"]),
        (["plan", "--shape", "3,4,5", "--storage", "x"], ["storage='x'"]),
        (["plan", "--shape", "3,4,5", "--device", "cuda:99"], ["device='cuda:99'"]),
        (["plan", "--shape", "3,4,5", "--n-landmark", "1"], ["n_landmark=1"]),
        (["plot", "no"], ["no is no folder", "accepted"]),
        (["demo", "--epochs", "0", "--out", "new"], ["epochs=0", ">= 1"]),
        (["demo", "--epochs", "x", "--out", "new"], ["--epochs", "'x'"]),
        (["demo", "--seed", "-3", "--out", "new"], ["--seed=-3"]),
        (["demo", "--device", "cuda:99", "--out", "new"], ["device='cuda:99'"]),
        (["demo", "--out", "trace.npy"], ["--out trace.npy exists"]),
        (["demo", "--out", "no/new"], ["no does not exist"]),
        (["config", "--verbose"], ["'--verbose'"]),
    ],
)
def test_usage(argv, words, rejects):
    rejects(*argv, words=words)


def test_an_output_folder_that_exists(here, rejects):
    np.save("bad.npy", np.zeros(3))
    (here / "old").mkdir()
    (here / "old" / "notes.txt").write_text("mine")
    # Told before the trace is even read, which here is bad too.
    rejects("embed", "bad.npy", "--out", "old", words=["--out old exists", "--force"])
    rejects("embed", "bad.npy", "--out", "old", "--force", words=["old holds notes.txt", "did not write"])
    rejects("demo", "--out", "old", words=["--out old exists", "--force"])
    rejects("demo", "--out", "old", "--force", words=["old holds notes.txt", "did not write"])


def test_force_never_deletes_what_is_not_ours(here, rejects):
    (here / "data").mkdir()
    np.savez(here / "data" / "trace.npz", data=TRACE)
    rejects("embed", "data/trace.npz", "--out", "data", "--force", words=["data holds the trace data/trace.npz"])
    rejects("embed", "trace.npy", "--out", "data", "--force", words=["data has no report.json of mmphate-gpu"])
    (here / "data" / "report.json").write_text('{"program": "another"}')
    rejects("embed", "trace.npy", "--out", "data", "--force", words=["data has no report.json of mmphate-gpu"])
    (here / "data" / "report.json").write_text('{"program": "mmphate-gpu"}')
    (here / "data" / "panels.png").mkdir()
    rejects("embed", "trace.npy", "--out", "data", "--force", words=["data holds panels.png"])
    (here / "link").symlink_to(here / "data")
    rejects("embed", "trace.npy", "--out", "link", "--force", words=["link is no folder"])


def test_the_command_itself(here):
    """The same through a process: exit code 2, one line on stderr, nothing on stdout."""
    before = snapshot(here)
    command = [sys.executable, "-m", "mmphate_gpu", "embed", "trace.npy", "--out", "new", "--storage", "dense"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([PACKAGE, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    line = "mmphate-gpu: error: storage='dense' is unknown; accepted: 'auto', 'sparse', 'tiles', 'lazy'\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
    assert snapshot(here) == before


# ---------------------------------------------------------------- legal, and handled


def dead():
    trace = walk(30, 4, 5)
    trace[:, [0, 2]] = 0.1
    return trace


def read_only():
    trace = walk(30, 3, 4)
    trace.flags.writeable = False
    return trace


def lengths():
    """Sequences of different lengths, NaN beyond their ends."""
    mask = np.arange(6)[:, None] < np.array([6, 6, 5, 3])  # (timestep, sample)
    return mp.as_trace(np.where(mask[:, None, :], walk(5, 6, 3, 4), np.nan), mask=mask)


LEGAL = {
    "dead units": dead,
    "all units dead": lambda: np.broadcast_to(walk(30, 3, 1), (30, 3, 4)).copy(),
    "all points equal": lambda: np.full((30, 3, 4), 0.1),
    "duplicate slices": lambda: np.repeat(walk(10, 3, 4), 4, axis=0),
    "one slice, over and over": lambda: np.repeat(walk(1, 3, 4), 40, axis=0),
    "one unit": lambda: walk(30, 1, 4),
    "one sample": lambda: walk(30, 3, 1),
    "one timestep": lambda: walk(30, 1, 3, 4),
    "one epoch": lambda: walk(30, 3, 4)[None],
    "float16": lambda: walk(30, 3, 4).astype(np.float16),
    "float32": lambda: walk(30, 3, 4).astype(np.float32),
    "int8": lambda: np.random.default_rng(0).integers(-9, 9, (30, 3, 4)).astype(np.int8),
    "uint16": lambda: np.random.default_rng(0).integers(0, 60_000, (30, 3, 4)).astype(np.uint16),
    "int64": lambda: np.random.default_rng(0).integers(0, 2**40, (30, 3, 4)),
    "lists": lambda: walk(30, 3, 4).tolist(),
    "Fortran order": lambda: np.asfortranarray(walk(30, 3, 4)),
    "strided": lambda: walk(60, 6, 8)[::2, ::2, ::-2],
    "byte-swapped": lambda: walk(30, 3, 4).astype(">f8"),
    "read-only": read_only,
    "broadcast, stride 0": lambda: np.broadcast_to(walk(30, 3, 1, 4), (30, 3, 2, 4)),
    "different lengths": lengths,
    "torch": lambda: torch.from_numpy(walk(30, 3, 4)),
    "torch, bfloat16": lambda: torch.from_numpy(walk(30, 3, 4)).bfloat16(),
    "torch, transposed": lambda: torch.from_numpy(walk(30, 4, 3)).transpose(1, 2),
    "torch, with gradients": lambda: torch.from_numpy(walk(30, 3, 4)).requires_grad_(),
    "beyond n_pca samples": lambda: walk(30, 3, 120),
}


@pytest.mark.parametrize("n_landmark", [20, 4000])
@pytest.mark.parametrize("name", LEGAL)
def test_legal(name, n_landmark):
    trace, same = LEGAL[name](), LEGAL[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        op = fit(trace, n_landmark=n_landmark)
    embedding = np.asarray(op.embedding_)
    assert embedding.shape == (op.result_.n_nodes, 2)
    assert np.isfinite(embedding).all() and np.isfinite(op.stress_) and 1 <= op.t_ <= 100
    assert np.isfinite(np.asarray(op.von_neumann_entropy_)).all()
    for given, before in [(trace, same)] if not isinstance(trace, mp.Trace) else [(trace.data, same.data)]:
        assert type(given) is type(before)
        given, before = (x.detach().float() if isinstance(x, torch.Tensor) else x for x in (given, before))
        np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize("name", ["dead units", "duplicate slices", "one unit", "different lengths"])
def test_legal_matrix_free(name):
    assert np.isfinite(np.asarray(fit(LEGAL[name](), storage="lazy").embedding_)).all()


@pytest.mark.parametrize("shape", [(2, 3, 4), (25, 3, 4), (5, 5, 3, 4)])
def test_fewer_than_26_slices(shape, here, capsys):
    n_slices = int(np.prod(shape[:-2]))
    told = f"interslice_knn=25 is clamped to {n_slices - 1}: the trace has {n_slices} slices"
    with pytest.warns(UserWarning, match=told):
        assert np.isfinite(fit(walk(*shape)).embedding_).all()
    np.save("few.npy", walk(*shape))
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["embed", "few.npy", "--out", "new", "--no-plots"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "clamped" in line]
    assert len(lines) == 1 and lines[0].strip("\r ").endswith(f"mmphate-gpu: warning: {told}")


def test_26_slices_warn_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(walk(26, 3, 4))


def test_two_nodes_give_a_line():
    with pytest.warns(UserWarning, match="clamped to 1"):
        assert fit(walk(2, 1, 4), n_components=1).embedding_.shape == (2, 1)
    refused(lambda: fit(walk(2, 1, 4)), "n_components=2", "accepted: 1 to 1")
