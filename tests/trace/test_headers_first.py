"""The header of a file is judged before its values are read."""

from __future__ import annotations

import json
import os
import tracemalloc
import zipfile

import numpy as np
import pytest

from mmphate_gpu import InputError, load_trace
from mmphate_gpu.trace.formats import npy
from mmphate_gpu.trace.formats.recording import META

from .headers import LITTLE, described, npy_bytes, of, recording, refused_in_little_memory, zipped
from .traces import SHAPE, streams, values

# ---------------------------------------------------------------- shapes and sizes


@streams
@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ((10**9, 0, 10**9), r"data has an empty axis unit, shape \(1000000000, 0, 1000000000\)"),
        ((0, 2, 3, 4), "data has an empty axis epoch"),
        ((10**9, 10**9, 10**9), "is truncated: its values have 0 bytes"),
        ((10**30, 2, 2), "is truncated"),
        ((-1, 2, 2), r"has the shape \(-1, 2, 2\)"),
        ((-2, -2, 2), r"has the shape \(-2, -2, 2\)"),
        ((1,) * 300, "has 300 axes; accepted: at most 16"),
    ],
)
def test_a_npy_of_an_impossible_shape(tmp_path, shape, match, stream):
    (tmp_path / "a.npy").write_bytes(npy_bytes(described(shape)))
    refused_in_little_memory(lambda: load_trace(tmp_path / "a.npy", stream=stream), rf"a\.npy.*{match}")


@streams
@pytest.mark.parametrize("shape", [(10**9,), (10**5, 10**4), (10**3, 10, 10, 10, 100)])
def test_a_large_npy_of_other_axes(tmp_path, shape, stream):
    """A sparse file of eight gigabytes, which takes no room on the disk."""
    with (tmp_path / "a.npy").open("wb") as file:
        file.write(npy_bytes(described(shape)))
        file.truncate(file.tell() + 8 * 10**9)
    refused_in_little_memory(lambda: load_trace(tmp_path / "a.npy", stream=stream), rf"data has {len(shape)} axes")


@streams
@pytest.mark.parametrize(
    ("field", "array", "match"),
    [
        ("data", np.zeros(500_000), r"data has 1 axes, shape \(500000,\)"),
        ("label", np.zeros(500_000), r"label has shape \(500000,\); accepted: \(7,\), one value per sample"),
        ("epoch", np.zeros(500_000), r"epoch has shape \(500000,\); accepted: \(4,\), one value per epoch"),
        ("unit", np.zeros((5, 10**5)), r"unit has shape \(5, 100000\); accepted: \(5,\)"),
        ("mask", np.zeros((2000, 1000), bool), r"mask has shape \(2000, 1000\)"),
        ("mask", np.zeros((4, 3, 5, 10**5), bool), "mask has shape"),
        ("mask", np.zeros((3, 7), "U50000"), "mask has dtype <U50000; accepted: booleans"),
        ("axes", np.zeros(500_000, "U1"), r"axes has shape \(500000,\); accepted: \(4,\)"),
        ("axes", np.zeros(4, "U200000"), "axes has entries of 800000 bytes; accepted: at most 65536"),
        ("sample", np.zeros(7, "S1000000"), "sample has entries of 1000000 bytes"),
        ("timestep", np.zeros((3, 0)), r"timestep has shape \(3, 0\)"),
    ],
)
def test_compressed_arrays_that_do_not_fit_the_data(tmp_path, field, array, match, stream):
    path = zipped(tmp_path / "a.npz", **({"data": of(values())} | {field: of(array)}))
    refused_in_little_memory(lambda: load_trace(path, stream=stream), rf"a\.npz: {match}")


def test_an_entry_that_no_trace_uses_is_not_read(tmp_path):
    path = zipped(tmp_path / "a.npz", data=of(values()), other=of(np.zeros(500_000)))
    tracemalloc.start()
    assert load_trace(path).shape == SHAPE
    assert tracemalloc.get_traced_memory()[1] < LITTLE
    tracemalloc.stop()


def test_a_recording_of_other_axes(tmp_path):
    folder = recording(tmp_path / "run", np.zeros((3, 5, 7)), np.zeros((3, 5, 8)))
    for stream in (False, True):
        sentence = r"epoch 1 \(snapshot_1.npy holds float64 of shape \(3, 5, 8\), and others have \(3, 5, 7\)\)"
        with pytest.raises(InputError, match=sentence):
            load_trace(folder, stream=stream)
    (folder / "snapshot_1.npy").write_bytes(npy_bytes(described((3, 5, 10**9))))
    with pytest.raises(InputError, match=r"snapshot_1\.npy is truncated"):
        load_trace(folder)


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize(
    ("dtype", "factor"),
    [("f8", 8), ("f4", 4), ("f2", 2 + 4), ("i2", 2 + 4), ("i8", 8 + 8)],  # stored, and converted
)
def test_a_trace_that_does_not_fit_is_not_read(tmp_path, monkeypatch, dtype, factor):
    np.savez(tmp_path / "a.npz", data=(values() * 100).astype(dtype), label=np.arange(7))
    needed = int(np.prod(SHAPE)) * factor + 56
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", str(needed - 1))
    refused_in_little_memory(
        lambda: load_trace(tmp_path / "a.npz", stream=False), r"a\.npz: a trace of shape .* needs .*stream=True"
    )
    assert load_trace(tmp_path / "a.npz", stream=True).shape == SHAPE
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", str(needed))
    assert load_trace(tmp_path / "a.npz", stream=False).shape == SHAPE


def test_what_lies_beside_the_data_fits_too(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", data=values(), unit=np.array([f"{unit:1000}" for unit in range(5)]))
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", "19999")
    with pytest.raises(InputError, match=r"a\.npz: .* needs 19\.5 KiB but cpu has 19\.5 KiB"):
        load_trace(tmp_path / "a.npz", stream=True)
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", "20000")
    assert load_trace(tmp_path / "a.npz", stream=True).shape == SHAPE


# ---------------------------------------------------------------- broken headers


@streams
@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 2, 4, 5L",
        "(" * 5000,
        "-" * 9000 + "1",
        "{'descr': '<f8,<f8', 'fortran_order': False, 'shape': (4, 3, 5, 7)}",
        "{'descr': '<f8(', 'fortran_order': False, 'shape': (4, 3, 5, 7)}",
        "{'descr': '(0,', 'fortran_order': False, 'shape': (4, 3, 5, 7)}",
        "{'descr': 'M8[1/0s]', 'fortran_order': False, 'shape': (4, 3, 5, 7)}",
        "{'descr': '|V0', 'fortran_order': False, 'shape': (4, 3, 5, 7)}",
        "{'descr': '<c16', 'fortran_order': False, 'shape': (4, 3, 5, 7)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (4, 3, 5, 7)}",
        "{'descr': 7, 'fortran_order': False, 'shape': (4, 3, 5, 7)}",
        "{'descr': '<f8', 'fortran_order': 2, 'shape': (4, 3, 5, 7)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (4.0, 3, 5, 7)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': 420}",
        "{'descr': '<f8', 'fortran_order': False}",
        "[]",
        "",
        "\x00\xff\x1a",
    ],
)
def test_a_broken_header(tmp_path, header, stream):
    content = npy_bytes(header, values().tobytes())
    (tmp_path / "a.npy").write_bytes(content)
    zipped(tmp_path / "a.npz", zipfile.ZIP_STORED, data=content)
    recording(tmp_path / "run", values()[0])
    (tmp_path / "run" / "snapshot_0.npy").write_bytes(content)
    for name in ("a.npy", "a.npz", "run"):
        with pytest.raises(InputError, match=name.replace(".", r"\.")) as caught:
            load_trace(tmp_path / name, stream=stream)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("version", [(0, 0), (4, 0), (1, 7)])
def test_a_version_that_does_not_exist(tmp_path, version):
    (tmp_path / "a.npy").write_bytes(npy_bytes(described(SHAPE), values().tobytes(), version))
    with pytest.raises(InputError, match=r"a\.npy has the \.npy version"):
        load_trace(tmp_path / "a.npy")


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {"a": 1}},
        {"files": 7},
        {"files": [None]},
        {"files": ["\0"]},
        {"files": [".."]},
        {"files": ["a" * 20_000]},
        {"files": ["snapshot_0.npy", "snapshot_0.npy"], "epoch": [0, 1]},
        {"other": "x" * 5_000_000},
        {"extra": 1},
        {"extra": ["label"]},
        {"epoch": {}},
        {"epoch": [[0], []]},
        {"epoch": [0, 1]},
        {"epoch": ["a" * 100_000]},
    ],
)
@streams
def test_a_broken_list_of_snapshots(tmp_path, changes, stream):
    folder = recording(tmp_path / "run", values()[0])
    meta = json.loads((folder / META).read_text())
    (folder / META).write_text(json.dumps(meta | changes))
    with pytest.raises(InputError, match="run") as caught:
        load_trace(folder, stream=stream)
    assert len(str(caught.value)) < 600


def test_one_long_name_among_many(tmp_path):
    """NumPy pads all texts of an array to the longest: 80 MB here."""
    folder = recording(tmp_path / "run", *np.zeros((200, 1, 1, 1)))
    meta = json.loads((folder / META).read_text())
    (folder / META).write_text(json.dumps(meta | {"epoch": ["a" * 100_000, *["b"] * 199]}))
    refused_in_little_memory(lambda: load_trace(folder), "epoch holds 200 texts, one of 100000 characters")


@pytest.mark.parametrize("text", ["[" * 100_000, "\0", "", "null", '{"a": 1} {'])
def test_a_list_of_snapshots_that_is_no_json(tmp_path, text):
    folder = recording(tmp_path / "run", values()[0])
    (folder / META).write_text(text)
    with pytest.raises(InputError, match="run"):
        load_trace(folder)


@streams
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_a_header_without_end(tmp_path, version, stream):
    """NumPy reads all of it before it refuses it: up to 4 GB of a file that the disk hardly stores."""
    size = 2 if version == (1, 0) else 4
    start = b"\x93NUMPY" + bytes(version) + b"\xff" * size
    with (tmp_path / "a.npy").open("wb") as file:
        file.write(start)
        file.truncate(2**32 + 100)
    refused_in_little_memory(
        lambda: load_trace(tmp_path / "a.npy", stream=stream),
        r"a\.npy has a header of \d+ bytes; accepted: at most 10000",
    )
    path = zipped(tmp_path / "a.npz", data=start + b" " * 5_000_000)
    refused_in_little_memory(lambda: load_trace(path, stream=stream), "the entry 'data' has a header of")


def test_a_file_that_is_replaced_between_header_and_values(tmp_path):
    np.save(tmp_path / "a.npy", values())
    opened = npy.npy_array(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", values().transpose(3, 2, 1, 0).copy())
    os.replace(tmp_path / "b.npy", tmp_path / "a.npy")
    with pytest.raises(InputError, match=r"a\.npy has changed"):
        opened.read()


@streams
def test_a_name_in_capitals_that_means_nothing(tmp_path, stream):
    """It is no label of the trace by its shape, so what it holds does not matter."""
    np.savez(tmp_path / "a.npz", data=values(), Label=np.array({"a": 1}, dtype=object))
    path = zipped(tmp_path / "b.npz", zipfile.ZIP_STORED, data=of(values()), Epoch=b"\x93NUMPY\x01\x00\xff\xff")
    for name in (tmp_path / "a.npz", path):
        assert load_trace(name, stream=stream).shape == SHAPE


# ---------------------------------------------------------------- values that hardly differ


@streams
@pytest.mark.parametrize("ending", [".npz", ".h5", ".zarr"])
def test_megabytes_that_make_gigabytes(tmp_path, ending, stream):
    """Zeros compress to 1 / 1,030, and such a trace has no picture. A mask may be constant."""
    shape, path = (200, 10, 10, 1000), tmp_path / f"a{ending}"
    if ending == ".npz":
        np.savez_compressed(path, data=np.zeros(shape, np.float32))
    elif ending == ".h5":
        with pytest.importorskip("h5py").File(path, "w") as file:
            file.create_dataset("data", data=np.zeros(shape, np.float32), compression="gzip", chunks=shape)
    else:
        group = pytest.importorskip("zarr").open_group(str(path), mode="w")
        group.create_array("data", shape=shape, dtype="f4", chunks=(20, 10, 10, 1000))[...] = 1
    refused_in_little_memory(
        lambda: load_trace(path, stream=stream), r"data has values of 76\.3 MiB, of which .* nearly all are equal"
    )


@pytest.mark.slow
def test_a_constant_mask_is_read(tmp_path):
    """It has a meaning, and takes no more memory than the data beside it."""
    data = np.random.default_rng(0).integers(-99, 99, (700, 10, 10, 1000), np.int8)
    mask = of(np.ones(data.shape, bool))
    path = zipped(tmp_path / "a.npz", data=of(data), mask=mask)
    assert path.stat().st_size < data.nbytes + len(mask) / 900
    assert load_trace(path).shape == data.shape
