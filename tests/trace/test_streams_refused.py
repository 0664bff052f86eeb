"""What cannot be read block by block, and files that change while a trace reads them."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

import mmphate_gpu as mp
from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.record import Recorder
from mmphate_gpu.trace import (
    Trace,
    flat_points,
    load_trace,
    normalize,
    trace_points,
)
from mmphate_gpu.trace.fingerprint import fingerprint
from mmphate_gpu.trace.pca import reduce

from .stored_files import FORMATS, SHAPE, full_mask, streamed, values, write_recording

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
    os.utime(path, ns=(1, 1))  # two writes within one tick of the clock have the same time


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
    if trace.mask is None:  # else the points are in memory
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
