"""What a layer returns becomes its states at every time step: right values, or an error with the option to use."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mmphate_gpu.errors import InputError

from .layer_states import B, F, H, Returns, T, probe, states

BATCH, TIME, CHANNEL = (1, 2, 0), (0, 2, 1), (2, 1, 0)  # to (T, M, P) from the batch first, the time first, channels


class DiagonalSSM(nn.Module):
    """A state-space layer with a complex diagonal, which returns real values and keeps its states."""

    def __init__(self):
        super().__init__()
        self.diagonal = nn.Parameter(torch.polar(torch.full((H,), 0.9), torch.linspace(0.1, 2, H)))
        self.b, self.c = nn.Parameter(probe(F, H, seed=1).cfloat()), nn.Parameter(probe(H, 2, seed=2).cfloat())
        self.states = None

    def forward(self, x):
        h, states = torch.zeros(len(x), H, dtype=torch.cfloat), []
        for step in x.cfloat().unbind(1):
            h = self.diagonal * h + step @ self.b
            states.append(h)
        self.states = torch.stack(states, 1)
        return (self.states @ self.c).real, self.states


def parts_of_state(module, output):
    return torch.view_as_real(output[1]).flatten(-2)


def ssm_by_hand(model, x):
    diagonal, b = (weight.detach().numpy().astype(complex) for weight in (model.diagonal, model.b))
    h, states = np.zeros((len(x), H), complex), []
    for step in x.numpy().swapaxes(0, 1):
        h = diagonal * h + step @ b
        states.append(np.stack([h.real, h.imag], -1).reshape(len(x), 2 * H))
    return np.stack(states).swapaxes(1, 2)


def sequential(*modules):
    torch.manual_seed(0)
    return nn.Sequential(*modules)


X, CHANNELS = probe(), probe(B, F, T)
W = probe(B, T, 8)
LAYER = {"d_model": 8, "nhead": 2, "dim_feedforward": 16}
# The model, its layer, its input, options, and the axes of the output in the order (T, M, P); None: one time step.
RIGHT = {
    "a hidden layer of a feed-forward net is one time step": (
        *(sequential(nn.Linear(F, H), nn.Tanh(), nn.Linear(H, 2)), "1", X[:, 0]),
        *({}, None),
    ),
    "a batch norm of two axes is one time step": (nn.BatchNorm1d(F), "", X[:, 0], {}, None),
    "a cell called once, which needs no option": (nn.GRUCell(F, H), "", X[:, 0], {"batch_first": True}, None),
    "a GRU, batch first": (nn.GRU(F, H, batch_first=True), "", X, {}, BATCH),
    "a GRU, time first": (nn.GRU(F, H), "", X, {}, TIME),
    "an LSTM of two layers and directions": (nn.LSTM(F, H, 2, bidirectional=True), "", X, {}, TIME),
    "an RNN with the batch_first that it has": (nn.RNN(F, H, batch_first=True), "", X, {"batch_first": True}, BATCH),
    "an RNN with the time_axis that it has": (nn.RNN(F, H, batch_first=True), "", X, {"time_axis": -2}, BATCH),
    "a convolution": (nn.Conv1d(F, H, 3, padding=1), "", CHANNELS, {}, CHANNEL),
    "a convolution with its time_axis": (nn.Conv1d(F, H, 3), "", CHANNELS, {"time_axis": 2}, CHANNEL),
    "a convolution whose batch is first": (nn.Conv1d(F, H, 3), "", CHANNELS, {"batch_first": True}, CHANNEL),
    "a convolution over features, time as channels": (nn.Conv1d(T, T, 1), "", X, {"time_axis": 1}, BATCH),
    "a transposed convolution": (nn.ConvTranspose1d(F, H, 2), "", CHANNELS, {}, CHANNEL),
    "a pooled sequence": (nn.MaxPool1d(2), "", CHANNELS, {}, CHANNEL),
    "a batch norm of channels": (nn.BatchNorm1d(F), "", CHANNELS, {}, CHANNEL),
    "a group norm of channels": (nn.GroupNorm(1, F), "", CHANNELS, {}, CHANNEL),
    "a block of convolution, norm and activation": (
        *(sequential(sequential(nn.Conv1d(F, H, 3), nn.BatchNorm1d(H), nn.ReLU(), nn.Dropout())), "0", CHANNELS),
        *({}, CHANNEL),
    ),
    "a block of attention and a norm": (
        *(sequential(nn.TransformerEncoderLayer(**LAYER, batch_first=True), nn.LayerNorm(8)), "", W),
        *({}, BATCH),
    ),
    "a block that ends with a GRU": (sequential(nn.Linear(F, F), nn.GRU(F, H)), "", X, {}, TIME),
    "a linear layer, batch first": (nn.Linear(F, H), "", X, {"batch_first": True}, BATCH),
    "a linear layer, time first": (nn.Linear(F, H), "", X, {"batch_first": False}, TIME),
    "an activation of channels": (nn.Tanh(), "", CHANNELS, {"time_axis": -1}, CHANNEL),
    "a norm whose axis of time is the first": (nn.LayerNorm(F), "", X, {"time_axis": 0}, TIME),
    "an embedding": (nn.Embedding(9, H), "", torch.arange(B * T).reshape(B, T) % 9, {"batch_first": True}, BATCH),
    "a Transformer block, batch first": (nn.TransformerEncoderLayer(**LAYER, batch_first=True), "", W, {}, BATCH),
    "a Transformer block, time first": (nn.TransformerEncoderLayer(**LAYER), "", W, {}, TIME),
    "a Transformer encoder": (
        *(nn.TransformerEncoder(nn.TransformerEncoderLayer(**LAYER, batch_first=True), 2), "", W),
        *({}, BATCH),
    ),
    "attention": (nn.MultiheadAttention(8, 2, batch_first=True), "", (W, W, W), {}, BATCH),
    "a Transformer decoder block": (nn.TransformerDecoderLayer(**LAYER), "", (W, W), {}, TIME),
    "a Transformer": (
        *(nn.Transformer(8, 2, 1, 1, 16, batch_first=True), "", (W, W)),
        *({}, BATCH),
    ),
    "a tuple, of which the first tensor": (Returns(lambda x: (None, x, x + 1)), "layer", X[:, 0], {}, None),
    "a list, of which the first tensor": (Returns(lambda x: [x, x + 1]), "layer", X, {"batch_first": True}, BATCH),
    "double precision": (nn.Linear(F, H).double(), "", X.double(), {"batch_first": True}, BATCH),
    "half precision": (nn.Linear(F, H).bfloat16(), "", X.bfloat16(), {"batch_first": True}, BATCH),
    "whole numbers": (Returns(lambda x: (x * 100).long()), "layer", X, {"batch_first": True}, BATCH),
    "truth values": (Returns(lambda x: x > 0), "layer", X, {"batch_first": True}, BATCH),
}


def first(output):
    tensors = output if isinstance(output, (tuple, list)) else [output]
    return next(item for item in tensors if isinstance(item, torch.Tensor))


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("scenario", RIGHT)
def test_values_are_what_the_layer_returns(scenario):
    model, name, args, options, order = RIGHT[scenario]
    args = args if isinstance(args, tuple) else (args,)
    outputs = []
    handle = model.get_submodule(name).register_forward_hook(lambda module, args, output: outputs.append(first(output)))
    (layer,), (result,) = states(model, name, *args, **options)
    handle.remove()
    expected = outputs[0].T[None] if order is None else outputs[0].permute(*order)
    wide = expected.dtype in (torch.float64, torch.int64)
    assert result.values.dtype == (np.float64 if wide else np.float32) and result.present is None
    assert np.array_equal(result.values, expected.double().numpy())
    assert layer.units(expected.shape[1])[0].startswith(name)


WITHOUT_BATCH = {
    "a GRU": (nn.GRU(F, H, batch_first=True), X[0], lambda y: y),
    "a convolution": (nn.Conv1d(F, H, 2), CHANNELS[0], lambda y: y.T),
    "attention": (nn.TransformerEncoderLayer(**LAYER), W[0], lambda y: y),
    "a linear layer whose first axis is time": (nn.Linear(F, H), X[0], lambda y: y),
}


@pytest.mark.parametrize("scenario", WITHOUT_BATCH)
def test_an_output_without_a_batch_is_one_sample(scenario):
    model, x, time_first = WITHOUT_BATCH[scenario]
    options = {"time_axis": 0} if isinstance(model, nn.Linear) else {}
    with torch.no_grad():
        expected = time_first(first(model.eval()(x)))
    _, (result,) = states(model, "", x, **options)
    assert np.array_equal(result.values[:, :, 0], expected) and result.values.shape[2] == 1


def test_units_of_a_plain_layer_have_its_name():
    layers, (first_states, second_states) = states(sequential(nn.Linear(F, H), nn.Tanh()), ["0", "1"], X[:, 0])
    assert [layer.units(2) for layer in layers] == [["0", "0"], ["1", "1"]]
    np.testing.assert_allclose(second_states.values, np.tanh(first_states.values), atol=1e-6)  # tanh is rounded


# ---------------------------------------------------------------- sequences of other lengths


def test_a_packed_output_ends_with_each_sequence():
    lengths = torch.tensor([2, 5, 3, 5, 1, 4])
    packed = pack_padded_sequence(X, lengths, batch_first=True, enforce_sorted=False)
    model = sequential(nn.GRU(F, H))
    _, (result,) = states(model, "0", packed)
    with torch.no_grad():
        expected, _ = pad_packed_sequence(model(packed)[0])
    assert np.array_equal(result.values, expected.permute(0, 2, 1))
    assert np.array_equal(result.present, np.arange(T)[:, None] < lengths.numpy())


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_blocks_of_a_padded_transformer_return_nested_tensors():
    lengths = torch.tensor([5, 2, 4, 3, 1, 5])
    padding = torch.arange(T) >= lengths[:, None]
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(**LAYER, batch_first=True), 2)
    keywords = {"src_key_padding_mask": padding}
    _, results = states(encoder, ["layers.0", "layers.1"], W, keywords=keywords)
    for depth, result in enumerate(results, 1):
        assert np.array_equal(result.present, ~padding.T.numpy())
        for sample, length in enumerate(lengths):
            with torch.no_grad():
                alone = W[[sample], :length]
                for block in encoder.layers[:depth]:
                    alone = block(alone)
            # Another number of rows is summed in another order.
            np.testing.assert_allclose(result.values[:length, :, sample], alone[0], rtol=0, atol=2e-6)


@pytest.mark.parametrize("layout", [torch.jagged, torch.strided])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_end_with_each_sequence(layout):
    parts = [probe(length, H, seed=length) for length in (2, 4, 1)]
    model = Returns(lambda x: torch.nested.nested_tensor(parts, layout=layout))
    _, (result,) = states(model, "layer", X)
    assert result.values.shape == (4, H, 3) and result.present.sum(0).tolist() == [2, 4, 1]
    for sample, part in enumerate(parts):
        assert np.array_equal(result.values[: len(part), :, sample], part)


# ---------------------------------------------------------------- a function of the module and its output

FUNCTIONS = {
    "the state in the output": parts_of_state,
    "the state that the module keeps": lambda module, output: torch.view_as_real(module.states).flatten(-2),
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_complex_state_of_a_state_space_layer(function):
    model = sequential(DiagonalSSM())
    _, (result,) = states(model, "0", X, state=FUNCTIONS[function], batch_first=True)
    np.testing.assert_allclose(
        result.values, ssm_by_hand(model[0], X), rtol=0, atol=2e-6
    )  # complex64 against complex128


def test_a_function_takes_a_state_from_any_output():
    cases = [
        (Returns(lambda x: {"hidden": x}), lambda module, output: output["hidden"], {"batch_first": True}, BATCH),
        (Returns(lambda x: {"hidden": x}), lambda module, output: output["hidden"][:, 0], {}, None),
        (nn.Conv2d(1, 1, 1), lambda module, output: output[:, 0], {"batch_first": True}, BATCH),
    ]
    for model, function, options, order in cases:
        name, x = ("", X[:, None]) if isinstance(model, nn.Conv2d) else ("layer", X)
        _, (result,) = states(model, name, x, state=function, **options)
        expected = (model(x)[:, 0] if name == "" else X).detach()
        assert np.array_equal(result.values, expected[:, 0].T[None] if order is None else expected.permute(order))


def test_a_function_sees_the_output_before_the_model_goes_on():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(F, H)

        def forward(self, x):
            self.inner(x).fill_(7)

    model = Model()
    _, (result,) = states(model, "inner", X, state=lambda module, output: output, batch_first=True)
    assert np.array_equal(result.values, model.inner(X).detach().permute(BATCH))


# ---------------------------------------------------------------- classes that are derived from layers of torch


class Transposing(nn.Sequential):
    def forward(self, x):  # (batch, timestep, unit)
        return super().forward(x.mT).mT


class TimeFirst(nn.GRU):
    def forward(self, x):  # (batch, timestep, unit)
        return super().forward(x.transpose(0, 1))[0].transpose(0, 1)


class Pooling(nn.TransformerEncoderLayer):
    def forward(self, x):
        return super().forward(x).mean(1)


class LastStep(nn.LSTM):
    def forward(self, x):
        return super().forward(x)[0][:, -1]


@pytest.mark.parametrize(
    "layer", [Transposing(nn.Conv1d(F, H, 1), nn.ReLU()), TimeFirst(F, H)], ids=lambda layer: type(layer).__name__
)
def test_the_axes_of_a_class_with_another_forward_are_said(layer):
    with pytest.raises(InputError, match=r"returns \(6, 5, 4\); accepted: batch_first=True if these are"):
        states(layer, "", X)
    _, (result,) = states(layer, "", X, batch_first=True)
    assert np.array_equal(result.values, layer(X).detach().permute(BATCH))


@pytest.mark.parametrize(
    "layer",
    [Pooling(F, 1, H, batch_first=True), LastStep(F, H, batch_first=True)],
    ids=lambda layer: type(layer).__name__,
)
def test_a_class_that_returns_one_step_of_a_sequence_has_one_time_step(layer):
    _, (result,) = states(layer, "", X)
    with torch.no_grad():
        assert np.array_equal(result.values, layer(X).T[None])


def test_a_recurrent_class_that_returns_other_units_is_refused():
    class Summed(nn.GRU):
        def forward(self, x):
            return sum(super().forward(x)[0].chunk(2, -1))

    with pytest.raises(
        InputError, match=r"'' is a Summed and returns 4 units; accepted: 8, as its weights give, or st"
    ):
        states(Summed(F, H, bidirectional=True), "", X, batch_first=False)


class Swapped(nn.LSTMCell):
    def forward(self, x):
        h, c = super().forward(x)
        return c, h


class Pooled(nn.GRUCell):
    def forward(self, x):
        return super().forward(x).mean(0)


def test_a_class_derived_from_a_cell_is_no_cell_of_torch():
    """Its cell state is checked by a replay, and an output of one axis is no sample without a batch."""
    with pytest.raises(InputError, match=r"a Swapped whose output differs from a replay of its weights .* or state="):
        states(Swapped(F, H), "", X[:, 0], state="c")
    with pytest.raises(InputError, match=r"a Pooled and returns \(4,\), an output of 1 axes"):
        states(Pooled(F, H), "", X[:, 0])


# ---------------------------------------------------------------- one time step for each call


def test_any_module_called_at_each_time_step_is_a_sequence():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = sequential(nn.Linear(F + H, H), nn.Tanh())

        def forward(self, x):
            h = torch.zeros(len(x), H)
            for step in x.unbind(1):
                h = self.cell(torch.cat([step, h], 1))

    model = Loop()
    _, (result,) = states(model, "cell", X)
    h = torch.zeros(B, H)
    for step in range(T):
        h = model.cell(torch.cat([X[:, step], h], 1)).detach()
        assert np.array_equal(result.values[step], h.T)
