"""A recorder's folder is readable after every snapshot and belongs to one recorder."""

from __future__ import annotations

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from mmphate_gpu.errors import InputError
from mmphate_gpu.record import Recorder
from mmphate_gpu.record.store import FolderStore
from mmphate_gpu.trace import load_trace

B, T, F, H = 6, 5, 3, 4


def probe():
    return torch.randn(B, T, F, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self, layer_class=nn.LSTM):
        super().__init__()
        self.rnn = layer_class(F, H, batch_first=True)

    def forward(self, x):
        return self.rnn(x)[0]


def test_folder_is_readable_after_every_snapshot(tmp_path):
    folder = tmp_path / "runs" / "rec"
    lengths = torch.tensor([2, 5, 3, 5, 1, 4])
    packed = pack_padded_sequence(probe(), lengths, batch_first=True, enforce_sorted=False)
    model = Net()
    stored = Recorder(model, "rnn", probe=packed, path=folder, labels=np.arange(B))
    kept = Recorder(model, "rnn", probe=packed, labels=np.arange(B))
    assert not folder.exists()
    with stored, kept:
        for epoch in (0, 5, 7.5):
            stored.snapshot(epoch)
            kept.snapshot(epoch)
            first, second = load_trace(folder), kept.trace()
            assert torch.equal(first.data, second.data) and torch.equal(first.mask, second.mask)
            assert first.epoch.tolist() == second.epoch.tolist() and first.label.tolist() == list(range(B))
    assert torch.equal(stored.trace().data, kept.trace().data)
    names = sorted(item.name for item in folder.iterdir())
    assert names == ["label.npy", "mask.npy", "meta.json", *(f"snapshot_{i:06d}.npy" for i in range(3))]
    assert json.loads((folder / "meta.json").read_text())["layer"] == "rnn"


def test_a_crash_while_writing_keeps_what_was_there(tmp_path, monkeypatch):
    folder = tmp_path / "rec"
    with Recorder(Net(), "rnn", probe=probe(), path=folder) as rec:
        rec.snapshot(0)
        with monkeypatch.context() as patch:
            patch.setattr(json, "dumps", lambda *args, **options: (_ for _ in ()).throw(OSError("disk full")))
            with pytest.raises(OSError, match="disk full"):
                rec.snapshot(1)
        assert load_trace(folder).epoch.tolist() == [0]
        rec.snapshot(1)
    assert load_trace(folder).epoch.tolist() == [0, 1]


def test_folder_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "keep.txt").write_text("mine")
    for path in (tmp_path, tmp_path / "keep.txt"):
        with pytest.raises(InputError, match="exists and is not empty"):
            Recorder(Net(), "rnn", probe=probe(), path=path)
    with (
        pytest.raises(InputError, match="cannot be written"),
        Recorder(Net(), "rnn", probe=probe(), path=tmp_path / "keep.txt" / "sub"),
    ):
        pass
    assert [item.name for item in tmp_path.iterdir()] == ["keep.txt"]


def owner_of(folder, nets):
    """For each snapshot in the folder, the number of the network that it records."""
    values = [net.rnn(probe())[0].detach().permute(1, 2, 0) for net in nets]
    return [next(i for i, value in enumerate(values) if torch.equal(value, part)) for part in load_trace(folder).data]


def test_the_first_snapshot_takes_the_folder(tmp_path):
    nets = [Net(nn.GRU) for _ in range(3)]
    early, late, last = (Recorder(net, "rnn", probe=probe(), path=tmp_path / "a" / ".." / "run") for net in nets)
    with early, late:
        late.snapshot(0)
        with pytest.raises(InputError, match="exists and is not empty; accepted: a new or an empty folder for each"):
            early.snapshot(0)
        with pytest.raises(InputError, match="exists and is not empty"):
            last.__enter__()
        late.snapshot(1)
    with late:
        late.snapshot(2)
    assert owner_of(tmp_path / "run", nets) == [1, 1, 1] and late.trace().n_epochs == 3
    with pytest.raises(InputError, match="holds no snapshot"):
        early.trace()


def test_of_two_recorders_that_found_the_folder_empty_one_gets_it(tmp_path, monkeypatch):
    nets = [Net(nn.GRU), Net(nn.GRU)]
    first, second = (Recorder(net, "rnn", probe=probe(), path=tmp_path) for net in nets)
    monkeypatch.setattr(FolderStore, "_check_empty", lambda self: None)  # both have looked before one has written
    with first, second:
        first.snapshot(0)
        with pytest.raises(InputError, match="is not empty"):
            second.snapshot(0)
        first.snapshot(1)
    assert owner_of(tmp_path, nets) == [0, 0]


def test_a_folder_that_others_have_changed(tmp_path):
    nets, folder = [Net(nn.GRU), Net(nn.GRU)], tmp_path / "run"
    with Recorder(nets[0], "rnn", probe=probe(), path=folder) as rec:
        (folder / "note.txt").write_text("of another process")
        with pytest.raises(InputError, match="is not empty"):
            rec.snapshot(0)
        (folder / "note.txt").unlink()
        rec.snapshot(0)
        shutil.rmtree(folder)
        with pytest.raises(InputError, match="has lost its meta.json"):
            rec.snapshot(1)
        with Recorder(nets[1], "rnn", probe=probe(), path=folder) as other:
            other.snapshot(0)  # of the same layer and epoch
            for refused in (lambda: rec.snapshot(1), rec.trace):
                with pytest.raises(InputError, match="holds another recorder's snapshots"):
                    refused()
            other.snapshot(1)
    assert owner_of(folder, nets) == [1, 1]


def test_two_copies_of_one_recorder_do_not_mix(tmp_path):
    nets = [Net(nn.GRU), Net(nn.GRU)]
    with Recorder(nets[0], "rnn", probe=probe(), path=tmp_path) as rec:
        rec.snapshot(0)
        child = copy.copy(rec)  # what a forked process holds
        child._store, child._epochs, child._model = copy.copy(rec._store), [0], nets[1]
        rec.snapshot(1)
        with pytest.raises(InputError, match="holds another recorder's snapshots"):
            child.snapshot(1)
        rec.snapshot(2)
    assert owner_of(tmp_path, nets) == [0, 0, 0]


def test_a_process_that_ends_in_its_first_snapshot_leaves_a_folder_that_says_so(tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError("disk full")

    with Recorder(Net(), "rnn", probe=probe(), path=tmp_path) as rec:
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
    rec = Recorder(Net(), "rnn", probe=probe(), path="run")
    monkeypatch.chdir("elsewhere")
    with rec:
        rec.snapshot(0)
    assert (tmp_path / "run" / "meta.json").exists() and not any((tmp_path / "elsewhere" / "run").iterdir())
