"""Odd but legal input is embedded: dead units, equal points, any dtype and layout, few slices."""

import warnings

import numpy as np
import pytest
import torch

import mmphate_gpu as mp
from mmphate_gpu.cli import main


def walk(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).cumsum(axis=0)


def fit(trace, **parameters):
    return mp.MMPHATE(**{"n_landmark": 40, "random_state": 0, "device": "cpu"} | parameters).fit(trace)


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

# Their z-scores are all 0, and a warning says that such a picture shows nothing.
ALL_EQUAL = ("all units dead", "all points equal", "one sample")


@pytest.mark.parametrize("n_landmark", [20, 4000])
@pytest.mark.parametrize("name", LEGAL)
def test_legal(name, n_landmark):
    trace, same = LEGAL[name](), LEGAL[name]()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        op = fit(trace, n_landmark=n_landmark)
    assert [warning.category for warning in caught] == [mp.PictureWarning] * (name in ALL_EQUAL)
    embedding = np.asarray(op.embedding_)
    assert embedding.shape == (op.result_.n_nodes, 2)
    assert np.isfinite(embedding).all() and np.isfinite(op.stress_) and 1 <= op.t_ <= 100
    assert np.isfinite(np.asarray(op.von_neumann_entropy_)).all()
    after, before = (trace.data, same.data) if isinstance(trace, mp.Trace) else (trace, same)
    assert type(after) is type(before)
    after, before = (x.detach().float() if isinstance(x, torch.Tensor) else x for x in (after, before))
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("name", ["dead units", "duplicate slices", "one unit", "different lengths"])
def test_legal_matrix_free(name):
    assert np.isfinite(np.asarray(fit(LEGAL[name](), storage="lazy").embedding_)).all()


# ---------------------------------------------------------------- few slices


@pytest.mark.parametrize("shape", [(2, 3, 4), (25, 3, 4), (5, 5, 3, 4)])
def test_fewer_than_26_slices(shape, here, capsys):
    n_slices = int(np.prod(shape[:-2]))
    message = f"interslice_knn=25 is clamped to {n_slices - 1}: the trace has {n_slices} slices"
    with pytest.warns(UserWarning, match=message):
        assert np.isfinite(fit(walk(*shape)).embedding_).all()
    np.save("few.npy", walk(*shape))
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["embed", "few.npy", "--out", "new", "--no-plots"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "clamped" in line]
    assert len(lines) == 1 and lines[0].strip("\r ").endswith(f"mmphate-gpu: warning: {message}")


def test_26_slices_warn_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(walk(26, 3, 4))


def test_two_nodes_give_a_line(refused):
    with pytest.warns(UserWarning, match="clamped to 1"):
        assert fit(walk(2, 1, 4), n_components=1).embedding_.shape == (2, 1)
    refused(lambda: fit(walk(2, 1, 4)), "n_components=2", "accepted: 1 to 1")
