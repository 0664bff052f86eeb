"""A layer that returns something ambiguous or no state is refused, and the error has the option to use."""

from __future__ import annotations

import collections
import dataclasses

import pytest
import torch
from torch import nn

from mmphate_gpu.errors import InputError

from .layer_states import B, F, H, Returns, T, probe, states

X = probe()


@dataclasses.dataclass
class ModelOutput:
    hidden: torch.Tensor


def returns(function, **options):
    return Returns(function), "layer", options


REFUSED = {
    "three axes of unknown order": (
        *(nn.Linear(F, H), "", {}),
        r"'' is a Linear and returns \(6, 5, 4\); accepted: batch_first=True if .* or time_axis=2",
    ),
    "a block whose last layer mixes the time": (
        *(nn.Sequential(nn.Conv1d(T, H, 1), nn.Linear(F, H)), "", {}),
        r"'' is a Sequential and returns \(6, 4, 4\); accepted: batch_first",
    ),
    "batch_first against the module": (
        *(nn.GRU(F, H, batch_first=True), "", {"batch_first": False}),
        r"batch_first=False contradicts layer '', a GRU that returns \(batch, timestep, unit\); accepted: no batch",
    ),
    "time_axis against the module": (
        *(nn.GRU(F, H), "", {"time_axis": 1}),
        r"time_axis=1 contradicts layer '', a GRU that returns \(timestep, batch, unit\); accepted: no time_axis",
    ),
    "a convolution with the time first": (
        *(nn.Conv1d(T, H, 1), "", {"batch_first": False}),
        r"batch_first=False contradicts layer '', a Conv1d that returns \(batch, unit, timestep\)",
    ),
    "both options": (
        *(nn.Linear(F, H), "", {"batch_first": True, "time_axis": 1}),
        r"batch_first=True and time_axis=1 both choose the axis of time; accepted: one of them",
    ),
    "batch_first as a text": (nn.Linear(F, H), "", {"batch_first": "yes"}, r"batch_first='yes'; accepted: True, False"),
    "time_axis as a text": (nn.Linear(F, H), "", {"time_axis": "last"}, r"time_axis='last' must be an integer"),
    "time_axis as a truth value": (nn.Linear(F, H), "", {"time_axis": True}, r"time_axis=True must be an integer"),
    "time_axis beyond three axes": (
        nn.Linear(F, H),
        "",
        {"time_axis": 3},
        r"time_axis=3 is out of range; it must be",
    ),
    "time_axis beyond two axes": (
        *returns(lambda x: x[:, 0], time_axis=2),
        r"returns \(6, 3\), but time_axis=2; accepted: time_axis=0 or 1 for two axes",
    ),
    "batch_first for two axes": (
        *returns(lambda x: x[:, 0], batch_first=True),
        r"two axes, but batch_first=True means three; accepted: no batch_first for \(batch, unit\), or time_axis=0 for",
    ),
    "four axes": (
        *returns(lambda x: x[None]),
        r"returns \(1, 6, 5, 3\), an output of 4 axes; accepted: .* state= with",
    ),
    "one axis": (*returns(lambda x: x[:, 0, 0]), r"returns \(6,\), an output of 1 axes; accepted: \(batch, unit\)"),
    "a loss": (*returns(lambda x: x.mean()), r"returns \(\), an output of 0 axes; accepted: \(batch, unit\)"),
    "a dict": (
        *returns(lambda x: {"h": x, "n": 1}),
        r"returns a dict with the keys 'h', 'n'; accepted: .* state= with",
    ),
    "a dict of another class": (
        *returns(lambda x: collections.OrderedDict(last_hidden_state=x)),
        r"returns a OrderedDict with the keys 'last_hidden_state'; accepted",
    ),
    "an object": (*returns(ModelOutput), r"returns a ModelOutput with the fields 'hidden'; accepted"),
    "nothing": (*returns(lambda x: None), r"returns None; accepted"),
    "an empty tuple": (*returns(lambda x: ()), r"returns a tuple without a tensor among its 0 items; accepted"),
    "a tuple of tuples": (*returns(lambda x: ((x,),)), r"returns a tuple without a tensor among its 1 items; accepted"),
    "complex numbers": (
        *returns(lambda x: x.cfloat(), batch_first=True),
        r"returns torch.complex64; accepted: real numbers, such as those of state=lambda module, output: torch.view",
    ),
    "quantized numbers": (
        *returns(lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8), batch_first=True),
        r"returns torch.qint8; accepted: real numbers, such as those of state=lambda module, output: output.deq",
    ),
    "a sparse tensor": (
        *returns(lambda x: x.to_sparse(), batch_first=True),
        r"of another form \(Tensor torch.sparse_coo",
    ),
    "a meta tensor": (
        *returns(lambda x: x.to("meta"), batch_first=True),
        r"of another form \(meta\); accepted: a dense",
    ),
    "whole numbers that float64 does not hold": (
        *returns(lambda x: torch.full((B, T, 2), 2**53 + 1), batch_first=True),
        r"returns integers from 9007199254740993 .* accepted: those that float64 holds exactly, up to 2\*\*53",
    ),
    "nested sequences of other numbers of units": (
        *returns(lambda x: torch.nested.nested_tensor([x[0], x[1, :, :2]])),
        r"returns a nested tensor of the shapes \(5, 3\), \(5, 2\); accepted: \(timestep, unit\) for each sample",
    ),
    "nested tensors of three axes": (
        *returns(lambda x: torch.nested.nested_tensor([x, x[:2]])),
        r"returns a nested tensor of the shapes \(6, 5, 3\), \(2, 5, 3\); accepted: \(timestep, unit\)",
    ),
    "a function that returns no tensor": (
        *returns(lambda x: x, state=lambda module, output: {"h": output}),
        r"function of state= returns a dict with the keys 'h' for layer 'layer'; accepted: a function of \(mod",
    ),
    "a function that forgets its return": (
        *returns(lambda x: x, state=lambda module, output: None),
        r"the function of state= returns None for layer 'layer'; accepted: a function of \(module, output\) that",
    ),
    "a function that fails": (
        *returns(lambda x: x, state=lambda module, output: output.hidden),
        r"state= fails on the Tensor that layer 'layer' returns \(AttributeError: .*'hidden'\); accepted: a func",
    ),
    "a function of the output only": (
        *returns(lambda x: x, state=lambda output: output),
        r"state is a function with other arguments \(too many .*\); accepted: \(module, output\)",
    ),
    "a part of a layer, and a function": (
        *(nn.GRU(F, H), "", {"state": lambda module, output: output, "layer": 0}),
        r"layer=0 chooses a part of an RNN, LSTM or GRU, but state is a function; accepted: no such option",
    ),
    "a function of unknown order, though the module knows its order": (
        *(nn.GRU(F, H), "", {"state": lambda module, output: output[0]}),
        r"'' is a GRU and returns \(6, 5, 4\); accepted: batch_first",
    ),
    "a layer that does not run": (
        *(nn.ModuleDict({"idle": nn.Linear(F, H)}), "idle", {}),
        r"layer 'idle' did not run in one forward of the probe in evaluation mode; accepted: a layer that runs$",
    ),
    "a container, which never runs": (
        *(nn.ModuleDict({"idle": nn.ModuleList([nn.Linear(F, H)])}), "idle", {}),
        r"layer 'idle' did not run .*; accepted: a module of this ModuleList: 'idle.0'$",
    ),
    "a sequence returned twice": (
        *(Returns(None), "layer", {"batch_first": True}),
        r"ran 2 times in one forward of the probe and returned 5 time steps at a time; accepted: one call",
    ),
    "time steps of other shapes": (
        *(Returns(lambda x: x[0] if x.ndim == 3 else x[:2]), "layer", {}),
        r"ran 2 times .* and returned \(sample, unit\) = \(2, 3\) and \(5, 3\); accepted: the same shape at each time",
    ),
}


def _prepared(scenario, model):
    """The model of a scenario with a forward that runs its layer as often as the scenario says."""
    if scenario in ("a layer that does not run", "a container, which never runs"):
        model.forward = lambda x: None
    elif scenario == "a sequence returned twice":
        model.layer = nn.Identity()
        model.forward = lambda x: model.layer(model.layer(x))
    elif scenario == "time steps of other shapes":
        model.forward = lambda x: model.layer(model.layer(x))
    return model


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors", "ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("scenario", REFUSED)
def test_what_is_ambiguous_or_no_state_is_refused_in_one_sentence(scenario):
    model, name, options, message = REFUSED[scenario]
    with pytest.raises(InputError, match=message):
        states(_prepared(scenario, model), name, X, **options)
