"""Choose the states of a recurrent module that are recorded: the sort of state, the layers and the directions."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..errors import InputError, check_choice, listed
from .axes import Steps, is_cell
from .replay import GATES, Inputs, mode, n_directions, replayed
from .values import first_tensor

DIRECTIONS = ("forward", "backward")
STATES = ("h", "c", "gates")


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
        if is_cell(self.module):
            return self.state == "gates"
        return self.state != "h" or self.layers != (_n_layers(self.module) - 1,)

    def units(self, name: str) -> list[str]:
        """The layer id of each unit."""
        width = self._width()
        ids = [f"{name}{label}{state}".lstrip(". ") for label in self.labels for state in self._state_labels()]
        return [unit for unit in ids for _ in range(width)]

    def _width(self) -> int:
        """The number of units of one layer and direction."""
        projected = getattr(self.module, "proj_size", 0) if self.state == "h" else 0
        width: Any = projected or self.module.hidden_size
        return int(width)

    def _check_width(self, n_units: int, name: str) -> None:
        accepted = self._width() * n_directions(self.module)
        if n_units != accepted:
            raise InputError(
                f"layer {name!r} is a {type(self.module).__name__} and returns {n_units} units; accepted: {accepted}, "
                "as its weights give, or state= with a function of (module, output)"
            )

    def _state_labels(self) -> list[str]:
        if self.state == "gates":
            return [f" gates {gate}" for gate in GATES[mode(self.module)]]
        return ["" if self.state == "h" else f" {self.state}"]

    def picked(self, output: Any) -> Any:
        """The item of the output of a call that is recorded or replayed."""
        of_cell = self.state == "c" and not self.replays and isinstance(output, tuple)
        return output[1] if of_cell else first_tensor(output)

    def steps(self, output: Steps, inputs: Inputs | None, name: str) -> Steps:
        """The states at every time step of a call that returned ``output``."""
        if inputs is None:
            self._check_width(output.values.shape[-1], name)
            parts = output.values.chunk(n_directions(self.module), -1)
            return output._replace(values=torch.cat([parts[number] for number in self.directions], -1))
        with torch.autocast(output.values.device.type, enabled=False):
            replays = replayed(self.module, inputs, output, name)
        chosen = [layer * n_directions(self.module) + side for layer in self.layers for side in self.directions]
        return output._replace(values=torch.cat([getattr(replays[index][1], self.state) for index in chosen], -1))


def choose(module: nn.Module, name: str, state: str, layer: int | str, direction: str) -> Choice | None:
    """The choice by the options; None if ``module`` is not recurrent. `InputError` if an option does not fit it."""
    check_choice("state", state, STATES)
    check_choice("direction", direction, ("both", *DIRECTIONS))
    _check_state(module, name, state)
    if not mode(module):
        return None
    layers, sides = _chosen_layers(module, name, layer), _chosen_directions(module, name, direction)
    ranks = ["" if layer == -1 or _n_layers(module) == 1 else f".{number}" for number in layers]
    suffixes = ["" if n_directions(module) == 1 else f".{DIRECTIONS[side]}" for side in sides]
    return Choice(module, state, layers, sides, tuple(number + suffix for number in ranks for suffix in suffixes))


def _check_state(module: nn.Module, name: str, state: str) -> None:
    states = {"LSTM": STATES, "GRU": ("h", "gates")}.get(mode(module), ("h",))
    if state not in states:
        more = "" if mode(module) else ", or a function of (module, output)"
        raise InputError(
            f"state={state!r} does not fit layer {name!r}, a {type(module).__name__}; accepted: {listed(states)}{more}"
        )


def _chosen_layers(module: nn.Module, name: str, layer: Any) -> tuple[int, ...]:
    count = _n_layers(module)
    if layer == "all":
        return tuple(range(count))
    if isinstance(layer, bool) or not isinstance(layer, numbers.Integral) or not -count <= int(layer) < count:
        raise InputError(
            f"layer={layer!r} does not fit layer {name!r}, a stack of {count}; accepted: {-count} to {count - 1}, or "
            "'all'"
        )
    return (int(layer) % count,)


def _chosen_directions(module: nn.Module, name: str, direction: str) -> tuple[int, ...]:
    if direction == "both":
        return tuple(range(n_directions(module)))
    if direction == "backward" and n_directions(module) == 1:
        raise InputError(f"direction='backward' does not fit layer {name!r}, which runs forward; accepted: 'both'")
    return (DIRECTIONS.index(direction),)


def _n_layers(module: nn.Module) -> int:
    return int(getattr(module, "num_layers", 1))
