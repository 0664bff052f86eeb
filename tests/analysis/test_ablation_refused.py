"""What ablations refuse, and what they say."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader, TensorDataset

from mmphate_gpu import InputError
from mmphate_gpu.analysis import ablate_timesteps, ablate_units

from .recurrent_loops import reader

T, P, M = 5, 8, 4
X = torch.from_numpy(np.random.default_rng(0).normal(size=(T, P, 2)))
LABELS = torch.arange(P) % 3
BOTH = pytest.mark.parametrize("ablate", [ablate_timesteps, ablate_units])


def refused(match, *arguments, ablate=ablate_units, **options):
    with pytest.raises(InputError, match=match):
        ablate(*arguments, **options)


class Odd(nn.Module):
    """Runs its recurrent layer in one of several ways."""

    def __init__(self, way, rnn=None):
        super().__init__()
        self.way, self.rnn, self.head = way, rnn or nn.GRU(2, M, dtype=torch.float64), nn.Linear(M, 3).double()

    def forward(self, x):
        if self.way == "cells":
            h = x.new_zeros(x.shape[1], M)
            for step in x:
                h = self.rnn(step, h)
            return self.head(h)
        if self.way == "packed":
            self.rnn(pack_sequence(list(x.transpose(0, 1)), enforce_sorted=False))
        elif self.way != "never":
            self.rnn(x)
        return self.head(self.rnn(x)[0][-1] if self.way == "twice" else x.new_zeros(x.shape[1], M))


class Reversed(nn.GRU):
    """A forward of the user's."""

    def forward(self, x):
        return super().forward(x.flip(0))


@BOTH
def test_layers_whose_run_cannot_be_split(ablate):
    cells = Odd("cells", nn.GRUCell(2, M, dtype=torch.float64))
    refused("'rnn' is a GRUCell, which a loop of the model calls", cells, "rnn", X, LABELS, ablate=ablate)
    other = Odd("once", Reversed(2, M, dtype=torch.float64))
    refused("'rnn' is a Reversed; accepted: an nn.RNN, nn.LSTM or nn.GRU with", other, "rnn", X, LABELS, ablate=ablate)
    for way, match in (("twice", "ran 2 times"), ("never", "ran 0 times"), ("packed", "gets a packed sequence")):
        refused(match, Odd(way), "rnn", X, LABELS, ablate=ablate)
    refused("'head' is a Linear; accepted", Odd("once"), "head", X, LABELS, ablate=ablate)


@BOTH
def test_a_model_or_a_layer_that_does_not_exist(ablate):
    model = reader(nn.GRU)
    refused("model is a str; accepted: a torch.nn.Module", "model", "rnn", X, LABELS, ablate=ablate)
    refused("layer 'gru' is no module of the model; its recurrent layers: 'rnn'", model, "gru", X, LABELS)
    for depth in (1, -2):
        refused(f"depth={depth} is out of range", model, "rnn", X, LABELS, depth=depth, ablate=ablate)


@BOTH
def test_labels_that_do_not_fit(ablate):
    model = reader(nn.GRU)
    for labels, match in (
        (LABELS[:-1], "labels has 7 values; accepted: one for each of the probe's 8 samples"),
        ([0.5] * 8, r"the model's output has shape \(8, 3\); accepted: \(8,\), as labels, or output="),
        (LABELS + 1, r"shape \(8, 3\); accepted: logits \(8, n_classes\) of at least 4 classes"),
        (LABELS - 1, "the smallest is -1; accepted: one class for each sample, 0 to n_classes - 1"),
        (["a"] * 8, "labels has shape .8,. and dtype <U1; accepted: one integer"),
        (3, "labels has shape .. and dtype int64"),
        ([np.nan] * 8, "labels has NaN or infinity"),
        ([[0, 1]] * 8, "labels has shape .8, 2. and dtype int64, and the smallest is 0"),
    ):
        refused(match, model, "rnn", X, labels, ablate=ablate)


@BOTH
def test_outputs_that_do_not_fit(ablate):
    model = reader(nn.GRU)
    refused("output=3 is no function", model, "rnn", X, LABELS, output=3, ablate=ablate)
    refused("loss='mse' is no function", model, "rnn", X, LABELS, loss="mse", ablate=ablate)
    refused("output is a dict with the keys 'y'", model, "rnn", X, LABELS, output=lambda y: {"y": y}, ablate=ablate)
    refused("output is a single number; accepted: a row", model, "rnn", X, LABELS, output=torch.mean, ablate=ablate)
    refused("shape .8, 1, 3.; accepted: logits", model, "rnn", X, LABELS, output=lambda y: y[:, None], ablate=ablate)
    refused("shape .4, 3.; accepted: logits", model, "rnn", X, LABELS, output=lambda y: y[:4], ablate=ablate)


@BOTH
def test_probes_that_do_not_fit(ablate):
    model = reader(nn.GRU)
    pairs = TensorDataset(X.transpose(0, 1), LABELS)
    refused("a loader that shuffles", model, "rnn", DataLoader(pairs, shuffle=True), LABELS, ablate=ablate)
    refused("without the targets", model, "rnn", DataLoader(pairs, 4), LABELS, ablate=ablate)
    refused("batches of the probe have .4, 5. time steps", model, "rnn", [X[:, :4], X[1:, 4:]], LABELS, ablate=ablate)
    refused("of the dtype torch.float32", model, "rnn", X.float(), LABELS, ablate=ablate)


@BOTH
def test_weights_that_do_not_fit(ablate):
    model = reader(nn.GRU)
    for states, match in (
        (model.state_dict(), "states holds Tensor; accepted: {epoch: state_dict}"),
        ([], "states holds nothing"),
        ("run.pt", "states is a str"),
        ({"last": model.state_dict()}, r"states has the epochs \['last'\]; accepted: numbers"),
        ({7: reader(nn.LSTM).state_dict()}, r"states\[7\] does not fit the model"),
        ({7: {}}, r"states\[7\] does not fit the model"),
    ):
        refused(match, model, "rnn", X, LABELS, states=states, ablate=ablate)


def test_unknown_options():
    model = reader(nn.GRU)
    for name, value in {"replacement": "noise", "repeats": 0, "random_state": -1, "callback": 3}.items():
        for ablate in (ablate_timesteps, ablate_units):
            refused(f"{name}=", model, "rnn", X, LABELS, **{name: value}, ablate=ablate)
    for ablate in (ablate_timesteps, ablate_units):
        refused("target='a' is unknown", model, "rnn", X, LABELS, target="a", ablate=ablate)
        refused("at least|accepted: one class", model, "rnn", X, LABELS + 0.5, target="classes", ablate=ablate)
    refused("state='g' is unknown", model, "rnn", X, LABELS, state="g", ablate=ablate_timesteps)
    refused(
        "state='c' is the cell state, which only an LSTM has",
        model,
        "rnn",
        X,
        LABELS,
        state="c",
        ablate=ablate_timesteps,
    )
    refused("does not fit the 5 time steps", model, "rnn", X, LABELS, timesteps=[5], ablate=ablate_timesteps)
