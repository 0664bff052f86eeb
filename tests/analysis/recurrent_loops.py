"""Recurrent models, and the same runs as explicit loops of torch's cells, in which states can be replaced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

MODULES = (nn.RNN, nn.LSTM, nn.GRU)
_CELLS = {nn.RNN: nn.RNNCell, nn.LSTM: nn.LSTMCell, nn.GRU: nn.GRUCell}
Replace = Callable[[int, int, int, list[torch.Tensor]], list[torch.Tensor]]  # of layer, side, time step and states


class Reader(nn.Module):
    """Reads all that a recurrent layer returns: its outputs, the last of them twice, and its final states."""

    def __init__(self, cls: type, n_units: int = 4, n_classes: int = 3, **options: Any) -> None:
        super().__init__()
        self.rnn = cls(2, n_units, **options)
        sides = 1 + bool(options.get("bidirectional"))
        finals = sides * self.rnn.num_layers * n_units * (1 + (cls is nn.LSTM))
        self.head = nn.Linear(2 * sides * n_units + finals, n_classes)
        self.double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (P, T, 2) or (T, P, 2) -> (P, classes)
        output, finals = self.rnn(x)
        output = output.transpose(0, 1) if self.rnn.batch_first else output
        return self.read(output, list(finals) if isinstance(finals, tuple) else [finals])

    def read(self, output: torch.Tensor, finals: list[torch.Tensor]) -> torch.Tensor:
        """The logits from the output (T, P, M) and the final states."""
        parts = [final.transpose(0, 1).flatten(1) for final in finals]
        return self.head(torch.cat([output.mean(0), output[-1], *parts], 1))


def reader(cls: type, seed: int = 0, scale: float = 2.0, **options: Any) -> Reader:
    """A reader with weights that are large enough for states to matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Reader(cls, **options)
    with torch.no_grad():
        for weight in model.parameters():
            weight *= scale
    return model


def cell(module: Any, layer: int, side: int) -> nn.RNNCellBase:
    """The cell of one direction of one layer."""
    suffix = f"l{layer}" + ("_reverse" if side else "")
    weights = {name: getattr(module, f"{name}_{suffix}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    result = _CELLS[type(module)](weights["weight_ih"].shape[1], module.hidden_size, dtype=torch.float64)
    result.load_state_dict(weights)
    return result


def keep(layer: int, side: int, step: int, states: list[torch.Tensor]) -> list[torch.Tensor]:
    """Replace nothing."""
    return states


@torch.no_grad()
def logits(model: Reader, x: torch.Tensor, replace: Replace = keep) -> torch.Tensor:
    """The logits for ``x`` (T, P, 2), with the states after each time step as ``replace`` returns them."""
    sides, ends = 1 + model.rnn.bidirectional, []
    for layer in range(model.rnn.num_layers):
        outputs = []
        for side in range(sides):
            path = _path(cell(model.rnn, layer, side), x, side, lambda *state, at=(layer, side): replace(*at, *state))
            outputs.append(torch.stack([states[0] for states in path]))
            ends.append(path[0 if side else -1])
        x = torch.cat(outputs, -1)
    return model.read(x, [torch.stack(parts) for parts in zip(*ends, strict=True)])


def _path(step_of: Any, x: torch.Tensor, side: int, replace: Callable[..., Any]) -> list[list[torch.Tensor]]:
    """The states after each time step of one direction."""
    states = [x.new_zeros(x.shape[1], step_of.hidden_size)] * (1 + isinstance(step_of, nn.LSTMCell))
    path: list[Any] = [None] * len(x)
    for step in range(len(x))[:: -1 if side else 1]:
        after = step_of(x[step], tuple(states) if len(states) == 2 else states[0])
        states = replace(step, list(after) if isinstance(after, tuple) else [after])
        path[step] = states
    return path


def states_of(model: Reader, x: torch.Tensor, layer: int, side: int) -> list[torch.Tensor]:  # each (T, P, M)
    """The states of one direction of a layer in the run itself."""
    path: dict[int, list[torch.Tensor]] = {}

    def see(*at: Any) -> list[torch.Tensor]:
        if at[:2] == (layer, side):
            path[at[2]] = at[3]
        return at[3]

    logits(model, x, see)
    return [torch.stack([path[step][number] for step in range(len(x))]) for number in range(len(path[0]))]
