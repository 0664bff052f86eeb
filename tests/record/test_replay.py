"""Inner layers, directions, cell states and gates equal loops by hand, to rounding."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence

from mmphate_gpu.errors import InputError
from mmphate_gpu.record.layers import find_layers

from .layer_states import B, F, H, T, by_hand, probe, states, values

# The loops are in float64. States of four units in float32 are off by 2e-7 at most; wrong ones by more than 0.01.
CLOSE = {"rtol": 0, "atol": 2e-6}


def seeded(cls, **options):
    torch.manual_seed(0)
    return cls(F, H, **options)


def expected(rnn, x, state, layers, sides, start=None):
    """The states by hand of all samples of ``x`` (P, T, n), (T, M, P)."""
    return gathered(runs_of(rnn, x, start), state, layers, sides)


def runs_of(rnn, x, start=None):
    starts = [None if start is None else [part[:, sample] for part in start] for sample in range(len(x))]
    return [by_hand(rnn, sequence, begin) for sequence, begin in zip(x, starts, strict=True)]


def gathered(runs, state, layers, sides):
    chosen = [(layer, side) for layer in layers for side in sides]
    return np.stack([np.concatenate([run[key][state] for key in chosen], 1) for run in runs], -1)


MODULES = {
    "LSTM": (nn.LSTM, {}),
    "LSTM of three layers": (nn.LSTM, {"num_layers": 3, "dropout": 0.5}),
    "bidirectional LSTM of two layers": (nn.LSTM, {"num_layers": 2, "bidirectional": True}),
    "projected LSTM of two layers": (nn.LSTM, {"num_layers": 2, "proj_size": 2}),
    "projected bidirectional LSTM without bias": (
        nn.LSTM,
        {"num_layers": 2, "proj_size": 2, "bidirectional": True, "bias": False},
    ),
    "GRU of two layers": (nn.GRU, {"num_layers": 2}),
    "bidirectional GRU without bias": (nn.GRU, {"num_layers": 2, "bidirectional": True, "bias": False}),
    "RNN of two layers": (nn.RNN, {"num_layers": 2}),
    "bidirectional RNN with relu": (nn.RNN, {"num_layers": 2, "bidirectional": True, "nonlinearity": "relu"}),
}


def states_of(cls):
    return {nn.LSTM: ("h", "c", "gates"), nn.GRU: ("h", "gates"), nn.RNN: ("h",)}[cls]


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("batch_first", [True, False], ids=["batch first", "time first"])
@pytest.mark.parametrize(
    ("name", "state"), [(name, state) for name, (cls, _) in MODULES.items() for state in states_of(cls)]
)
def test_states_are_those_of_a_loop_by_hand(name, state, batch_first):
    cls, options = MODULES[name]
    rnn = seeded(cls, batch_first=batch_first, **options)
    sides = (0, 1) if rnn.bidirectional else (0,)
    choices = [("all", "both"), *((layer, "both") for layer in range(rnn.num_layers)), (-1, "forward")]
    choices += [(0, "backward"), ("all", "backward")] if rnn.bidirectional else []
    x = probe()
    runs = runs_of(rnn, x)
    for layer, direction in choices:
        layers = range(rnn.num_layers) if layer == "all" else [layer % rnn.num_layers]
        chosen = sides if direction == "both" else [("forward", "backward").index(direction)]
        result = values(rnn, "", x if batch_first else x.transpose(0, 1), state=state, layer=layer, direction=direction)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, gathered(runs, state, layers, chosen), **CLOSE)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("name", MODULES)
def test_states_of_packed_sequences_end_with_each_sequence(name):
    cls, options = MODULES[name]
    rnn, lengths = seeded(cls, batch_first=True, **options), torch.tensor([2, 5, 3, 5, 1, 4])
    x, sides = probe(), (0, 1) if rnn.bidirectional else (0,)
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    rows = rnn.num_layers * len(sides)
    start = [probe(rows, B, rnn.proj_size or H, seed=1)] + [probe(rows, B, H, seed=2)] * (cls is nn.LSTM)
    hx = tuple(start) if cls is nn.LSTM else start[0]
    for state in states_of(cls):
        _, (result,) = states(rnn, "", packed, hx, state=state, layer="all")
        assert np.array_equal(result.present, np.arange(T)[:, None] < lengths.numpy()[None, :])
        for sample, length in enumerate(lengths):
            alone = expected(
                rnn, x[[sample], :length], state, range(rnn.num_layers), sides, [part[:, [sample]] for part in start]
            )
            np.testing.assert_allclose(result.values[:length, :, [sample]], alone, **CLOSE)


def test_the_initial_state_may_be_a_keyword_and_the_input_without_a_batch():
    rnn, x, start = seeded(nn.LSTM, num_layers=2), probe(T, F), [probe(2, H, seed=1), probe(2, H, seed=2)]
    by_loop = by_hand(rnn, x, start)
    calls = {"args": (x, tuple(start)), "keywords": {}}, {"args": (), "keywords": {"input": x, "hx": tuple(start)}}
    for call in (*calls, {"args": (x,), "keywords": {"hx": tuple(start)}}):
        result = values(rnn, "", *call["args"], keywords=call["keywords"], state="c", layer="all")
        correct = np.concatenate([by_loop[0, 0]["c"], by_loop[1, 0]["c"]], 1)
        np.testing.assert_allclose(result[:, :, 0], correct, **CLOSE)


def test_the_last_layer_is_the_output_bit_for_bit_and_the_others_are_stacked():
    rnn = seeded(nn.GRU, num_layers=2, bidirectional=True)
    x = probe(T, B, F)
    with torch.no_grad():
        output = rnn(x)[0].permute(0, 2, 1).numpy()
    assert np.array_equal(values(rnn, "", x), output)
    assert np.array_equal(values(rnn, "", x, direction="forward"), output[:, :H])
    assert np.array_equal(values(rnn, "", x, direction="backward"), output[:, H:])
    assert np.array_equal(values(rnn, "", x, layer="all")[:, -2 * H :], output)


def test_units_name_their_layer_direction_and_gate():
    rnn = nn.ModuleDict({"rnn": seeded(nn.GRU, num_layers=2, bidirectional=True), "one": seeded(nn.LSTM, proj_size=2)})

    def units(name, **options):
        return list(dict.fromkeys(find_layers(rnn, name, **options)[0].units(0)))

    assert list(dict.fromkeys(find_layers(nn.LSTM(F, H), "", state="c")[0].units(0))) == ["c"]
    assert units("one") == ["one"] and units("one", state="c") == ["one c"]
    assert units("rnn") == ["rnn.forward", "rnn.backward"] and units("rnn", direction="backward") == ["rnn.backward"]
    assert units("rnn", layer=0, direction="forward") == ["rnn.0.forward"]
    assert units("one", state="gates") == ["one gates i", "one gates f", "one gates g", "one gates o"]
    assert units("rnn", layer="all", state="gates")[-3:] == [f"rnn.1.backward gates {gate}" for gate in "rzn"]
    sizes = [len(find_layers(rnn, "one", state=state)[0].units(0)) for state in ("h", "c", "gates")]
    assert sizes == [2, H, 4 * H]


# ---------------------------------------------------------------- cells in a loop


class Loop(nn.Module):
    """A cell, called at each time step."""

    def __init__(self, cls, **options):
        super().__init__()
        torch.manual_seed(0)
        self.cell = cls(F, H, **options)

    def forward(self, x, state=None):
        for step in x.unbind(-2):
            state = self.cell(step, state)
        return state


CELLS = [
    (nn.LSTMCell, nn.LSTM, {}),
    (nn.LSTMCell, nn.LSTM, {"bias": False}),
    (nn.GRUCell, nn.GRU, {}),
    (nn.RNNCell, nn.RNN, {}),
    (nn.RNNCell, nn.RNN, {"nonlinearity": "relu"}),
]


@pytest.mark.parametrize(("cell", "whole", "options"), CELLS)
def test_cells_in_a_loop_are_a_layer(cell, whole, options):
    loop, rnn, x = Loop(cell, **options), seeded(whole, batch_first=True, **options), probe()
    for name, weight in loop.cell.named_parameters():
        setattr(rnn, f"{name}_l0", weight)
    for state in states_of(whole):
        np.testing.assert_allclose(values(loop, "cell", x, state=state), expected(rnn, x, state, [0], [0]), **CLOSE)
        alone = values(loop, "cell", x[0], state=state)  # without a batch
        np.testing.assert_allclose(alone, expected(rnn, x[:1], state, [0], [0]), **CLOSE)


def test_a_cell_that_starts_from_a_state():
    loop, x, start = Loop(nn.LSTMCell), probe(), (probe(B, H, seed=1), probe(B, H, seed=2))
    rnn = seeded(nn.LSTM)
    rnn.load_state_dict({f"{name}_l0": weight for name, weight in loop.cell.state_dict().items()})
    for state in ("h", "c", "gates"):
        correct = expected(rnn, x, state, [0], [0], [part[None] for part in start])
        np.testing.assert_allclose(values(loop, "cell", x, start, state=state), correct, **CLOSE)


def test_a_layer_called_step_by_step_is_one_sequence():
    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = seeded(nn.LSTM, num_layers=2, batch_first=True)

        def forward(self, x, state=None):
            for step in x.split(1, 1):
                _, state = self.rnn(step, state)

    model = Decoder()
    for state in ("h", "c", "gates"):
        result = values(model, "rnn", probe(), state=state, layer="all")
        np.testing.assert_allclose(result, expected(model.rnn, probe(), state, [0, 1], [0]), **CLOSE)


# ---------------------------------------------------------------- precision and weights


def test_double_precision_is_replayed_in_double_precision():
    rnn = seeded(nn.LSTM, num_layers=2, batch_first=True).double()
    result = values(rnn, "", probe().double(), state="c", layer="all")
    assert result.dtype == np.float64
    np.testing.assert_allclose(result, expected(rnn, probe(), "c", [0, 1], [0]), rtol=0, atol=1e-14)  # rounding: 4e-16


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU])
def test_half_precision_is_replayed(cls, dtype):
    rnn = seeded(cls, num_layers=2, batch_first=True).to(dtype)
    correct = expected(rnn, probe().to(dtype), "gates", [0, 1], [0])
    # A gate moves by at most a quarter (a tanh: by all) of the error of its sum, a few roundings of states.
    roundings = 4 * torch.finfo(dtype).eps
    np.testing.assert_allclose(
        values(rnn, "", probe().to(dtype), state="gates", layer="all"), correct, rtol=0, atol=roundings
    )


@pytest.mark.parametrize("cls", [nn.GRU, nn.RNN])
@pytest.mark.parametrize("within", [True, False], ids=["autocast in the model", "autocast by the caller"])
def test_autocast_is_replayed(cls, within):
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = seeded(cls, num_layers=2, batch_first=True)

        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16, enabled=within):
                return self.rnn(x)[0]

    model, x, state = Mixed(), probe(), "gates" if cls is nn.GRU else "h"
    with torch.autocast("cpu", torch.bfloat16, enabled=not within):
        result = values(model, "rnn", x, state=state, layer="all")
    correct = expected(model.rnn, x, state, [0, 1], [0])
    np.testing.assert_allclose(result, correct, rtol=0, atol=4 * torch.finfo(torch.bfloat16).eps)


def test_autocast_is_replayed_with_the_factors_that_it_rounds():
    rnn, first = seeded(nn.GRU, num_layers=2, batch_first=True), seeded(nn.GRU, batch_first=True)
    first.load_state_dict({name: weight for name, weight in rnn.state_dict().items() if name.endswith("l0")})
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        inner = first(probe())[0]
        assert np.array_equal(values(rnn, "", probe(), layer=0), inner.permute(1, 2, 0))
        gates = values(first, "", probe(), state="gates")

    def rounded(value):
        return value.detach().bfloat16().double()

    before = torch.cat([torch.zeros(B, 1, H), inner[:, :-1]], 1)
    from_x = rounded(probe()) @ rounded(first.weight_ih_l0).T + rounded(first.bias_ih_l0)
    from_h = rounded(before) @ rounded(first.weight_hh_l0).T + rounded(first.bias_hh_l0)
    r = (from_x + from_h)[..., :H].sigmoid()
    np.testing.assert_allclose(gates[:, :H], r.permute(1, 2, 0), rtol=0, atol=1e-6)  # without rounding: 0.002


def test_weights_that_are_computed_for_each_forward():
    x = probe()
    with pytest.warns(FutureWarning, match="weight_norm"):
        old = nn.utils.weight_norm(seeded(nn.LSTM, batch_first=True), "weight_hh_l0")
    new = parametrizations.weight_norm(seeded(nn.LSTM, batch_first=True), "weight_hh_l0")
    for rnn in (old, new):
        with torch.no_grad():
            for name, weight in rnn.named_parameters():
                if name.endswith(("weight_hh_l0_g", "original0")):
                    weight.mul_(1.5)
            rnn(x)
        result = values(rnn, "", x, state="c")
        np.testing.assert_allclose(result, expected(rnn, x, "c", [0], [0]), **CLOSE)


def test_a_chaotic_layer_of_many_steps_is_replayed():
    """Rounding grows without bound in it, so that two ways to sum give other sequences."""
    torch.manual_seed(0)
    rnn = nn.LSTM(F, 64, num_layers=2, batch_first=True)
    with torch.no_grad():
        for weight in rnn.parameters():
            weight.mul_(12)
        double = nn.LSTM(F, 64, num_layers=2, batch_first=True).double()
        double.load_state_dict(rnn.state_dict())
        x = probe(2, 300, F)
        output = rnn(x)[0]
        assert (double(x.double())[0] - output).abs().max() > 0.1
    o = values(rnn, "", x, state="gates")[:, -64:]
    c = values(rnn, "", x, state="c")
    np.testing.assert_allclose(o * np.tanh(c), output.permute(1, 2, 0), rtol=0, atol=1e-4)  # 1.5e-5 by rounding


def test_inputs_that_are_overwritten_later_are_replayed_as_they_were():
    class Overwrites(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = seeded(nn.GRU, num_layers=2, batch_first=True)

        def forward(self, x):
            x, h = x * 1, torch.zeros(2, B, H)
            output, _ = self.rnn(x, h)
            x.zero_(), h.fill_(7), output.fill_(7)
            return output

    model = Overwrites()
    for state in ("h", "gates"):
        result = values(model, "rnn", probe(), state=state, layer="all")
        np.testing.assert_allclose(result, expected(model.rnn, probe(), state, [0, 1], [0]), **CLOSE)


# ---------------------------------------------------------------- what is refused


def test_a_forward_of_another_form_is_not_replayed():
    class Zoneout(nn.LSTM):
        def forward(self, x, hx=None):
            output, state = super().forward(x, hx)
            return output * 1.01, state

    rnn = seeded(Zoneout, batch_first=True)
    with pytest.raises(InputError, match=r"'' is a Zoneout whose output differs from a replay .*like that of nn.LSTM"):
        values(rnn, "", probe(), state="c", batch_first=True)
    assert values(rnn, "", probe(), batch_first=True).shape == (T, H, B)  # its output needs no replay

    class Last(nn.LSTM):
        def forward(self, x, hx=None):
            return super().forward(x, hx)[0][:, -1:]

    last = seeded(Last, batch_first=True)
    with pytest.raises(
        InputError, match=r"a Last whose output .* in its shape \(1, 6, 4\), which is \(5, 6, 4\) in the"
    ):
        values(last, "", probe(), state="c", batch_first=True)

    class Renamed(nn.GRU):
        def forward(self, features):
            return super().forward(features)

    renamed = seeded(Renamed)
    with pytest.raises(InputError, match=r"ran without an input to replay; accepted: a call with \(input, hx\)"):
        values(renamed, "", keywords={"features": probe()}, state="gates", batch_first=False)


@pytest.mark.parametrize(
    ("layer", "options", "message"),
    [
        ("gru", {"state": "c"}, r"state='c' does not fit layer 'gru', a GRU; accepted: 'h', 'gates'$"),
        ("rnn", {"state": "gates"}, r"state='gates' does not fit layer 'rnn', a RNN; accepted: 'h'$"),
        ("cell", {"state": "c"}, r"state='c' does not fit layer 'cell', a GRUCell; accepted: 'h', 'gates'$"),
        ("head", {"state": "c"}, r"state='c' does not fit layer 'head', a Linear; accepted: 'h', or a function of"),
        ("gru", {"state": "hidden"}, r"state='hidden' is unknown; accepted: 'h', 'c', 'gates'"),
        ("gru", {"layer": 2}, r"layer=2 does not fit layer 'gru', a stack of 2; accepted: -2 to 1, or 'all'"),
        ("gru", {"layer": -3}, r"layer=-3 does not fit layer 'gru', a stack of 2"),
        (
            "gru",
            {"layer": "first"},
            r"layer='first' does not fit layer 'gru', a stack of 2; accepted: -2 to 1, or 'all'",
        ),
        ("gru", {"layer": True}, r"layer=True does not fit layer 'gru', a stack of 2; accepted: -2 to 1, or 'all'"),
        ("cell", {"layer": 1}, r"layer=1 does not fit layer 'cell', a stack of 1; accepted: -1 to 0"),
        (
            "gru",
            {"direction": "backward"},
            r"direction='backward' does not fit layer 'gru', which runs forward; accept",
        ),
        ("gru", {"direction": "left"}, r"direction='left' is unknown; accepted: 'both', 'forward', 'backward'"),
        ("head", {"layer": 0}, r"layer=0 chooses a part of an RNN, LSTM or GRU, but layers='head' has none of these"),
        ("head", {"direction": "forward"}, r"direction='forward' chooses a part of an RNN"),
    ],
)
def test_options_that_do_not_fit_the_layer(layer, options, message):
    parts = {"gru": nn.GRU(F, H, 2), "rnn": nn.RNN(F, H), "cell": nn.GRUCell(F, H), "head": nn.Linear(H, 2)}
    with pytest.raises(InputError, match=message):
        find_layers(nn.ModuleDict(parts), layer, **options)


def test_an_empty_batch_has_no_states():
    for state in ("h", "c"):
        assert values(seeded(nn.LSTM, num_layers=2), "", probe()[:, :0], state=state, layer=0).shape == (B, H, 0)


def test_no_warning_comes_from_a_replay(monkeypatch):
    gru = torch.gru

    def warns(*args):
        warnings.warn("RNN module weights are not part of single contiguous chunk of memory.", stacklevel=2)  # cuDNN
        return gru(*args)

    monkeypatch.setattr(torch, "gru", warns)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values(seeded(nn.GRU, num_layers=2), "", probe(T, B, F), state="gates", layer="all")
        with pytest.raises(UserWarning, match="single contiguous chunk"):
            torch.gru()
