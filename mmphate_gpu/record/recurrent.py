"""Which states of a recurrent module are recorded: of which layers and directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..errors import InputError, InputTypeError, check_choice
from .replay import Inputs, check_replay, directions, mode, replayed
from .states import Steps
from .values import first_tensor

DIRECTIONS = ("forward", "backward")
STATES = ("h", "c", "gates")
_GATES = {"LSTM": ("i", "f", "g", "o"), "GRU": ("r", "z", "n")}


@dataclass(frozen=True)
class Choice:
    """The states that are recorded of a recurrent module."""

    module: nn.Module
    state: str
    layers: tuple[int, ...]  # of the stack
    directions: tuple[int, ...]
    labels: tuple[str, ...]  # of each layer and direction, to be put after the name of the module

    @property
    def replays(self) -> bool:
        """Whether the states are not in the output of the module."""
        cell = isinstance(self.module, nn.RNNCellBase)
        return self.state == "gates" or (
            not cell and (self.state == "c" or self.layers != (_n_layers(self.module) - 1,))
        )

    def units(self, name: str) -> list[str]:
        """The layer id of each unit."""
        projected = getattr(self.module, "proj_size", 0) if self.state == "h" else 0
        states = (
            [f" gates {gate}" for gate in _GATES[mode(self.module)]]
            if self.state == "gates"
            else ["" if self.state == "h" else f" {self.state}"]
        )
        width: Any = projected or self.module.hidden_size
        return [f"{name}{label}{state}" for label in self.labels for state in states for _ in range(width)]

    def picked(self, output: Any) -> Any:
        """The item of the output of a call that is recorded or replayed."""
        of_cell = self.state == "c" and isinstance(self.module, nn.LSTMCell) and isinstance(output, tuple)
        return output[1] if of_cell else first_tensor(output)

    def steps(self, output: Steps, inputs: Inputs | None, name: str) -> Steps:
        """The states at every time step of a call that returned ``output``."""
        if inputs is None:
            parts = output.values.chunk(_n_directions(self.module), -1)
            return output._replace(values=torch.cat([parts[number] for number in self.directions], -1))
        with torch.autocast(output.values.device.type, enabled=False):
            return output._replace(values=self._replayed(output, inputs, name))

    def _replayed(self, output: Steps, inputs: Inputs, name: str) -> torch.Tensor:
        runs = directions(self.module, inputs, output, name)
        replays = [replayed(self.module, run, inputs.autocast) for run in runs]
        count = _n_directions(self.module)
        for run, replay in list(zip(runs, replays, strict=True))[-count:]:
            check_replay(run, replay, inputs.autocast, name, self.module)
        chosen = [layer * count + number for layer in self.layers for number in self.directions]
        if self.state == "h":
            return torch.cat([runs[index].h for index in chosen], -1)
        return torch.cat([getattr(replays[index], self.state) for index in chosen], -1)


def choose(module: nn.Module, name: str, state: str, layer: int | str, direction: str) -> Choice | None:
    """The choice that the options mean for ``module``; None if it is not recurrent. `InputError` if it has none."""
    check_choice("state", state, STATES)
    check_choice("direction", direction, ("both", *DIRECTIONS))
    cell = mode(module)
    if not cell:
        if state != "h":
            raise InputError(
                f"state={state!r} does not fit layer {name!r}, a {type(module).__name__}; accepted: state='h', or a "
                "function of (module, output)"
            )
        return None
    if state == "c" and cell != "LSTM" or state == "gates" and cell == "RNN":
        missing = "no cell state" if state == "c" else "no gates"
        more = " or 'gates'" if cell == "GRU" else ""
        raise InputError(f"state={state!r} does not fit layer {name!r}, as a {cell} has {missing}; accepted: 'h'{more}")
    layers, sides = _chosen_layers(module, name, layer), _chosen_directions(module, name, direction)
    numbers = ["" if layer == -1 else f".{number}" for number in layers]
    suffixes = ["" if _n_directions(module) == 1 else f".{DIRECTIONS[side]}" for side in sides]
    return Choice(module, state, layers, sides, tuple(number + suffix for number in numbers for suffix in suffixes))


def _chosen_layers(module: nn.Module, name: str, layer: Any) -> tuple[int, ...]:
    count = _n_layers(module)
    if layer == "all":
        return tuple(range(count))
    if isinstance(layer, bool) or not isinstance(layer, int):
        raise InputTypeError(f"layer={layer!r}; accepted: the number of a layer in the stack, or 'all'")
    if not -count <= layer < count:
        raise InputError(
            f"layer={layer} is outside layer {name!r}, a stack of {count}; accepted: {-count} to {count - 1}"
        )
    return (layer % count,)


def _chosen_directions(module: nn.Module, name: str, direction: str) -> tuple[int, ...]:
    count = _n_directions(module)
    if direction == "both":
        return tuple(range(count))
    if DIRECTIONS.index(direction) >= count:
        raise InputError(
            f"direction={direction!r} does not fit layer {name!r}, which runs forward only; accepted: 'both'"
        )
    return (DIRECTIONS.index(direction),)


def _n_layers(module: nn.Module) -> int:
    return int(getattr(module, "num_layers", 1))


def _n_directions(module: nn.Module) -> int:
    return 2 if getattr(module, "bidirectional", False) else 1
