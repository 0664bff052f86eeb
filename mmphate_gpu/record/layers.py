"""The layers to record: find them in the model, keep copies of their outputs, and make states of these."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.rnn import PackedSequence

from ..errors import InputError, InputTypeError, listed
from .axes import Axes, Steps, axes_of, check_options, described, is_cell, joined
from .failures import FATAL
from .recurrent import Choice, choose
from .replay import Inputs, copied_inputs
from .values import copied, exact_values, first_tensor

_WRAPPERS = {"_orig_mod", "module"}  # names that torch.compile, DataParallel and DistributedDataParallel add


@dataclass(frozen=True)
class Call:
    """One call of a layer during one forward of the probe."""

    output: Any  # a copy of the tensor that is recorded, or that a replay has to give
    inputs: Inputs | None = None  # for a replay


class States(NamedTuple):
    """The states of a layer on one batch of the probe."""

    values: np.ndarray  # (T, M, P) float32 or float64
    present: np.ndarray | None  # (T, P) bool, False after the end of a sequence; None if all are present


@dataclass(frozen=True)
class Layer:
    """A layer to record."""

    name: str
    module: nn.Module
    axes: Axes
    function: Callable[[nn.Module, Any], Any] | None = None  # of the module and its output, that gives the state
    choice: Choice | None = None  # of the states of a recurrent module

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Call:
        """Keep a copy of what the layer got and returned, in a forward hook of ``module`` that gets keywords."""
        if self.function is not None:
            return Call(copied(self._state(output)))
        if self.choice is None:
            return Call(copied(first_tensor(output)))
        inputs = copied_inputs(self.module, args, kwargs) if self.choice.replays else None
        return Call(copied(self.choice.picked(output)), inputs)

    def states(self, calls: Sequence[Call]) -> States:
        """The states in the calls of one forward.

        Raises
        ------
        InputError, InputTypeError
            Without a call, or for calls that are no time steps of one sequence; for an output with other axes than
            expected, or without real numbers; for a recurrent module that does not return what its weights give.
        """
        if not calls:
            raise self._did_not_run()
        axes = self.axes if len(calls) == 1 else self.axes.of_step()
        steps = joined([self._steps(call, axes) for call in calls], self.name)
        present = None if steps.present is None else steps.present.numpy()
        return States(exact_values(steps.values.transpose(1, 2), self.name), present)

    def units(self, n_units: int) -> list[str]:
        """The layer id of each unit: the name of the layer, and what part of a recurrent module a unit is in."""
        return [self.name] * n_units if self.choice is None else self.choice.units(self.name)

    def _state(self, output: Any) -> Any:
        """The state that the user's function returns."""
        accepted = "accepted: a function of (module, output) that returns (batch, timestep, unit) or (batch, unit)"
        try:
            state = first_tensor(self.function(self.module, output))  # type: ignore[misc]
        except FATAL:
            raise
        except Exception as error:  # without this sentence it looks like an error of the model
            raise InputError(
                f"the function of state= fails on the {type(output).__name__} that layer {self.name!r} returns "
                f"({type(error).__name__}: {error}); {accepted}"
            ) from error
        if not isinstance(state, (torch.Tensor, PackedSequence)):
            raise InputTypeError(
                f"the function of state= returns {described(state)} for layer {self.name!r}; {accepted}"
            )
        return state

    def _did_not_run(self) -> InputError:
        accepted = "a layer that runs"
        if isinstance(self.module, (nn.ModuleList, nn.ModuleDict)) and len(self.module):
            inner = [f"{self.name}.{name}".lstrip(".") for name, _ in self.module.named_children()]
            accepted = f"a module of this {type(self.module).__name__}: {listed(inner)}"
        return InputError(
            f"layer {self.name!r} did not run in one forward of the probe in evaluation mode; accepted: {accepted}"
        )

    def _steps(self, call: Call, axes: Axes) -> Steps:
        output = call.output
        if is_cell(self.module) and isinstance(output, torch.Tensor) and output.ndim == 1:
            output = output.unsqueeze(0)
        steps = axes.steps(output, self.name, self.module)
        return steps if self.choice is None else self.choice.steps(steps, call.inputs, self.name)


def find_layers(
    model: nn.Module,
    layers: str | Sequence[str],
    *,
    state: str | Callable[[nn.Module, Any], Any] = "h",
    layer: int | str = -1,
    direction: str = "both",
    batch_first: bool | None = None,
    time_axis: int | None = None,
) -> list[Layer]:
    """The layers of ``model`` with the dotted names ``layers``.

    Parameters
    ----------
    state : "h", the hidden state; "c", the cell state of an LSTM; "gates", the activated gates i, f, g, o of an LSTM or
        r, z, n of a GRU; or a function of the module and its output that returns the state.
    layer, direction : of stacked and bidirectional RNN, LSTM and GRU: a number or "all"; "both", "forward", "backward".
    batch_first, time_axis : the order of the axes of an output, for modules whose type does not fix it.

    Raises
    ------
    InputError, InputTypeError
        A name that the model does not have, two names of one module, or an option that does not fit a layer.
    """
    named = {name: find_module(model, name) for name in _checked_names(layers)}
    _check_distinct(named)
    check_options(batch_first, time_axis)
    if callable(state):
        _check_function(state)
    choices = [
        None if callable(state) else choose(module, name, state, layer, direction) for name, module in named.items()
    ]
    if not any(choices) and (layer != -1 or direction != "both"):
        option = f"layer={layer!r}" if layer != -1 else f"direction={direction!r}"
        without = "state is a function" if callable(state) else f"layers={layers!r} has none of these"
        raise InputError(f"{option} chooses a part of an RNN, LSTM or GRU, but {without}; accepted: no such option")
    axes = axes_of(named, batch_first, time_axis, known=not callable(state))
    return [
        Layer(name, module, order, state if callable(state) else None, choice)
        for (name, module), order, choice in zip(named.items(), axes, choices, strict=True)
    ]


def _check_function(state: Callable[..., Any]) -> None:
    try:
        inspect.signature(state).bind("module", "output")
    except TypeError as error:
        raise InputTypeError(
            f"state is a function with other arguments ({error}); accepted: (module, output)"
        ) from error
    except ValueError:  # a function of C may have no signature
        return


def _checked_names(layers: Any) -> list[str]:
    names = [layers] if isinstance(layers, str) else list(layers) if isinstance(layers, (list, tuple)) else None
    if names is None:
        raise InputTypeError(
            f"layers is a {type(layers).__name__}; accepted: the dotted name of a module, or a list of names"
        )
    if not names or len(set(map(str, names))) != len(names):
        raise InputError(f"layers={layers!r}; accepted: at least one name, and each name once")
    return names


def _check_distinct(named: dict[str, nn.Module]) -> None:
    names: dict[int, str] = {}
    for name, module in named.items():
        other = names.setdefault(id(module), name)
        if other != name:
            raise InputError(
                f"layers {other!r} and {name!r} are the same module, which would be recorded twice; accepted: one of "
                "the two names"
            )


def find_module(model: nn.Module, layer: Any) -> nn.Module:
    """The module with the dotted name ``layer``, also within wrappers, and without its wrappers."""
    if not isinstance(layer, str):
        raise InputTypeError(f"layers holds a {type(layer).__name__}; accepted: dotted names of modules of the model")
    names = dict(model.named_modules(remove_duplicate=False))
    matches = [layer] if layer in names else [name for name in names if _plain(name) == _plain(layer)]
    if not matches:
        raise _no_module(layer, names)
    modules = {id(inner): inner for inner in (unwrapped(names[name]) for name in matches)}
    if len(modules) > 1:
        raise InputError(f"layer {layer!r} may be any of {listed(matches)}; accepted: one of these names")
    (module,) = modules.values()
    if isinstance(module, torch.jit.ScriptModule):
        raise InputTypeError(
            f"layer {layer!r} is a scripted module, which takes no hooks; accepted: a module that is not scripted"
        )
    return module


def _plain(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _no_module(layer: str, names: dict[str, nn.Module]) -> InputError:
    recurrent = [name for name, module in names.items() if isinstance(module, (nn.RNNBase, nn.RNNCellBase))]
    shown = listed(recurrent or [name for name in names if name]) or "none"
    what = "recurrent layers" if recurrent else "modules (no RNN, LSTM or GRU among them)"
    return InputError(f"layer {layer!r} is no module of the model; its {what}: {shown}")


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside wrappers that compile it or spread a forward over devices and processes."""
    parallel = isinstance(module, (nn.DataParallel, DistributedDataParallel))
    inner: Any = module.module if parallel else getattr(module, "_orig_mod", module)
    return module if inner is module else unwrapped(inner)
