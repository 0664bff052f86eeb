"""The states of a layer, from what it returns: every module and every order of axes."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import nn

from mmphate_gpu.errors import InputError
from mmphate_gpu.record.layers import find_layers

B, T, F, H = 6, 5, 3, 4


def probe(seed=0):
    return torch.randn(B, T, F, generator=torch.Generator().manual_seed(seed))


def states(model, layers, *args, keywords=None, **options):
    """The states of each layer in one forward of ``model``."""
    requested = find_layers(model, layers, **options)
    calls = [[] for _ in requested]

    def keep(calls, layer, module, args, keywords, output):
        calls.append(layer.call(args, keywords, output))

    handles = [
        layer.module.register_forward_hook(functools.partial(keep, kept, layer), with_kwargs=True)
        for layer, kept in zip(requested, calls, strict=True)
    ]
    try:
        with torch.no_grad():
            model.eval()(*args, **(keywords or {}))
    finally:
        for handle in handles:
            handle.remove()
    return [layer.states(kept) for layer, kept in zip(requested, calls, strict=True)]


def test_a_linear_layer_of_one_time_step():
    model = nn.Sequential(nn.Linear(F, H), nn.Tanh())
    x = probe()[:, 0]
    (result,) = states(model, "1", x)
    assert result.present is None and result.values.shape == (1, H, B)
    assert np.array_equal(result.values[0], model(x).detach().numpy().T)


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_recurrent_layer(batch_first):
    model = nn.Sequential(nn.GRU(F, H, batch_first=batch_first))
    x = probe() if batch_first else probe().transpose(0, 1)
    (result,) = states(model, "0", x)
    with torch.no_grad():
        output = model(x)[0]
    assert np.array_equal(result.values, (output.transpose(0, 1) if batch_first else output).permute(0, 2, 1))


def test_three_axes_of_an_unknown_module_are_not_guessed():
    with pytest.raises(InputError, match=r"'1' is a Tanh and returns \(6, 5, 4\); accepted: batch_first=True if"):
        states(nn.Sequential(nn.Linear(F, H), nn.Tanh()), "1", probe())
