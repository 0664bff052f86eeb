"""The states of layers in one forward, and recurrent layers written out as loops."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import nn

from mmphate_gpu.record.layers import find_layers

B, T, F, H = 6, 5, 3, 4


def probe(*shape, seed=0):
    return torch.randn(*(shape or (B, T, F)), generator=torch.Generator().manual_seed(seed))


def states(model, layers, *args, keywords=None, **options):
    """The requested layers, and the states of each in one forward of ``model``."""
    requested = find_layers(model, layers, **options)
    calls = [[] for _ in requested]

    def keep(layer, calls, module, args, keywords, output):
        calls.append(layer.call(args, keywords, output))

    handles = [
        layer.module.register_forward_hook(functools.partial(keep, layer, kept), with_kwargs=True)
        for layer, kept in zip(requested, calls, strict=True)
    ]
    try:
        with torch.no_grad():
            model.eval()(*args, **(keywords or {}))
    finally:
        for handle in handles:
            handle.remove()
    return requested, [layer.states(kept) for layer, kept in zip(requested, calls, strict=True)]


def values(model, name, *args, **options):
    """The values of one layer, (T, M, P)."""
    return states(model, name, *args, **options)[1][0].values


class Returns(nn.Module):
    """A model with a layer that returns ``function(x)``."""

    class Inner(nn.Module):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def forward(self, x):
            return self.function(x)

    def __init__(self, function):
        super().__init__()
        self.layer = self.Inner(function)

    def forward(self, x):
        self.layer(x)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _step(rnn, x, h, c, weights):
    """The new h and c, and the gates, of one time step of one sample in float64."""
    weight_ih, weight_hh, *rest = weights
    bias_ih, bias_hh = rest[:2] if rnn.bias else (0, 0)
    from_x, from_h = weight_ih @ x + bias_ih, weight_hh @ h + bias_hh
    if isinstance(rnn, nn.LSTM):
        i, f, g, o = np.split(from_x + from_h, 4)
        i, f, g, o = _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)
        c = f * c + i * g
        h = o * np.tanh(c)
        return rest[-1] @ h if rnn.proj_size else h, c, np.concatenate([i, f, g, o])
    if isinstance(rnn, nn.GRU):
        (x_r, x_z, x_n), (h_r, h_z, h_n) = np.split(from_x, 3), np.split(from_h, 3)
        r, z = _sigmoid(x_r + h_r), _sigmoid(x_z + h_z)
        n = np.tanh(x_n + r * h_n)
        return (1 - z) * n + z * h, c, np.concatenate([r, z, n])
    total = from_x + from_h
    return (np.maximum(total, 0) if rnn.nonlinearity == "relu" else np.tanh(total)), c, np.zeros(0)


def by_hand(rnn, x, start=None):
    """The states h, c and gates of each (layer, direction), (T, M), for one sample ``x`` (T, n), by loops in float64.

    ``start`` is h, or h and c, each with a row for each layer and direction.
    """
    x, sides = x.double().numpy(), 2 if rnn.bidirectional else 1
    width, result = rnn.proj_size or rnn.hidden_size, {}
    for layer in range(rnn.num_layers):
        for side in range(sides):
            row = layer * sides + side
            weights = [weight.detach().double().numpy() for weight in rnn.all_weights[row]]
            h = np.zeros(width) if start is None else start[0][row].double().numpy()
            c = np.zeros(rnn.hidden_size) if start is None or len(start) == 1 else start[1][row].double().numpy()
            steps = []
            for step in x[::-1] if side else x:
                h, c, gates = _step(rnn, step, h, c, weights)
                steps.append((h, c, gates))
            steps = steps[::-1] if side else steps
            result[layer, side] = dict(zip(("h", "c", "gates"), map(np.stack, zip(*steps, strict=True)), strict=True))
        x = np.concatenate([result[layer, side]["h"] for side in range(sides)], 1)
    return result
