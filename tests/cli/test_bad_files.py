"""Bad files get one clear sentence, from Python and on the command line, and nothing in them is executed."""

import os
import pickle

import numpy as np
import pytest

import mmphate_gpu as mp


def walk(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).cumsum(axis=0)


TRACE = walk(30, 3, 4)


# ---------------------------------------------------------------- files of traces


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
def test_file(refused, name, here, rejects):
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


# ---------------------------------------------------------------- files of embeddings


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (cut, ["is truncated or not a .npz"]),
        (bare_pickle, ["is truncated or not a .npz"]),
        (trapped_npz, ["lacks embedding"]),
        (lambda path: np.savez(path, data=TRACE), ["lacks embedding"]),
    ],
)
def test_file_of_an_embedding(refused, make, words, here, rejects):
    (here / "result").mkdir()
    path = here / "result" / "embedding.npz"
    make(path)
    refused(lambda: mp.Embedding.load(path), "embedding.npz", *words)
    rejects("plot", "result", words=["embedding.npz", *words])
    assert not (here / "unpickled").exists()


def test_no_file_of_an_embedding(refused, here, rejects):
    (here / "result").mkdir()
    refused(lambda: mp.Embedding.load(here / "result" / "embedding.npz"), "embedding.npz is no file")
    rejects("plot", "result", words=["result has no embedding.npz"])
