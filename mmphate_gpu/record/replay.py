"""Compute the inner states of recurrent modules again, from their weights, inputs and initial states."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from ..errors import InputError
from .axes import Steps
from .values import copied

# Replayed hidden states were off by up to 4 roundings in half precision, and in float32 by up to 13, less than the root
# of the number of summands. These were networks of up to 256 units and 400 steps, with weights up to five times larger
# than at their start.
_ROUNDINGS = 16


GATES = {"LSTM": ("i", "f", "g", "o"), "GRU": ("r", "z", "n")}


class Inputs(NamedTuple):
    """What a recurrent module got in one call, and the weights that it had."""

    values: Any  # a tensor, or a PackedSequence
    start: tuple[torch.Tensor, ...]  # the hidden state, and the cell state of an LSTM; empty means zeros
    weights: list[list[torch.Tensor]]  # of each layer and direction
    autocast: torch.dtype | None  # the lower precision of products; None without autocast


class Direction(NamedTuple):
    """One direction of one layer during a forward; of a cell, one call."""

    inputs: torch.Tensor  # (T, P, n)
    h: torch.Tensor  # (T, P, M)
    start: tuple[torch.Tensor, ...]  # each (P, M)
    weights: list[torch.Tensor]
    present: torch.Tensor | None  # (T, P)
    backward: bool

    def previous(self) -> torch.Tensor:
        """The hidden state that each time step started from, (T, P, M)."""
        start = self.start[0][None]
        if not self.backward:
            return torch.cat([start, self.h[:-1]])
        later = torch.cat([self.h[1:], start])
        if self.present is None:
            return later
        goes_on = torch.cat([self.present[1:], torch.zeros_like(self.present[:1])])
        return torch.where(goes_on[:, :, None], later, start)


class Replay(NamedTuple):
    """The activated gates, the cell state of an LSTM, and the hidden state that follows from them."""

    gates: torch.Tensor | None  # (T, P, n), gate after gate
    c: torch.Tensor | None  # (T, P, M)
    h: torch.Tensor  # (T, P, M)


def copied_inputs(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Inputs:
    """The inputs of a call, to be copied in its forward hook.

    Autocast ends with the forward, and so do weights that a hook has computed for it.
    """
    values, start = (*args, *(kwargs[name] for name in ("input", "hx") if name in kwargs), None, None)[:2]
    start = (start,) if isinstance(start, torch.Tensor) else tuple(start or ())
    weights = [[weight.detach() for weight in direction] for direction in _weights(module)]
    device = weights[0][0].device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    return Inputs(copied(values), copied(start), weights, autocast)


def _weights(module: nn.Module) -> list[list[Any]]:
    if isinstance(module, nn.RNNBase):
        return module.all_weights
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return [[weight for weight in (getattr(module, name) for name in names) if weight is not None]]


def mode(module: nn.Module) -> str:
    """LSTM, GRU or RNN; empty for a module that is not recurrent."""
    types = {"LSTM": (nn.LSTM, nn.LSTMCell), "GRU": (nn.GRU, nn.GRUCell), "RNN": (nn.RNN, nn.RNNCell)}
    return next((name for name, classes in types.items() if isinstance(module, classes)), "")


def replayed(module: nn.Module, inputs: Inputs, output: Steps, name: str) -> list[tuple[Direction, Replay]]:
    """All directions of all layers in one call that returned ``output``, layer after layer.

    `InputError` if the last layer does not give ``output``, to rounding.
    """
    if not isinstance(inputs.values, (torch.Tensor, PackedSequence)):
        raise InputError(f"layer {name!r} ran without an input to replay; accepted: a call with (input, hx)")
    x, start = _inputs(module, inputs)
    shape = *x.shape[:2], start[0].shape[-1] * n_directions(module)
    if output.values.shape != shape:
        raise _no_replay(module, name, f"in its shape {tuple(output.values.shape)}, which is {shape} in the replay")
    runs = _directions(module, x, start, inputs, output)
    replays = [replay_of(module, run, inputs.autocast) for run in runs]
    for run, replay in list(zip(runs, replays, strict=True))[-n_directions(module) :]:
        _check(run, replay, inputs.autocast, name, module)
    return [(run, replay._replace(h=run.h)) for run, replay in zip(runs, replays, strict=True)]


def _directions(
    module: nn.Module, x: torch.Tensor, start: list[torch.Tensor], inputs: Inputs, output: Steps
) -> list[Direction]:
    """The last layer has the hidden states of ``output``. Each layer before it runs by torch's function for a layer."""
    present = None if output.present is None else output.present.to(x.device)
    runs: list[Direction] = []
    for first in range(0, len(inputs.weights), n_directions(module)):
        chosen = slice(first, first + n_directions(module))
        states, weights = [state[chosen] for state in start], inputs.weights[chosen]
        last = chosen.stop == len(inputs.weights)
        h = output.values if last else _hidden(module, x, output.present, states, weights, inputs.autocast)
        for number, part in enumerate(h.chunk(len(weights), -1)):
            place = tuple(state[number] for state in states)
            runs.append(Direction(x, part, place, weights[number], present, number == 1))
        x = h
    return runs


def n_directions(module: nn.Module) -> int:
    """How many directions a recurrent module runs in."""
    return 2 if getattr(module, "bidirectional", False) else 1


def _inputs(module: nn.Module, inputs: Inputs) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The input as (T, P, n), and each initial state as (n, P, M) with a row for each layer and direction."""
    x, start = inputs.values, list(inputs.start)
    if isinstance(module, nn.RNNCellBase):
        x = x.reshape(1, -1, x.shape[-1])
        start = [state.reshape(1, -1, state.shape[-1]) for state in start]
    elif isinstance(x, PackedSequence):
        x = pad_packed_sequence(x)[0]
    elif x.ndim == 2:
        x, start = x.unsqueeze(1), [state.unsqueeze(1) for state in start]
    elif module.batch_first:
        x = x.transpose(0, 1)
    return x, start or _zeros(module, x, len(inputs.weights))


def _zeros(module: Any, x: torch.Tensor, n_rows: int) -> list[torch.Tensor]:
    sizes = [getattr(module, "proj_size", 0) or module.hidden_size]
    sizes += [module.hidden_size] if mode(module) == "LSTM" else []
    return [x.new_zeros(n_rows, x.shape[1], size) for size in sizes]


def _hidden(
    module: nn.Module,
    x: torch.Tensor,
    present: torch.Tensor | None,
    start: list[torch.Tensor],
    weights: list[list[torch.Tensor]],
    autocast: torch.dtype | None,
) -> torch.Tensor:
    """The hidden states of one layer, (T, P, M), both directions side by side."""
    function: Any = getattr(torch, str(module.mode).lower())  # torch.lstm, torch.gru, torch.rnn_tanh or torch.rnn_relu
    options = [weight for row in weights for weight in row], module.bias, 1, 0.0, False, module.bidirectional
    with _as_in_the_module(x.device.type, autocast):
        if present is None:
            return function(x, _state(module, start), *options, False)[0]
        packed = pack_padded_sequence(x, present.sum(0), enforce_sorted=False)
        sorted_start = [state[:, packed.sorted_indices] for state in start]
        data = function(packed.data, packed.batch_sizes, _state(module, sorted_start), *options)[0]
    return pad_packed_sequence(packed._replace(data=data))[0]


@contextlib.contextmanager
def _as_in_the_module(device: str, autocast: torch.dtype | None) -> Iterator[None]:
    """Have torch take the path of the module: with gradients enabled it takes another one, to other last bits."""
    autocast_again = torch.autocast(device, autocast, autocast is not None, cache_enabled=False)
    with torch.no_grad(), autocast_again, warnings.catch_warnings():
        # The weights of one layer are a part of the memory that cuDNN keeps for all.
        warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk")
        yield


def _state(module: nn.Module, start: list[torch.Tensor]) -> Any:
    whole = [state.contiguous() for state in start]
    return whole if module.mode == "LSTM" else whole[0]


def replay_of(module: nn.Module, run: Direction, autocast: torch.dtype | None) -> Replay:
    """The gates of all time steps at once, from the hidden states that the steps started from.

    So rounding does not grow from step to step in a chaotic network. Half precision is computed in float32, with
    factors as ``autocast`` rounds them.
    """
    exact = torch.promote_types(run.h.dtype, torch.float32)
    x, previous, *weights = (
        value.to(autocast or value.dtype).to(exact) for value in (run.inputs, run.previous(), *run.weights)
    )
    biases = weights[2:4] if module.bias else [None, None]
    from_x, from_h = F.linear(x, weights[0], biases[0]), F.linear(previous, weights[1], biases[1])
    if mode(module) == "GRU":
        return _gru(from_x, from_h, previous)
    if mode(module) == "LSTM":
        return _lstm(from_x + from_h, run, weights[4 if module.bias else 2 :])
    relu = getattr(module, "nonlinearity", "tanh") == "relu"
    return Replay(None, None, (from_x + from_h).relu() if relu else (from_x + from_h).tanh())


def _gru(from_x: torch.Tensor, from_h: torch.Tensor, previous: torch.Tensor) -> Replay:
    (x_r, x_z, x_n), (h_r, h_z, h_n) = from_x.chunk(3, -1), from_h.chunk(3, -1)
    r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
    n = (x_n + r * h_n).tanh()
    return Replay(torch.cat([r, z, n], -1), None, n + z * (previous - n))


def _lstm(total: torch.Tensor, run: Direction, projection: list[torch.Tensor]) -> Replay:
    i, f, g, o = total.chunk(4, -1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    c = _cell_states(f, i * g, run)
    h = o * c.tanh()
    return Replay(torch.cat([i, f, g, o], -1), c, F.linear(h, *projection) if projection else h)


def _cell_states(forget: torch.Tensor, new: torch.Tensor, run: Direction) -> torch.Tensor:
    c, states = run.start[1].to(new.dtype), torch.empty_like(new)
    steps = range(len(new))
    for step in reversed(steps) if run.backward else steps:
        after = forget[step] * c + new[step]
        c = after if run.present is None else torch.where(run.present[step][:, None], after, c)
        states[step] = c
    return states


def _check(run: Direction, replay: Replay, autocast: torch.dtype | None, name: str, module: nn.Module) -> None:
    """Raise `InputError` if the hidden states of the replay are not those of the module, to rounding.

    Nothing is compared with states that are not finite, which the recorder refuses.
    """
    difference = (replay.h - run.h).where(run.h.isfinite(), 0)
    if run.present is not None:
        difference = difference[run.present]
    dtype = autocast or run.h.dtype
    summands = sum(weight.shape[1] for weight in run.weights[:2])
    roundings = _ROUNDINGS * (1 if torch.finfo(dtype).bits == 16 else math.sqrt(summands))
    allowed = roundings * torch.finfo(dtype).eps * max(1.0, _largest(run.h.nan_to_num(0, 0, 0)))
    largest = _largest(difference)
    if not largest <= allowed:
        raise _no_replay(module, name, f"by {largest:.2g}, and rounding explains {allowed:.2g}")


def _largest(values: torch.Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0


def _no_replay(module: nn.Module, name: str, difference: str) -> InputError:
    return InputError(
        f"layer {name!r} is a {type(module).__name__} whose output differs from a replay of its weights {difference}; "
        f"accepted: a forward like that of nn.{mode(module)}, or state= with a function of (module, output)"
    )
