"""Layers are named as in the plain model, whatever wraps it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.record.layers import find_layers, find_module, unwrapped

from .layer_states import F, H, probe, states


class Net(nn.Module):
    """Two recurrent layers, one of them within a part."""

    def __init__(self):
        super().__init__()
        self.rnn, self.part = nn.GRU(F, H), nn.ModuleDict({"rnn": nn.LSTM(H, H)})

    def forward(self, x):
        return self.part["rnn"](self.rnn(x)[0])[0]


def compiled(model):
    return torch.compile(model, backend="eager")


class Holder(nn.Module):
    """A model of the user's with a part that has the name of a wrapper."""

    def __init__(self, model):
        super().__init__()
        self.module = model


WRAPPED = {
    "no wrapper": lambda model: model,
    "torch.compile": compiled,
    "DataParallel": nn.DataParallel,
    "torch.compile of DataParallel": lambda model: compiled(nn.DataParallel(model)),
    "DataParallel of torch.compile": lambda model: nn.DataParallel(compiled(model)),
    "a part that is compiled": lambda model: setattr(model, "rnn", compiled(model.rnn)) or model,
    "a part named module": Holder,
}


@pytest.mark.parametrize("wrapper", WRAPPED)
@pytest.mark.parametrize("name", ["rnn", "part.rnn", "module.rnn", "_orig_mod.part.rnn"])
def test_a_plain_name_finds_the_module_within_wrappers(wrapper, name):
    model = Net()
    rnn, inner = model.rnn, model.part["rnn"]
    assert find_module(WRAPPED[wrapper](model), name) is (inner if name.endswith("part.rnn") else rnn)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed")
def test_a_plain_name_finds_the_module_of_a_distributed_model():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        model = Net()
        for wrapped in (nn.parallel.DistributedDataParallel(model), compiled(model)):
            assert find_module(wrapped, "part.rnn") is model.part["rnn"] and unwrapped(wrapped) is model
            assert find_module(wrapped, "") is model
    finally:
        torch.distributed.destroy_process_group()


def test_an_exact_name_comes_before_a_plain_one():
    outer, inner = nn.GRU(F, H), nn.GRU(F, H)
    model = Holder(nn.ModuleDict({"rnn": inner}))
    model.rnn = outer
    assert find_module(model, "rnn") is outer and find_module(model, "module.rnn") is inner
    model.wrapped = nn.ModuleDict({"module": nn.ModuleDict({"a": nn.GRU(F, H)}), "_orig_mod": nn.ModuleDict()})
    model.wrapped["_orig_mod"]["a"] = nn.GRU(F, H)
    with pytest.raises(
        InputError, match=r"'wrapped.a' may be any of 'wrapped.module.a', 'wrapped._orig_mod.a'; accept"
    ):
        find_module(model, "wrapped.a")


def test_several_layers_of_one_forward():
    model, x = Net(), probe(5, 6, F)
    layers, (first, second) = states(model, ["rnn", "part.rnn"], x, layer="all", state="gates")
    assert [layer.name for layer in layers] == ["rnn", "part.rnn"]
    assert first.values.shape == (5, 3 * H, 6) and second.values.shape == (5, 4 * H, 6)
    _, (alone,) = states(model, ("part.rnn",), x, state="gates")
    assert np.array_equal(second.values, alone.values)
    mixed = nn.ModuleDict({"rnn": nn.GRU(F, H, bidirectional=True), "head": nn.Linear(2 * H, 2)})
    both = find_layers(mixed, ["rnn", "head"], direction="backward", batch_first=False)
    assert [layer.units(2)[0] for layer in both] == ["rnn.backward", "head"]


def test_options_of_axes_are_for_the_layers_that_do_not_know_theirs():
    model = nn.ModuleDict({"conv": nn.Conv1d(F, 2, 1), "rnn": nn.GRU(2, H), "cell": nn.GRUCell(H, H)})
    model["own_cell"], model["act"] = nn.Sequential(nn.Linear(H, H), nn.Tanh()), nn.Tanh()

    def forward(x):  # (batch, channel, time)
        y = model["rnn"](model["conv"](x).permute(2, 0, 1))[0]
        for step in y:
            model["own_cell"](model["cell"](step))
        return model["act"](y.permute(1, 2, 0))

    model.forward = forward
    x = probe(6, F, 5)
    for options in ({"time_axis": 2}, {"time_axis": -1}):
        _, results = states(model, list(model), x, **options)
        with torch.no_grad():
            rnn = model["rnn"](model["conv"](x).permute(2, 0, 1))[0]
            cell = torch.stack([model["cell"](step) for step in rnn])
            expected = [model["conv"](x).permute(2, 1, 0), rnn.mT, cell.mT, model["own_cell"](cell).mT, rnn.tanh().mT]
        for result, by_hand in zip(results, expected, strict=True):
            np.testing.assert_allclose(result.values, by_hand, rtol=0, atol=1e-6)  # sums of single steps are rounded
    _, (result,) = states(model, ["own_cell"], x, time_axis=0)
    np.testing.assert_allclose(result.values, expected[3], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        ("gru", InputError, "layer 'gru' is no module of the model; its recurrent layers: 'rnn', 'part.rnn'"),
        ("part.gru", InputError, "layer 'part.gru' is no module of the model"),
        ([], InputError, r"layers=\[\]; accepted: at least one name, and each name once"),
        (["rnn", "rnn"], InputError, r"layers=\['rnn', 'rnn'\]; accepted: at least one name, and each name once"),
        (
            ["part", "part.rnn", "module.part.rnn"],
            InputError,
            "'part.rnn' and 'module.part.rnn' are the same module, wh",
        ),
        (["rnn", 0], InputTypeError, "layers holds a int; accepted: dotted names"),
        (nn.GRU(F, H), InputTypeError, "layers is a GRU; accepted: the dotted name of a module, or a list"),
        ({"rnn": 1}, InputTypeError, "layers is a dict; accepted: the dotted name of a module, or a list"),
    ],
)
def test_names_that_are_refused(layers, error, message):
    with pytest.raises(error, match=message):
        find_layers(Net(), layers)


def test_a_model_without_recurrent_layers_lists_its_modules():
    with pytest.raises(InputError, match=r"no RNN, LSTM or GRU among them\): '0', '1'"):
        find_layers(nn.Sequential(nn.Linear(2, 2), nn.Tanh()), "rnn")
