"""Traces read block by block: the same bits as from memory in every format, bounded memory, and files that change."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import mmphate_gpu as mp
from mmphate_gpu.analysis.activity import most_active_class
from mmphate_gpu.cli import main
from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.estimator import fingerprint
from mmphate_gpu.record import Recorder
from mmphate_gpu.trace import (
    Trace,
    as_trace,
    files,
    flat_points,
    load_trace,
    normalize,
    pca,
    readers,
    save_trace,
    stored,
    trace_points,
)
from mmphate_gpu.trace.contents import Contents
from mmphate_gpu.trace.formats import flat, npy
from mmphate_gpu.trace.pca import principal_axes, reduce
from mmphate_gpu.trace.points import LazyPoints
from mmphate_gpu.trace.scale import pairwise_sum

SHAPE = (4, 3, 5, 23)
OPTIONS = {"n_landmark": 30, "random_state": 0, "device": "cpu", "interslice_knn": 5}


def values(shape=SHAPE, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).normal(size=shape).cumsum(axis=0).astype(dtype)


def full_mask(shape=SHAPE):
    mask = np.random.default_rng(1).random(shape) < 0.7
    mask[..., 0] = True
    return mask


def streamed(trace: Trace) -> bool:
    return isinstance(trace.data, stored.StoredArray)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of three units of one slice: the last is cut short."""
    monkeypatch.setattr(stored, "BLOCK_ELEMENTS", 3 * SHAPE[3])


# ---------------------------------------------------------------- formats


def write_npy(path, three):
    np.save(path / "a.npy", values().reshape(12, 5, 23) if three else values())
    return path / "a.npy"


def write_container(ending):
    def write(path, three):
        shape = (12, *SHAPE[2:]) if three else SHAPE
        fields = {"mask": full_mask().reshape(shape), "epoch": np.linspace(0, 1, shape[0]), "unit": list("abcde")}
        save_trace(path / f"a{ending}", as_trace(values().reshape(shape), label=np.arange(23) % 3, **fields))
        return path / f"a{ending}"

    return write


def write_short_mask(path, three):
    axes = (12, 23) if three else (3, 23)
    mask = np.arange(axes[0])[:, None] % 3 < np.arange(1, 24) % 3 + 1
    np.savez(path / "short.npz", trace=values().reshape(12, 5, 23) if three else values(), mask=mask)
    return path / "short.npz"


def write_recording(path, three):
    if three:
        return write_snapshots(path, values().reshape(12, 5, 23))
    lengths = nn_lengths()
    packed = torch.nn.utils.rnn.pack_padded_sequence(torch.randn(6, 23, 2), lengths, enforce_sorted=False)
    with Recorder(torch.nn.GRU(2, 5), "", probe=packed, label=np.arange(23) % 2, path=path / "run") as recorder:
        for epoch in (0, 2, 5):
            recorder.snapshot(epoch)
    return path / "run"


def write_snapshots(path, snapshots):
    """A recorder's folder whose files have no axis of time: (unit, sample)."""
    files = [f"snapshot_{i:06d}.npy" for i in range(len(snapshots))]
    meta = {
        "format": flat.RECORDING,
        "version": 1,
        "epoch": list(range(len(files))),
        "files": files,
        "extra": [],
    }
    (path / "run").mkdir()
    (path / "run" / flat.META).write_text(json.dumps(meta), encoding="utf-8")
    for file, snapshot in zip(files, snapshots, strict=True):
        np.save(path / "run" / file, snapshot)
    return path / "run"


def nn_lengths():
    return torch.arange(23) % 5 + 2


FORMATS = {
    ".npy": write_npy,
    ".npz": write_container(".npz"),
    ".npz, a short mask": write_short_mask,
    ".zarr": write_container(".zarr"),
    ".h5": write_container(".h5"),
    "a recording": write_recording,
}


def same(left: Trace, right: Trace) -> None:
    """All that a run takes from a trace has the same bits."""
    assert left.shape == right.shape and left.axes == right.axes and left.data.dtype == right.data.dtype
    for name in ("epoch", "timestep", "unit", "sample", "label"):
        assert np.array_equal(getattr(left, name), getattr(right, name)), name
    assert torch.equal(normalize(left), normalize(right)) and torch.equal(flat_points(left), flat_points(right))
    for scaled in (True, False):
        ours, theirs = (reduce(trace_points(t, normalize=scaled, n_pca=7).points, 7) for t in (left, right))
        assert torch.equal(ours, theirs)
        assert torch.equal(theirs, reduce(normalize(right) if scaled else flat_points(right), 7))
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
    labelled = as_trace(trace, label=np.arange(23))
    assert streamed(labelled) and labelled.label.tolist() == list(range(23))
    intra, inter = mp.neighborhood_preservation(trace, normalize(trace).reshape(60, 23)[:, :2].numpy(), k=2)
    assert 0 <= intra <= 1 and 0 <= inter <= 1


@pytest.mark.parametrize("masked", [False, True])
def test_preservation_is_that_from_memory(tmp_path, small_blocks, masked):
    trace = as_trace(values(), mask=full_mask() if masked else None)
    save_trace(tmp_path / "a.npz", trace)
    from_file = load_trace(tmp_path / "a.npz", stream=True)
    embedding = normalize(trace).reshape(60, 23)[:, :2].numpy()
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
    assert torch.equal(normalize(other), normalize(trace))


PICKLED = """
import pickle, sys
import torch
from mmphate_gpu.trace import normalize
for trace, wanted in pickle.load(open(sys.argv[1], "rb")):
    assert torch.equal(normalize(trace), wanted)
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
    assert torch.equal(normalize(by_blocks), normalize(trace)) and fingerprint(by_blocks) == fingerprint(trace)
    assert torch.equal(
        reduce(trace_points(by_blocks, n_pca=7).points, 7), reduce(trace_points(trace, n_pca=7).points, 7)
    )
    moved = trace._moved(torch.device("cpu"), block_by_block=False)
    assert moved.mask.stride() == trace.mask.stride() and 0 in moved.mask.stride()  # spread there, not here


# ---------------------------------------------------------------- what is refused


def test_what_cannot_be_read_block_by_block(tmp_path, monkeypatch):
    np.save(tmp_path / "fortran.npy", np.asfortranarray(values()))
    np.savez_compressed(tmp_path / "small.npz", data=values())
    np.savez(tmp_path / "mask.npz", data=values(), mask=np.asfortranarray(full_mask()))
    for name in ("fortran.npy", "small.npz", "mask.npz"):
        with pytest.raises(InputError, match=rf"{name} is compressed or in Fortran order.*accepted for stream=True"):
            load_trace(tmp_path / name, stream=True)
        assert not streamed(load_trace(tmp_path / name))
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", "5000")
    with pytest.raises(InputError, match=r"small.npz is compressed .* needs 5.4 KiB but cpu has 4.9 KiB.*numpy.save"):
        load_trace(tmp_path / "small.npz")
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", "8000")  # more than a quarter, and yet there is room
    assert not streamed(load_trace(tmp_path / "small.npz"))
    with pytest.raises(InputTypeError, match="stream='yes' is a str; accepted: True, False or None"):
        load_trace(tmp_path / "small.npz", stream="yes")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite_says_where(tmp_path, small_blocks, bad):
    data = values()
    data[2, 1, 3, 4] = data[3, 0, 0, 0] = bad
    np.save(tmp_path / "a.npy", data)
    with pytest.raises(InputError, match=r"a\.npy: data holds .* epoch 2, timestep 1, unit 3, sample 4 \(the first"):
        load_trace(tmp_path / "a.npy", stream=True)
    mask = np.ones(SHAPE, bool)
    mask[0, 2, 4] = False
    np.savez(tmp_path / "a.npz", data=values(), mask=mask)
    with pytest.raises(InputError, match="no sample present at epoch 0, timestep 2, unit 4"):
        load_trace(tmp_path / "a.npz", stream=True)


@pytest.mark.parametrize("stream", [False, True])
def test_what_no_trace_is(tmp_path, stream):
    cases = {
        "axes": ({"data": np.zeros((3, 4))}, "data has 2 axes"),
        "empty": ({"data": np.zeros((3, 0, 4))}, "empty axis"),
        "kind": ({"data": np.zeros((3, 4, 5), bool)}, "data has dtype bool"),
        "text": ({"data": np.full((3, 4, 5), "a")}, "data has dtype"),
        "objects": ({"data": np.full((3, 4, 5), None)}, "pickled"),
        "mask kind": ({"data": np.zeros((3, 4, 5)), "mask": np.ones((3, 4, 5))}, "mask has dtype float64"),
        "mask shape": ({"data": np.zeros((3, 4, 5)), "mask": np.ones((3, 4), bool)}, "mask has shape"),
        "epoch": ({"data": np.zeros((3, 4, 5)), "epoch": [1]}, "epoch has shape"),
    }
    for name, (fields, words) in cases.items():
        np.savez(tmp_path / f"{name}.npz", **fields)
        with pytest.raises((InputError, InputTypeError), match=words) as caught:
            load_trace(tmp_path / f"{name}.npz", stream=stream)
        assert f"{name}.npz" in str(caught.value)


def test_a_group_in_the_place_of_an_array(tmp_path):
    zarr, h5py = pytest.importorskip("zarr"), pytest.importorskip("h5py")
    zarr.open_group(str(tmp_path / "a.zarr"), mode="w").create_group("data")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("data")
    for name in ("a.zarr", "a.h5"):
        for stream in (False, True):
            with pytest.raises(InputError, match=f"{name}: the entry 'data' is no array"):
                load_trace(tmp_path / name, stream=stream)


@pytest.mark.parametrize("stream", [False, True, None])
def test_a_dataset_without_values(tmp_path, stream):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = h5py.Empty("f4")
    with pytest.raises(InputError, match=r"a\.h5: data has no values \(an empty HDF5 dataset\); accepted: an array"):
        load_trace(tmp_path / "a.h5", stream=stream)


def test_a_flipped_bit_in_an_npz_is_found_on_opening(tmp_path):
    np.savez(tmp_path / "a.npz", data=values())
    raw = bytearray((tmp_path / "a.npz").read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / "a.npz").write_bytes(bytes(raw))
    with pytest.raises(InputError, match=r"a\.npz cannot be read: BadZipFile: Bad CRC"):
        load_trace(tmp_path / "a.npz", stream=True)


# ---------------------------------------------------------------- files that change meanwhile


def cut_off(path):
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 400)


def overwrite(path):
    with path.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\0\0\0\0")
    os.utime(path, ns=(1, 1))  # two writes within one tick of the clock cannot be told apart


def replaced(path):
    data = path.read_bytes()
    state = path.stat()
    path.rename(path.with_suffix(".old"))
    path.write_bytes(data)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.parametrize("change", [cut_off, overwrite, replaced, lambda path: path.unlink()])
@pytest.mark.parametrize("name", [".npy", ".npz", ".h5", "a recording"])
def test_a_file_that_changes_is_an_error_that_names_it(tmp_path, small_blocks, name, change):
    if name == ".h5":
        pytest.importorskip("h5py")
    path = FORMATS[name](tmp_path, False)
    trace = load_trace(path, stream=True)
    op = mp.MMPHATE(n_landmark=30, random_state=0)
    points = trace_points(trace, n_pca=7).points
    change(path / "snapshot_000001.npy" if path.is_dir() else path)
    for read in (normalize, flat_points, fingerprint, op.fit, Trace.load, lambda t: t.subsample(epochs=[1])):
        with pytest.raises(InputError, match=rf"{path.name}.*(has changed|cannot be read|no HDF5 file)"):
            read(trace)
    with pytest.raises(InputError, match=rf"{path.name}.*(has changed|cannot be read|no HDF5 file)"):
        reduce(points, 7)


def test_a_chunk_that_vanishes_is_no_zero(tmp_path, small_blocks):
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    group.create_array("data", shape=SHAPE, chunks=(1, 3, 5, 23), dtype="float32")[...] = values()
    trace = load_trace(tmp_path / "a.zarr", stream=True)
    chunk = max((tmp_path / "a.zarr").rglob("*"), key=lambda item: item.stat().st_size if item.is_file() else 0)
    chunk.unlink()
    with pytest.raises(InputError, match=r"a\.zarr has changed"):
        normalize(trace)


def test_snapshots_of_other_shapes(tmp_path):
    path = write_recording(tmp_path, False)
    np.save(path / "snapshot_000001.npy", values((6, 5, 22)))
    for stream in (False, True):
        with pytest.raises(InputError, match="shape"):
            load_trace(path, stream=stream)


def test_a_recording_that_goes_on_is_read_as_it_was(tmp_path, small_blocks):
    with Recorder(torch.nn.GRU(2, 3), "", probe=torch.randn(5, 4, 2), path=tmp_path / "run") as recorder:
        recorder.snapshot(0)
        recorder.snapshot(1)
        trace = load_trace(tmp_path / "run", stream=True)
        before = normalize(trace)
        recorder.snapshot(2)
    assert torch.equal(normalize(trace), before) and trace.n_epochs == 2


# ---------------------------------------------------------------- by itself


def test_a_large_file_is_read_by_parts_by_itself(tmp_path, monkeypatch):
    for name, write in FORMATS.items():
        if name == ".zarr":
            pytest.importorskip("zarr")
        (tmp_path / name[1:3]).mkdir(exist_ok=True)
        path = write(tmp_path / name[1:3], False)
        needed = 4 * int(np.prod(files.heading(path).shape))
        monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", str(4 * needed - 4))
        assert streamed(load_trace(path)) and not streamed(load_trace(path, stream=False)), name
        monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", str(4 * needed))
        assert not streamed(load_trace(path)) and streamed(load_trace(path, stream=True)), name


MEASURE = """
import sys
from pathlib import Path
import numpy as np
import mmphate_gpu as mp
from mmphate_gpu.cli import main

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024

mp.MMPHATE(random_state=0, device="cpu").fit(np.random.default_rng(0).normal(size=(30, 4, 10)).cumsum(0))
before = peak()
code = main(["embed", sys.argv[1], "--out", sys.argv[2], "--n-landmark=100", "--no-plots", "--device=cpu"])
print(peak() - before)
sys.exit(code)
"""


def embed_peak(path: Path, limit: float) -> int:
    """Bytes that ``embed`` adds to a process that has embedded a small trace before."""
    env = os.environ | {"MMPHATE_GPU_MEMORY_LIMIT": str(limit), "OMP_NUM_THREADS": "1"}
    env["PYTHONPATH"] = os.pathsep.join([str(Path(mp.__file__).parent.parent), env.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", MEASURE, str(path), str(path.with_suffix(".out"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1])


def write_walk(path: Path, n_slices: int, n_units: int, n_samples: int) -> None:
    """A walk of the units on a curve in sample space, written slice by slice."""
    shape = (n_slices, n_units, n_samples)
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    base = np.random.default_rng(0).normal(size=(3, *shape[1:])).astype(np.float32)
    for i in range(n_slices):
        out[i] = np.cos(i / 15) * base[0] + np.sin(i / 25) * base[1] + np.cos(i / 7) * base[2]


def ceiling(n_nodes: int, n_samples: int) -> int:
    """What a run read block by block may add, in bytes: loadings, blocks, and square matrices of the nodes.

    Loadings (D, 100) in float64 three times (the product, its QR, LAPACK's copy); eight blocks of 32 MiB (values and
    two temporaries in float32, points, centered points and their products in float64); the Gram matrix, its
    eigenvectors and LAPACK's two copies; 64 MiB for the stages after the PCA and for the allocator.
    """
    return 3 * 8 * 100 * n_samples + 8 * 2**25 + 4 * 8 * n_nodes**2 + 2**26


LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="VmHWM is Linux's")


@LINUX
def test_embed_of_a_file_above_the_limit_stays_small(tmp_path):
    write_walk(tmp_path / "a.npy", 50, 20, 50_000)  # 200 MB, in float64 400 MB; from memory a run adds 512 MB
    assert embed_peak(tmp_path / "a.npy", 6e8) < ceiling(1000, 50_000) < 0.9e9


@LINUX
@pytest.mark.slow
def test_embed_of_a_large_file_stays_small(tmp_path):
    write_walk(tmp_path / "a.npy", 100, 20, 187_500)  # 1.5 GB, in float64 3 GB
    assert embed_peak(tmp_path / "a.npy", 2e9) < ceiling(2000, 187_500) < 1e9


def test_the_command_line_gives_the_same_embedding_block_by_block(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_trace("a.npz", as_trace(values((10, 3, 5, 400)), label=np.arange(400) % 4))
    argv = ["embed", "a.npz", "--n-landmark=40", "--no-plots", "--device=cpu", "--out"]
    assert main([*argv, "memory"]) == 0
    used = []
    plain = Contents.stored
    monkeypatch.setattr(Contents, "stored", lambda contents: (used.append(contents.path), plain(contents))[1])
    monkeypatch.setattr("mmphate_gpu.trace.files.STREAM_SHARE", 1e-9)
    assert main([*argv, "parts"]) == 0 and len(used) == 1
    from_memory, from_file = (mp.Embedding.load(f"{out}/embedding.npz") for out in ("memory", "parts"))
    assert np.array_equal(from_memory.coordinates, from_file.coordinates) and np.array_equal(
        from_memory.most_active, from_file.most_active
    )
    assert main(["plan", "a.npz"]) == 0 and len(used) == 2


def test_the_plan_counts_no_trace_that_goes_block_by_block():
    """1.5 GB of values: more than a quarter of a 4 GB card, less than one of an 8 GB card."""
    small, large = (mp.plan((100, 20, 187_500), device=f"{size} GB card", n_landmark=100) for size in (4, 8))
    assert small.fits and large.peak_bytes - small.peak_bytes == 100 * 20 * 187_500 * 4


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_is_given_one_block_at_a_time(tmp_path):
    np.save(tmp_path / "a.npy", values((40, 8, 200_000)))
    held = load_trace(tmp_path / "a.npy", stream=False)
    trace = load_trace(tmp_path / "a.npy", stream=True).to(torch.device("cuda", 0))
    torch.cuda.reset_peak_memory_stats()
    start = torch.cuda.memory_allocated()
    lazy = trace_points(trace, n_pca=10).points
    assert torch.cuda.max_memory_allocated() - start < 8 * 2**25 < trace.nbytes * 2
    in_memory = trace_points(held, n_pca=10).points
    theirs, ours = principal_axes(lazy, 10).scores(lazy).cpu(), principal_axes(in_memory, 10).scores(in_memory)
    assert (theirs - ours)[..., :3].abs().max() < 1e-8 * ours.abs().max()
