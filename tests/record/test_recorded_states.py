"""Cell states, gates and functions of the output through a `Recorder`, while a model trains."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mmphate_gpu.errors import InputError
from mmphate_gpu.record import Recorder

from .layer_states import B, F, H, T, by_hand, probe

# The loops are in float64. States of four units in float32 are off by 2e-7 at most; wrong ones by more than 0.01.
CLOSE = {"rtol": 0, "atol": 2e-6}


class Net(nn.Module):
    """A recurrent layer under dropout, and a head."""

    def __init__(self, cls=nn.LSTM, **options):
        super().__init__()
        torch.manual_seed(0)
        self.rnn = cls(F, H, batch_first=True, **options)
        self.head = nn.Sequential(nn.Dropout(), nn.Linear(H * (2 if self.rnn.bidirectional else 1), 2))

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


def train(model, record=lambda epoch: None, epochs=3):
    """The weights after training; ``record(epoch)`` comes before each epoch."""
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    torch.manual_seed(1)
    for epoch in range(epochs):
        record(epoch)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.randn(B, T, F)), torch.arange(B) % 2).backward()
        optimizer.step()
    return [weight.detach().clone() for weight in model.parameters()]


def expected(rnn, state, x=None):
    """The states by hand of all layers and directions, (T, M, P)."""
    runs = [by_hand(rnn, sequence) for sequence in (probe() if x is None else x)]
    return np.stack([np.concatenate([run[key][state] for key in run], 1) for run in runs], -1)


@pytest.mark.parametrize(("cls", "state"), [(nn.LSTM, "c"), (nn.LSTM, "gates"), (nn.GRU, "gates"), (nn.RNN, "h")])
def test_the_training_does_not_notice_a_replay(cls, state):
    options = {"num_layers": 2, "bidirectional": True, "dropout": 0.5}
    plain, model, by_epoch = train(Net(cls, **options)), Net(cls, **options), []
    with Recorder(model, "rnn", probe(), state=state, layer="all") as recorder:

        def record(epoch):
            recorder.snapshot(epoch)
            by_epoch.append(expected(model.rnn, state))

        recorded = train(model, record)
    assert all(map(torch.equal, plain, recorded))
    np.testing.assert_allclose(recorder.trace().data, np.stack(by_epoch), **CLOSE)
    ids = list(dict.fromkeys(recorder.trace().unit_layer))
    assert [name.split()[0] for name in ids][:: max(len(ids) // 4, 1)] == [
        f"rnn.{layer}.{direction}" for layer in range(2) for direction in ("forward", "backward")
    ]


def test_a_replay_starts_from_the_state_that_the_model_carries():
    class Stateful(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.state = nn.LSTM(F, H, batch_first=True), (probe(1, B, H, seed=1), probe(1, B, H, seed=2))

        def forward(self, x):
            output, state = self.rnn(x, self.state)
            self.state = tuple(part.detach() for part in state)
            return output

    model = Stateful()
    start = model.state
    with Recorder(model, "rnn", probe(), state="c") as recorder:
        recorder.snapshot(0)
        recorder.snapshot(1)
    runs = [by_hand(model.rnn, x, [part[:, sample] for part in start]) for sample, x in enumerate(probe())]
    by_loop = np.stack([run[0, 0]["c"] for run in runs], -1)
    np.testing.assert_allclose(recorder.trace().data, np.stack([by_loop, by_loop]), **CLOSE)
    assert model.state is start


def test_the_state_that_a_module_keeps_is_taken_before_it_is_put_back():
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.states = nn.Parameter(torch.polar(torch.ones(F), torch.arange(F) + 0.5)), None

        def forward(self, x):
            self.states = torch.cumsum(x.cfloat() * self.weight, 1)
            return self.states.real

    model = nn.Sequential(Keeps())
    keep = {"batch_first": True, "state": lambda module, output: torch.view_as_real(module.states).flatten(-2)}
    with Recorder(model, "0", probe(), **keep) as recorder:
        recorder.snapshot(0)
    by_loop = np.cumsum(probe().double().numpy() * np.exp(1j * (np.arange(F) + 0.5)), 1)
    parts = np.stack([by_loop.real, by_loop.imag], -1).reshape(B, T, 2 * F)
    np.testing.assert_allclose(recorder.trace().data[0], parts.transpose(1, 2, 0), **CLOSE)
    assert model[0].states is None and set(recorder.trace().unit_layer) == {"0"}


def test_weights_of_a_hook_are_those_of_the_forward():
    with pytest.warns(FutureWarning, match="weight_norm"):
        rnn = nn.utils.weight_norm(nn.LSTM(F, H, batch_first=True), "weight_hh_l0")
    with Recorder(nn.Sequential(rnn), "0", probe(), state="c") as recorder:
        for epoch in range(2):
            with torch.no_grad():
                rnn.weight_hh_l0_g.mul_(1.5)  # the weight itself is computed in the next forward
            recorder.snapshot(epoch)
            rnn(probe())
            np.testing.assert_allclose(recorder.trace().data[epoch], expected(rnn, "c"), **CLOSE)


def test_a_compiled_model_is_replayed_under_its_plain_name():
    model = Net()
    compiled = torch.compile(model, backend="eager")
    compiled(probe()).sum().backward()
    with Recorder(compiled, "rnn", probe(), state="gates") as recorder:
        recorder.snapshot(0)
    np.testing.assert_allclose(recorder.trace().data[0], expected(model.rnn, "gates"), **CLOSE)


def test_batches_of_packed_sequences_are_replayed():
    lengths = torch.tensor([2, 5, 3, 5, 1, 4])

    class Packs(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(F, H, batch_first=True, bidirectional=True)

        def forward(self, x, lengths):
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            return pad_packed_sequence(self.rnn(packed)[0])[0]

    model = Packs()
    batches = [(probe()[start : start + 3], lengths[start : start + 3]) for start in (0, 3)]
    with Recorder(model, "rnn", batches, state="gates") as recorder:
        recorder.snapshot(0)
    trace = recorder.trace()
    assert torch.equal(trace.mask[0, :, 0], torch.arange(T)[:, None] < lengths)
    for sample, length in enumerate(lengths):
        alone = expected(model.rnn, "gates", probe()[[sample], :length])
        np.testing.assert_allclose(trace.data[0, :length, :, [sample]], alone, **CLOSE)


def test_states_that_diverged_are_refused_as_such():
    model = Net()
    with Recorder(model, "rnn", probe(), state="c", on_error="raise") as recorder:
        recorder.snapshot(0)
        nn.init.constant_(model.rnn.weight_ih_l0, float("nan"))
        with pytest.raises(InputError, match="the training has diverged"):
            recorder.snapshot(1)
    assert recorder.trace().n_epochs == 1


def test_layers_of_every_sort_in_one_trace():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.rnn = nn.Conv1d(F, 2, 1), nn.GRU(2, H, 2, batch_first=True)
            self.cell, self.head = nn.GRUCell(H, 3), nn.Linear(3, 2)

        def forward(self, x):
            y, h, steps = self.rnn(self.conv(x.mT).mT)[0], None, []
            for step in y.unbind(1):
                h = self.cell(step, h)
                steps.append(h)
            return self.head(torch.stack(steps, 1))

    model = Both()
    before = copy.deepcopy(model.state_dict())
    names = ["conv", "rnn", "cell", "head"]
    with Recorder(model, names, probe(), layer="all", batch_first=True) as recorder:
        recorder.snapshot(0)
    trace = recorder.trace()
    sizes = {name: int((trace.unit_layer == name).sum()) for name in dict.fromkeys(trace.unit_layer)}
    assert sizes == {"conv": 2, "rnn.0": H, "rnn.1": H, "cell": 3, "head": 2}
    with torch.no_grad():
        conv = model.conv(probe().mT)
        output = model(probe())
    assert torch.equal(trace.data[0, :, :2], conv.permute(2, 1, 0))
    assert torch.equal(trace.data[0, :, -2:], output.permute(1, 2, 0))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
