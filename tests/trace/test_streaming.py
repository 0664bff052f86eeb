"""Traces read block by block have the same bits as from memory, in every format and through whole runs."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import mmphate_gpu as mp
from mmphate_gpu.errors import InputError
from mmphate_gpu.trace import (
    Trace,
    as_trace,
    flat_points,
    load_trace,
    normalize,
    pca,
    readers,
    save_trace,
    stored,
    trace_points,
)
from mmphate_gpu.trace.activity import most_active_class
from mmphate_gpu.trace.fingerprint import fingerprint
from mmphate_gpu.trace.formats import npy
from mmphate_gpu.trace.pca import principal_axes, reduce
from mmphate_gpu.trace.points import LazyPoints
from mmphate_gpu.trace.scale import pairwise_sum

from .stored_files import FORMATS, SHAPE, full_mask, streamed, values, write_container
from .traces import same_points

OPTIONS = {"n_landmark": 30, "random_state": 0, "device": "cpu", "interslice_knn": 5}


# ---------------------------------------------------------------- formats


def same(left: Trace, right: Trace) -> None:
    """All that a run takes from a trace has the same bits."""
    assert left.shape == right.shape and left.axes == right.axes and left.data.dtype == right.data.dtype
    for name in ("epoch", "timestep", "unit", "sample", "label"):
        assert np.array_equal(getattr(left, name), getattr(right, name)), name
    assert same_points(normalize(left), normalize(right)) and same_points(flat_points(left), flat_points(right))
    for scaled in (True, False):
        ours, theirs = (reduce(trace_points(t, normalize=scaled, n_pca=7).points, 7) for t in (left, right))
        assert same_points(ours, theirs)
        assert same_points(theirs, reduce(normalize(right) if scaled else flat_points(right), 7))
    assert fingerprint(left) == fingerprint(right)
    assert np.array_equal(most_active_class(left), most_active_class(right))
    loaded = left.load()
    assert torch.equal(loaded.data, right.load().data) and not streamed(loaded)
    assert (left.mask is None) == (right.mask is None)
    assert left.mask is None or torch.equal(loaded.mask, right.load().mask)


@pytest.mark.parametrize("three", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_the_bits_of_memory(tmp_path, small_blocks, name, three):
    for ending, package in ((".zarr", "zarr"), (".h5", "h5py")):
        if name == ending:
            pytest.importorskip(package)
    path = FORMATS[name](tmp_path, three)
    before = readers.stamp_of(path)
    trace = load_trace(path, stream=True)
    assert streamed(trace)
    same(trace, load_trace(path, stream=False))
    assert readers.stamp_of(path) == before


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", ">f8", "longdouble", "int8", ">i2", "int64"])
def test_other_dtypes(tmp_path, small_blocks, dtype):
    np.save(tmp_path / "a.npy", (10 * values()).astype(dtype))
    same(load_trace(tmp_path / "a.npy", stream=True), as_trace((10 * values()).astype(dtype)))


def test_large_integers_are_not_rounded(tmp_path, small_blocks):
    data = (10 * values()).astype(np.int64)
    data[3, 2, 4, 22] += 2**30  # in the last block
    np.save(tmp_path / "a.npy", data)
    trace = load_trace(tmp_path / "a.npy", stream=True)
    assert trace.data.dtype == torch.float64
    same(trace, as_trace(data))


@pytest.mark.parametrize("name", [".npy", ".npz", ".zarr", ".h5"])
def test_readers_cut_where_numpy_cuts(tmp_path, name):
    path = FORMATS[name](tmp_path, False)
    source, whole = load_trace(path, stream=True).data.source, values().reshape(12, 5, 23)
    draw = np.random.default_rng(2)
    for _ in range(40):
        cut = [slice(*sorted(draw.choice(size + 1, 2, replace=False).tolist())) for size in whole.shape]
        np.testing.assert_array_equal(source.block(*cut), whole[tuple(cut)])


def test_a_zarr_store_that_is_an_array(tmp_path, small_blocks):
    zarr = pytest.importorskip("zarr")
    zarr.save_array(str(tmp_path / "bare.zarr"), values())
    same(load_trace(tmp_path / "bare.zarr", stream=True), as_trace(values()))


# ---------------------------------------------------------------- runs


@pytest.mark.parametrize("shape", [(30, 2, 5, 20), (8, 1, 4, 130), (20, 2, 4, 130)])
@pytest.mark.parametrize("masked", [False, True])
def test_coordinates_are_those_from_memory(tmp_path, monkeypatch, shape, masked):
    """Without PCA, with the Gram matrix, with the covariance; labels, `transform` and the affinity go with them."""
    monkeypatch.setattr(stored, "BLOCK_ELEMENTS", 700)
    mask = full_mask(shape) if masked else None
    trace = as_trace(values(shape), mask=mask, label=np.arange(shape[3]) % 3)
    save_trace(tmp_path / "a.npz", trace)
    stored_trace = load_trace(tmp_path / "a.npz", stream=True)
    from_file, from_memory = mp.MMPHATE(**OPTIONS).fit(stored_trace), mp.MMPHATE(**OPTIONS).fit(trace)
    assert torch.equal(from_file.embedding_, from_memory.embedding_) and from_file.t_ == from_memory.t_
    assert np.array_equal(from_file.result_.most_active, from_memory.result_.most_active)
    assert torch.equal(from_file.transform(stored_trace), from_memory.transform(trace))
    ours, theirs = (mp.multislice_affinity(t, device="cpu", interslice_knn=5).to_dense() for t in (stored_trace, trace))
    assert torch.equal(ours, theirs)
    from_file.set_params(t=5).fit(stored_trace)
    assert [row["reused"] for row in from_file.report_][:5] == [True] * 5


def test_randomized_pca_has_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "BLOCK_ELEMENTS", 700)
    monkeypatch.setattr(pca, "EXACT_PCA", 20)
    np.save(tmp_path / "a.npy", values((30, 4, 60)))
    trace = load_trace(tmp_path / "a.npy", stream=True)
    assert torch.equal(
        reduce(trace_points(trace, n_pca=6).points, 6), reduce(normalize(as_trace(values((30, 4, 60)))), 6)
    )


def test_blocks_do_not_change_the_picture(monkeypatch):
    """Sums over blocks of other sizes differ by rounding: 2e-14 of the largest score, measured."""
    points = normalize(as_trace(values((40, 3, 50))))
    whole = reduce(points, 8)
    monkeypatch.setattr(stored, "BLOCK_ELEMENTS", 200)
    assert (reduce(points, 8) - whole).abs().max() < 1e-12 * whole.abs().max()


def test_points_that_will_be_reduced_are_never_whole():
    trace = as_trace(values((6, 5, 200)))
    points = trace_points(trace, n_pca=100).points
    assert isinstance(points, LazyPoints) and points.shape == (6, 5, 200)
    # Factor, mean, deviation and whether it is constant, and the resolution; the mean of the points.
    assert points.nbytes == 30 * (4 + 4 + 4 + 1 + 8) + 200 * 8
    assert torch.equal(points.block(slice(1, 3), slice(0, 5), slice(7, 90)), normalize(trace)[1:3, :, 7:90])
    assert isinstance(trace_points(trace, n_pca=200).points, torch.Tensor)
    assert principal_axes(points, 100).mean.shape == (200,)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pairwise_sum_is_that_of_numpy(dtype):
    draw = np.random.default_rng(3)
    for n in [*range(1, 300), 1021, 2048, 4104, 90001]:
        x = (draw.normal(size=(3, n)) + 1).astype(dtype)
        assert np.array_equal(pairwise_sum(torch.from_numpy(x)).numpy()[:, 0], x.sum(1)), n


# ---------------------------------------------------------------- how a trace that is read block by block behaves


def test_subsample_is_in_memory(tmp_path, small_blocks):
    trace = as_trace(values(), mask=full_mask(), label=np.arange(23) % 3, unit=list("abcde"))
    save_trace(tmp_path / "a.npz", trace)
    from_file = load_trace(tmp_path / "a.npz", stream=True)
    for part in (
        {"epochs": slice(1, 3)},
        {"units": [4, 0], "samples": np.arange(23) != 3},
        {"epochs": [3, 0], "timesteps": [2, 2, 0]},
        {"timesteps": slice(None, None, -1), "units": -1},
    ):
        ours, theirs = from_file.subsample(**part), trace.subsample(**part)
        assert not streamed(ours) and torch.equal(ours.data, theirs.data) and torch.equal(ours.mask, theirs.mask)
        assert np.array_equal(ours.unit, theirs.unit) and np.array_equal(ours.label, theirs.label)
    assert from_file.subsample() is from_file
    with pytest.raises(InputError, match="epochs="):
        from_file.subsample(epochs=9)


def test_a_subsample_reads_no_more_than_it_needs(tmp_path, monkeypatch):
    read = []
    plain = npy.NpyArray.block
    np.save(tmp_path / "a.npy", values())
    trace = load_trace(tmp_path / "a.npy", stream=True)
    monkeypatch.setattr(npy.NpyArray, "block", lambda self, *cut: (read.append(cut[0]), plain(self, *cut))[1])
    trace.subsample(epochs=[0, 3])
    assert read == [slice(0, 3), slice(9, 12)]


def test_the_face_of_the_trace(tmp_path):
    np.save(tmp_path / "a.npy", values())
    trace = load_trace(tmp_path / "a.npy", stream=True)
    assert repr(trace) == "Trace(epoch: 4, timestep: 3, unit: 5, sample: 23; float32 read block by block on cpu)"
    np.testing.assert_array_equal(np.asarray(trace.data), values())
    assert np.asarray(trace.data, dtype=np.float64).dtype == np.float64
    assert as_trace(trace) is trace and trace.to(torch.device("cpu")) is trace
    assert trace.nbytes == 4 * np.prod(SHAPE)
    save_trace(tmp_path / "b.npy", trace)
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), values())
    labeled = as_trace(trace, label=np.arange(23))
    assert streamed(labeled) and labeled.label.tolist() == list(range(23))
    intra, inter = mp.neighborhood_preservation(trace, normalize(trace).reshape(60, 23)[:, :2].numpy(), k=2)
    assert 0 <= intra <= 1 and 0 <= inter <= 1


@pytest.mark.parametrize("masked", [False, True])
def test_preservation_is_that_from_memory(tmp_path, small_blocks, masked):
    trace = as_trace(values(), mask=full_mask() if masked else None)
    save_trace(tmp_path / "a.npz", trace)
    from_file = load_trace(tmp_path / "a.npz", stream=True)
    embedding = flat_points(trace).nan_to_num(0).reshape(60, 23)[:, :2].numpy()
    assert mp.neighborhood_preservation(from_file, embedding, [2, 5]) == mp.neighborhood_preservation(
        trace, embedding, [2, 5]
    )


@pytest.mark.parametrize("three", [False, True])
def test_fields_can_be_replaced(tmp_path, three, monkeypatch):
    trace = load_trace(write_container(".npz")(tmp_path, three), stream=True)
    monkeypatch.setattr(stored.StoredArray, "load", None)  # nothing is taken into memory
    other = as_trace(trace, label=np.arange(23) % 4, unit=range(5))
    assert streamed(other) and isinstance(other.mask, stored.StoredArray)
    assert other.shape == trace.shape and other.axes == trace.axes and other.label.max() == 3
    assert same_points(normalize(other), normalize(trace))


PICKLED = """
import pickle, sys
import numpy as np
from mmphate_gpu.trace import normalize
for trace, wanted in pickle.load(open(sys.argv[1], "rb")):
    assert np.array_equal(normalize(trace), wanted, equal_nan=True)
"""


def test_a_trace_goes_to_another_process(tmp_path):
    """Where strings have other hashes. Every format, a store that is an array, and files without an axis of time."""
    zarr, _ = pytest.importorskip("zarr"), pytest.importorskip("h5py")
    zarr.save_array(str(tmp_path / "bare.zarr"), values())
    paths = [tmp_path / "bare.zarr"]
    for number, (write, three) in enumerate((write, three) for write in FORMATS.values() for three in (False, True)):
        (tmp_path / str(number)).mkdir()
        paths.append(write(tmp_path / str(number), three))
    traces = [load_trace(path, stream=True) for path in paths]
    (tmp_path / "traces").write_bytes(pickle.dumps([(trace, normalize(trace)) for trace in traces]))
    env = os.environ | {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"}
    env["PYTHONPATH"] = os.pathsep.join([str(Path(mp.__file__).parent.parent), env.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", PICKLED, str(tmp_path / "traces")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr


def test_load_refuses_what_does_not_fit(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", values())
    trace = load_trace(tmp_path / "a.npy", stream=True)
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", "5000")
    with pytest.raises(InputError, match=r"shape \(4, 3, 5, 23\) in memory needs 5.4 KiB .*4.9 KiB.*Trace.subsample"):
        trace.load()


def test_a_tensor_goes_to_a_small_device_block_by_block(small_blocks):
    """The GPU's way with a trace larger than its memory; only the target is another here."""
    mask = np.arange(3)[:, None] < np.arange(1, 24) % 4
    mask[:, 0] = True
    trace = as_trace(values().transpose(1, 0, 2, 3)[:, :3], mask=mask | (np.arange(3)[:, None] == 0))
    by_blocks = trace._moved(torch.device("cpu"), block_by_block=True)
    assert streamed(by_blocks) and by_blocks.shape == trace.shape
    assert same_points(normalize(by_blocks), normalize(trace)) and fingerprint(by_blocks) == fingerprint(trace)
    assert same_points(trace_points(by_blocks, n_pca=7).points, trace_points(trace, n_pca=7).points)
    moved = trace._moved(torch.device("cpu"), block_by_block=False)
    assert moved.mask.stride() == trace.mask.stride() and 0 in moved.mask.stride()  # spread there, not here
