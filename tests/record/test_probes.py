"""Arrays that a forward writes to, probes of any type, folders, and models of many parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.record import Recorder, saved

from .cells import F, H, probe

# ---------------------------------------------------------------- arrays, probes, folders


def test_arrays_that_cannot_be_written_to_are_not_copied(tmp_path, monkeypatch):
    np.save(tmp_path / "data.npy", np.ones((4, 3)))
    model = nn.Sequential(nn.GRU(F, H, batch_first=True))
    model.mapped, model.fixed = np.load(tmp_path / "data.npy", mmap_mode="r"), np.ones(3)
    model.fixed.flags.writeable = False
    model.weights = np.array([np.nan, -0.0, 1.0])[::2]
    copied = []
    monkeypatch.setattr(saved, "_ArrayPart", lambda array, make=saved._ArrayPart: copied.append(array) or make(array))
    with Recorder(model, "0", probe=probe()) as rec:
        rec.snapshot(0)
    assert copied and all(array is model.weights for array in copied)


ARRAYS = {
    "numbers": np.array([[np.nan, -0.0], [1.0, 2.0]]),
    "a view with steps": np.arange(12.0).reshape(4, 3)[::2, ::-1],
    "complex numbers": np.ones(3, complex),
    "texts": np.array(["a", "bc"]),
    "records": np.zeros(2, [("a", "i4"), ("b", "f8")]),
    "half precision": np.ones((2, 2), np.float16),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_a_forward_writes_to_are_restored(name):
    array = ARRAYS[name].copy()

    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.array = nn.GRU(F, H, batch_first=True), array

        def forward(self, x):
            self.array[...] = self.array[::-1].copy()
            self.array[:1] = self.array[-1:]
            return self.rnn(x)[0]

    with Recorder(Writes(), "rnn", probe=probe()) as rec:
        rec.snapshot(0)
    assert array.tobytes() == ARRAYS[name].copy().tobytes()


@pytest.mark.parametrize(
    ("bad", "name"),
    [("text", "str"), (b"bytes", "bytes"), (3, "int"), (TensorDataset(probe()), "Tens")],
)
def test_probes_that_are_no_batch(bad, name):
    with pytest.raises(InputTypeError, match=f"probe is a {name}.*; accepted: a tensor, a NumPy array, a tuple"):
        Recorder(nn.Sequential(nn.GRU(F, H)), "0", bad)


def test_a_model_may_take_lists_and_arrays():
    class Takes(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(F, H, batch_first=True)

        def forward(self, rows):
            return self.rnn(torch.as_tensor(np.stack(rows)))[0]

    model = Takes()
    for rows in (probe().numpy(), (list(probe().numpy()),)):
        with Recorder(model, "rnn", probe=rows) as rec:
            rec.snapshot(0)
        assert torch.equal(rec.trace().data[0], model(probe().numpy()).detach().permute(1, 2, 0))


def test_hidden_files_are_no_content(tmp_path):
    (tmp_path / ".ipynb_checkpoints").mkdir()
    with Recorder(nn.Sequential(nn.GRU(F, H)), "0", probe=probe(), path=tmp_path) as rec:
        (tmp_path / ".DS_Store").write_text("")
        rec.snapshot(0)
        (tmp_path / ".nfs1").write_text("")
        rec.snapshot(1)
    assert rec.trace().n_epochs == 2
    other = Recorder(nn.Sequential(nn.GRU(F, H)), "0", probe=probe(), path=tmp_path)
    with pytest.raises(InputError, match="is not empty"), other:
        pass


# ---------------------------------------------------------------- many parts


def test_small_tensors_are_restored_one_by_one():
    """Tensors that are copied together: of some the bits, the place or a flag change, and of some nothing."""

    class Many(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.log = nn.GRU(F, H, batch_first=True), [torch.full((n,), float(n)) for n in range(6)]
            self.empty, self.deep = {"a": {}}, [(1, "x"), ((2, torch.zeros(2)),)]

        def forward(self, x):
            self.log[1].fill_(float("nan"))
            self.log[2].data = torch.zeros(9)
            self.log[3].requires_grad_()
            self.log[4].neg_()
            self.empty["a"]["b"] = 1
            self.deep[1][0][1].add_(1)
            return self.rnn(x)[0]

    model = Many()
    tensors, versions = list(model.log), [tensor._version for tensor in model.log]
    with Recorder(model, "rnn", probe=probe()) as rec:
        rec.snapshot(0)
    assert all(a is b for a, b in zip(model.log, tensors, strict=True))
    assert [tensor.tolist() for tensor in model.log] == [[float(n)] * n for n in range(6)]
    assert not any(tensor.requires_grad for tensor in model.log) and model.empty == {"a": {}}
    assert model.log[5]._version == versions[5] and model.deep[1][0][1].tolist() == [0, 0]
