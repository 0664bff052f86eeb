"""A recorder's folder is readable after every snapshot, describes its content, and belongs to one recorder."""

from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from mmphate_gpu.errors import InputError
from mmphate_gpu.record import Recorder
from mmphate_gpu.record.folder import FolderStore
from mmphate_gpu.trace import load_trace

from .stores import add, recorded, same

B, T, F, H = 6, 5, 3, 4


def probe():
    return torch.randn(B, T, F, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(F, H, batch_first=True)

    def forward(self, x):
        return self.rnn(x)[0]


def test_folder_is_readable_after_every_snapshot(tmp_path):
    folder = tmp_path / "runs" / "rec"
    options = {"labels": np.arange(B), "lengths": [2, 5, 3, 5, 1, 4]}
    model = Net()
    stored = Recorder(model, "rnn", probe(), path=folder, **options)
    kept = Recorder(model, "rnn", probe(), **options)
    assert not folder.exists()
    with stored, kept:
        for epoch in (0, 5, 7.5):
            stored.snapshot(epoch, loss=epoch / 3)
            kept.snapshot(epoch, loss=epoch / 3)
            for stream in (False, True):
                first, second = load_trace(folder, stream=stream), kept.trace()
                assert np.array_equal(first.data, second.data) and torch.equal(first.mask, second.mask)
                assert first.metrics["loss"].tolist() == second.metrics["loss"].tolist()
                for name in ("epoch", "timestep", "unit", "unit_layer", "label"):
                    assert getattr(first, name).tolist() == getattr(second, name).tolist()
    assert torch.equal(stored.trace().data, kept.trace().data)
    assert {item.name for item in folder.iterdir()} == {
        ".lock",
        "meta.json",
        "snapshots.jsonl",
        *(f"snapshot_{i:06d}.npy" for i in range(3)),
    }


def test_the_content_of_the_folder(tmp_path):
    folder = recorded(tmp_path / "run", 0, 2.5)
    meta = json.loads((folder / "meta.json").read_text())
    assert meta["axes"] == ["epoch", "timestep", "unit", "sample"] and meta["layers"] == ["encoder", "decoder"]
    assert meta["shape"] == [4, 5, 6] and meta["dtype"] == "float32" and meta["timestep"] == [0, 3, 6, 9]
    assert meta["unit_layer"] == [["encoder", 3], ["decoder", 2]] and meta["label"] == [0, 1, 0, 1, 0, 1]
    assert {*meta["versions"]} == {"mmphate_gpu", "torch", "numpy", "python"} and meta["version"] == 2
    lines = [json.loads(line) for line in (folder / "snapshots.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 2.5] and lines[1]["metrics"] == {"loss": 1 / 3.5}
    for line in lines:
        assert line["sha256"] == hashlib.sha256((folder / line["file"]).read_bytes()).hexdigest()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_values_keep_their_dtype_on_the_disk(tmp_path, dtype):
    folder = recorded(tmp_path / "run", 0, 1, dtype=dtype)
    assert np.load(folder / "snapshot_000001.npy").dtype == dtype
    for stream in (False, True):
        trace = load_trace(folder, stream=stream)
        assert trace.recorded == (torch.float16 if dtype == np.float16 else None)
        assert trace.data.dtype == (torch.float64 if dtype == np.float64 else torch.float32)


def test_a_crash_while_writing_keeps_what_was_there(tmp_path, monkeypatch):
    with Recorder(Net(), "rnn", probe(), path=tmp_path, on_error="raise") as rec:
        rec.snapshot(0)
        with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
            patch.setattr(json, "dumps", lambda *args, **options: (_ for _ in ()).throw(OSError("disk full")))
            rec.snapshot(1)
        assert load_trace(tmp_path).epoch.tolist() == [0]
        rec.snapshot(1)
    assert load_trace(tmp_path).epoch.tolist() == [0, 1]


def test_folder_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "keep.txt").write_text("mine")
    for path, resume in ((tmp_path, False), (tmp_path, True), (tmp_path / "keep.txt", False)):
        with pytest.raises(InputError, match="exists and is not empty; accepted: a new or an empty folder, or resume"):
            FolderStore(path, resume=resume).open()
    with pytest.raises(InputError, match=r"sub cannot be written \(Not a directory\)"):
        FolderStore(tmp_path / "keep.txt" / "sub", resume=False).open()
    assert [item.name for item in tmp_path.iterdir()] == ["keep.txt"]


def test_hidden_files_do_not_count(tmp_path):
    (tmp_path / ".DS_Store").write_text("of the system")
    assert same(load_trace(recorded(tmp_path, 0, 1)), 0, 1)


def test_a_recorder_may_be_opened_again(tmp_path):
    with Recorder(Net(), "rnn", probe(), path=tmp_path / "a" / ".." / "run") as rec:
        rec.snapshot(0)
    with rec:
        rec.snapshot(1)
    assert rec.trace().epoch.tolist() == [0, 1]


def test_a_folder_that_others_have_changed(tmp_path):
    folder = tmp_path / "run"
    store = FolderStore(folder, resume=False)
    store.open()
    add(store, 0)
    shutil.rmtree(folder)
    with pytest.raises(InputError, match=r"has lost its meta\.json"):
        add(store, 1)
    other = FolderStore(folder, resume=False)  # the lock was deleted with the folder
    other.open()
    add(other, 0, seed=1)
    for refused in (lambda: add(store, 1), store.trace):
        with pytest.raises(InputError, match="holds another recorder's snapshots"):
            refused()
    add(other, 1, seed=1)
    assert load_trace(folder).epoch.tolist() == [0, 1]


def test_a_folder_without_a_snapshot_says_so(tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError("disk full")

    with Recorder(Net(), "rnn", probe(), path=tmp_path, on_error="raise") as rec:
        with monkeypatch.context() as patch, pytest.raises(InputError, match="disk full"):
            patch.setattr(np, "save", full)
            rec.snapshot(0)
        with pytest.raises(InputError, match="holds no snapshot; accepted"):
            load_trace(tmp_path)
        rec.snapshot(0)
        rec.snapshot(1)
    assert load_trace(tmp_path).epoch.tolist() == [0, 1]


def test_a_change_of_the_working_directory_does_not_move_the_folder(tmp_path, monkeypatch):
    (tmp_path / "elsewhere" / "run").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    rec = Recorder(Net(), "rnn", probe(), path="run")
    monkeypatch.chdir("elsewhere")
    with rec:
        rec.snapshot(0)
    assert (tmp_path / "run" / "meta.json").exists() and not any((tmp_path / "elsewhere" / "run").iterdir())


def test_coordinates_too_long_for_the_header_are_refused(tmp_path):
    store = FolderStore(tmp_path / "run", resume=False)
    store.open()
    with pytest.raises(InputError, match=r"take \d{7} bytes in meta\.json; accepted: at most 4194304"):
        add(store, 0, unit=np.arange(700_000))
    add(store, 0, 1)
    assert same(store.trace(), 0, 1)
