"""`load_trace` and `save_trace`: round trips, headings, bad files, and packages that are missing."""

from __future__ import annotations

import json
import pickle
import re
import sys
import zipfile

import numpy as np
import pytest
import torch

from mmphate_gpu.errors import InputError
from mmphate_gpu.record import Recorder
from mmphate_gpu.trace import (
    as_trace,
    contents,
    files,
    load_trace,
    save_trace,
)
from mmphate_gpu.trace.formats.recording import RECORDING

from .traces import SHAPE, full_mask, same, values

# ---------------------------------------------------------------- files


def rich(three=False):
    shape = (12, 5, 7) if three else SHAPE
    mask = full_mask().reshape(shape)
    n = shape[0]
    return as_trace(values(shape), mask=mask, epoch=np.linspace(0, 1, n), unit=list("abcde"), label=np.arange(7) % 2)


@pytest.mark.parametrize("three", [False, True])
@pytest.mark.parametrize("ending", [".npz", ".zarr", ".h5"])
def test_round_trip(tmp_path, ending, three):
    package = {".zarr": "zarr", ".h5": "h5py"}.get(ending)
    if package:
        pytest.importorskip(package)
    path = tmp_path / f"run{ending}"
    save_trace(path, rich(three))
    same(load_trace(path), rich(three))
    plain = as_trace(values((12, 5, 7) if three else SHAPE, dtype=np.float32))
    with pytest.raises(InputError, match="exists; accepted: a new path, or overwrite=True"):
        save_trace(path, plain)
    same(load_trace(path), rich(three))
    save_trace(path, plain, overwrite=True)
    same(load_trace(path), plain)
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_round_trip_npy(tmp_path):
    save_trace(str(tmp_path / "a.npy"), values())
    same(load_trace(tmp_path / "a.npy"), as_trace(values()))
    with pytest.raises(InputError, match=r"b\.npy: \.npy holds no mask"):
        save_trace(tmp_path / "b.npy", rich())
    assert [item.name for item in tmp_path.iterdir()] == ["a.npy"]


def test_npz_of_others(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", trace=values(), epoch=[3, 4, 5, 6], other=np.zeros(2))
    assert load_trace(tmp_path / "a.npz").epoch.tolist() == [3, 4, 5, 6]
    np.savez(tmp_path / "b.npz", embedding=values())
    with pytest.raises(InputError, match=r"holds \['embedding'\]; accepted: the trace as either 'data' or 'trace'"):
        load_trace(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", data=values(), axes=["slice", "unit", "sample"])
    with pytest.raises(InputError, match=r"c.npz: axes has shape \(3,\); accepted: \(4,\)"):
        load_trace(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", data=values(), epoch=[1])
    with pytest.raises(InputError, match="d.npz: epoch has shape"):
        load_trace(tmp_path / "d.npz")


def bad_files(folder):
    """name -> what its message must say; the files are written into ``folder``."""
    objects = np.array([{"a": 1}, None], dtype=object)
    np.save(folder / "object.npy", objects, allow_pickle=True)
    np.savez(folder / "object.npz", data=objects)
    np.savez(folder / "label.npz", data=values(), label=objects)
    (folder / "pickle.npy").write_bytes(pickle.dumps(values()))
    (folder / "pickle.npz").write_bytes(pickle.dumps(values()))
    np.save(folder / "whole.npy", values())
    np.savez(folder / "whole.npz", data=values())
    for ending in (".npy", ".npz"):
        raw = (folder / f"whole{ending}").read_bytes()
        (folder / f"cut{ending}").write_bytes(raw[: len(raw) // 2])
        (folder / f"empty{ending}").write_bytes(b"")
        (folder / f"text{ending}").write_text("epoch,unit\n1,2\n")
    raw = bytearray((folder / "whole.npz").read_bytes())
    raw[len(raw) // 2] ^= 255
    (folder / "flipped.npz").write_bytes(bytes(raw))
    (folder / "header.npy").write_bytes((folder / "whole.npy").read_bytes()[:40])
    huge = (folder / "whole.npy").read_bytes().replace(b"(4, 3, 5, 7), }      ", b"(4, 3, 5, 7777777), }")
    (folder / "huge.npy").write_bytes(huge)
    (folder / "unknown.csv").write_text("1,2")
    (folder / "folder.npz").mkdir()
    (folder / "plain").mkdir()
    return {
        "object.npy": "pickled",
        "object.npz": "pickled",
        "label.npz": "pickled",
        "pickle.npy": "pickle, which is never loaded",
        "pickle.npz": "not a .npz",
        "cut.npy": "is truncated: its values have 1616 bytes; accepted: 3360, as its header says",
        "cut.npz": "truncated or not a .npz",
        "empty.npy": "truncated or not a .npy",
        "empty.npz": "truncated or not a .npz",
        "text.npy": "truncated or not a .npy",
        "text.npz": "truncated or not a .npz",
        "flipped.npz": "cannot be read",
        "header.npy": "cannot be read",
        "huge.npy": "is truncated",
        "unknown.csv": "unknown ending",
        "folder.npz": "is a folder",
        "plain": "unknown ending",
        "missing.npy": "does not exist",
    }


def test_bad_files(tmp_path):
    for name, message in bad_files(tmp_path).items():
        with pytest.raises(InputError, match=message) as caught:
            load_trace(tmp_path / name)
        assert name in str(caught.value)


@pytest.fixture
def unread(monkeypatch):
    """Reading the values of a file fails."""

    def read(*args):
        raise AssertionError("the values are being read")

    for name in ("read", "stored"):
        monkeypatch.setattr(contents.Contents, name, read)


@pytest.mark.parametrize("three", [False, True])
@pytest.mark.parametrize("ending", [".npy", ".npz", ".zarr", ".h5"])
def test_heading(tmp_path, unread, ending, three):
    package = {".zarr": "zarr", ".h5": "h5py"}.get(ending)
    if package:
        pytest.importorskip(package)
    trace = rich(three) if ending != ".npy" else as_trace(values((12, 5, 7) if three else SHAPE, dtype=np.float32))
    save_trace(tmp_path / f"a{ending}", trace)
    heading = files.heading(tmp_path / f"a{ending}")
    assert heading == ((12, 5, 7) if three else SHAPE, np.float32 if ending == ".npy" else np.float64)
    with pytest.raises((AssertionError, InputError), match="being read"):  # a reader may take it for a broken file
        load_trace(tmp_path / f"a{ending}")


def test_heading_of_a_recording(tmp_path, unread):
    with Recorder(torch.nn.GRU(2, 3), "", probe=torch.zeros(5, 4, 2), path=tmp_path / "run") as recorder:
        for epoch in range(6):
            recorder.snapshot(epoch)
    assert files.heading(tmp_path / "run") == ((6, 5, 3, 4), np.float32)


def test_heading_of_other_containers(tmp_path):
    """An array for a store, the other key, a compressed file, a header of another version."""
    zarr = pytest.importorskip("zarr")
    zarr.save_array(str(tmp_path / "bare.zarr"), values())
    np.savez_compressed(tmp_path / "other.npz", trace=values())
    for name in ("bare.zarr", "other.npz"):
        assert files.heading(tmp_path / name) == (SHAPE, np.float64)
    for version, shape in (((2, 0), SHAPE), ((3, 0), SHAPE)):
        with zipfile.ZipFile(tmp_path / "new.npz", "w") as archive, archive.open("data.npy", "w") as file:
            np.lib.format.write_array(file, values(), version=version)
        assert shape == files.heading(tmp_path / "new.npz").shape
        same(load_trace(tmp_path / "new.npz"), as_trace(values()))


@pytest.mark.parametrize("shape", [(5,), (3, 4), (1, 5, 6), (1, 1, 5, 6), (3, 0, 5, 6), (1, 2, 3, 4, 5)])
def test_no_heading_for_what_is_no_trace(tmp_path, shape):
    np.savez(tmp_path / "a.npz", data=np.zeros(shape))
    if len(shape) in (3, 4) and 0 not in shape:  # a single slice
        assert files.heading(tmp_path / "a.npz") is None
        return
    with pytest.raises(InputError, match=r"a\.npz: data has (\d axes|an empty axis)"):
        files.heading(tmp_path / "a.npz")


def test_heading_of_bad_files(tmp_path):
    """Told as `load_trace` tells it, or left to it: what is wrong may lie in the values."""
    for name, message in bad_files(tmp_path).items():
        try:
            files.heading(tmp_path / name)
        except InputError as error:
            assert re.search(message, str(error)) and name in str(error)
        else:
            assert name == "flipped.npz"


def test_pickles_are_never_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    np.save(tmp_path / "a.npy", np.array([Payload()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", data=np.array([Payload()], dtype=object))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(InputError, match="pickled"):
            load_trace(tmp_path / name)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "holds a list; accepted: a JSON object"),
        (json.dumps({"format": "other"}), "does not describe a recording"),
        (json.dumps({"format": RECORDING, "version": 1}), "has no list 'epoch'"),
        (
            json.dumps({"format": RECORDING, "version": 1, "epoch": [], "files": [], "extra": []}),
            "no snap",
        ),
        (
            json.dumps({"format": RECORDING, "version": 1, "epoch": [0], "files": [3], "extra": []}),
            "no names",
        ),
        (
            json.dumps({"format": RECORDING, "version": 1, "epoch": [0], "files": ["a"], "extra": []}),
            "of epoch 0 \\(a is missing\\)",
        ),
    ],
)
def test_bad_recordings(tmp_path, meta, message):
    (tmp_path / "meta.json").write_text(meta)
    for read in (load_trace, files.heading):
        with pytest.raises(InputError, match=message):
            read(tmp_path)


def test_failed_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    save_trace(path, values())

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(InputError, match=r"a\.npz cannot be written \(disk full\)"):
        save_trace(path, rich(), overwrite=True)
    assert [item.name for item in tmp_path.iterdir()] == ["a.npz"]
    same(load_trace(path), as_trace(values()))


def test_refused_writing(tmp_path):
    (tmp_path / "dir.npz").mkdir()
    for path, trace, message in [
        (tmp_path / "a.csv", values(), "unknown ending"),
        (tmp_path / "no" / "a.npz", values(), "does not exist"),
        (tmp_path / "dir.npz", values(), "is a folder"),
        (tmp_path / "a.npz", np.zeros(3), "data has 1 axes"),
    ]:
        with pytest.raises(InputError, match=message):
            save_trace(path, trace, overwrite=True)
    assert [item.name for item in tmp_path.iterdir()] == ["dir.npz"]


# ---------------------------------------------------------------- optional packages


@pytest.mark.parametrize(("ending", "module", "extra"), [(".zarr", "zarr", "zarr"), (".h5", "h5py", "hdf5")])
def test_missing_package_is_named(tmp_path, monkeypatch, ending, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    path = tmp_path / f"a{ending}"
    with pytest.raises(InputError, match=rf"'{module}': pip install \"mmphate-gpu\[{extra}\]\""):
        save_trace(path, values())
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"")
    for read in (load_trace, files.heading):
        with pytest.raises(InputError, match=rf"reading .*'{module}': pip install"):
            read(path)
