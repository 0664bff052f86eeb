"""Which axis of an output is time, and the output as values of every time step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence, pad_sequence

from ..errors import InputError, InputTypeError, check_number, listed
from .values import check_form

# These modules return (batch, channel, time) or, without a batch, (channel, time).
_CHANNELS_FIRST = (
    *(nn.Conv1d, nn.ConvTranspose1d, nn.InstanceNorm1d, nn.Dropout1d, nn.LPPool1d),
    *(nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveMaxPool1d, nn.AdaptiveAvgPool1d, nn.MaxUnpool1d),
    *(nn.ConstantPad1d, nn.ZeroPad1d, nn.ReflectionPad1d, nn.ReplicationPad1d, nn.CircularPad1d),
)
# If these modules return two axes, they are (batch, channel).
_NORMS = (nn.BatchNorm1d, nn.SyncBatchNorm, nn.GroupNorm)
# These modules return the axes that they get.
_ELEMENTWISE = (
    *(nn.Identity, nn.Dropout, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.LayerNorm, nn.ReLU, nn.LeakyReLU, nn.PReLU),
    *(nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Tanh, nn.Hardtanh, nn.Sigmoid),
)


class Steps(NamedTuple):
    """The values of every time step, and which of them are before the end of their sequence."""

    values: torch.Tensor  # (T, P, M)
    present: torch.Tensor | None = None  # (T, P) bool on the CPU; None if all are


@dataclass(frozen=True)
class Axes:
    """The axis of time in an output of three axes, and in one of two axes, each None where it is unknown."""

    three: int | None = None
    two: int | None = None  # None means (batch, unit), a single time step
    option: str = ""  # what the user typed, if the axes are not those of the module

    def of_step(self) -> Axes:
        """The axes of an output that is one of several time steps, while the options are those of a sequence."""
        return Axes(self.three) if self.option else self

    @staticmethod
    def of_options(batch_first: bool | None, time_axis: int | None) -> Axes:
        """The axes that the user's options mean."""
        if time_axis is not None:
            return Axes(time_axis % 3, time_axis, f"time_axis={time_axis}")
        return Axes() if batch_first is None else Axes(int(batch_first), None, f"batch_first={batch_first}")

    def steps(self, output: Any, layer: str, module: nn.Module) -> Steps:
        """The time steps of what ``layer`` returned in one call."""
        if isinstance(output, PackedSequence):
            check_form(output.data, layer)
            values, lengths = pad_packed_sequence(output)  # (T, P, M), in the order of the user's batch
            return Steps(values, before_end(len(values), lengths))
        if not isinstance(output, torch.Tensor):
            raise InputTypeError(f"layer {layer!r} returns {described(output)}; {_ACCEPTED}")
        if output.is_nested:
            return _nested_steps(output, layer)
        check_form(output, layer)
        return Steps(self._ordered(output, layer, module))

    def _ordered(self, output: torch.Tensor, layer: str, module: nn.Module) -> torch.Tensor:
        """The output as (T, P, M)."""
        returned = f"layer {layer!r} is a {type(module).__name__} and returns {tuple(output.shape)}"
        if output.ndim == 3:
            return self._of_three(output, returned)
        if output.ndim == 2:
            return self._of_two(output, returned)
        raise InputError(f"{returned}, an output of {output.ndim} axes; {_ACCEPTED}")

    def _of_three(self, output: torch.Tensor, returned: str) -> torch.Tensor:
        if self.three is not None:
            return output.movedim(self.three, 0)
        raise InputError(
            f"{returned}; accepted: batch_first=True if these are (batch, timestep, unit), batch_first=False if they "
            "are (timestep, batch, unit), or time_axis=2 if they are (batch, unit, timestep)"
        )

    def _of_two(self, output: torch.Tensor, returned: str) -> torch.Tensor:
        if self.two is None and self.option:
            raise InputError(
                f"{returned}, two axes, but {self.option} means three; accepted: no batch_first for (batch, unit), or "
                "time_axis=0 for (timestep, unit)"
            )
        if self.two is None:
            return output.unsqueeze(0)
        if not -2 <= self.two < 2:
            raise InputError(f"{returned}, but {self.option}; accepted: time_axis=0 or 1 for two axes")
        return output.movedim(self.two, 0).unsqueeze(1)


_ACCEPTED = (
    "accepted: (batch, unit), three axes of batch, timestep and unit, or state= with a function of (module, output) "
    "that returns such a tensor"
)


def check_options(batch_first: Any, time_axis: Any) -> None:
    """Refuse values of the options that no layer accepts."""
    if batch_first is not None and not isinstance(batch_first, bool):
        raise InputTypeError(f"batch_first={batch_first!r}; accepted: True, False, or None")
    if time_axis is not None:
        check_number("time_axis", time_axis, low=-3, high=2, integer=True)
    if time_axis is not None and batch_first is not None:
        raise InputError(
            f"batch_first={batch_first} and time_axis={time_axis} both choose the axis of time; accepted: one of them"
        )


def axes_of(
    modules: dict[str, nn.Module], batch_first: bool | None, time_axis: int | None, *, known: bool
) -> list[Axes]:
    """The axes of the output of each of the named ``modules``.

    If ``known``, the types of modules decide where they fix the order of the axes, and the options decide for the other
    modules. If the types fix the order for all, an option that contradicts one of them is an `InputError`.
    """
    by_type = [known_axes(module) if known else None for module in modules.values()]
    chosen = Axes.of_options(batch_first, time_axis)
    if None in by_type or chosen == Axes():
        return [chosen if axes is None else axes for axes in by_type]
    return [
        _agreed(axes, chosen, *item) for axes, item in zip(by_type, modules.items(), strict=True) if axes is not None
    ]


def _agreed(known: Axes, chosen: Axes, layer: str, module: nn.Module) -> Axes:
    """The axes that the type of the module fixes, or those of the options where both are possible."""
    if known.three is None:
        return known
    if chosen.two is not None and known.two != 0:
        return chosen
    batch_is_first = chosen.three == 1 and known.three == 2
    if chosen.three == known.three or batch_is_first:
        return known
    order = ("(timestep, batch, unit)", "(batch, timestep, unit)", "(batch, unit, timestep)")[known.three]
    raise InputError(
        f"{chosen.option} contradicts layer {layer!r}, a {type(module).__name__} that returns {order}; accepted: no "
        f"{chosen.option.partition('=')[0]}"
    )


def known_axes(module: nn.Module) -> Axes | None:
    """The axes that follow from the type of ``module``; None if none do, or if the user wrote its forward."""
    if not _runs_as_in_torch(module):
        return None
    if isinstance(module, nn.Sequential):
        changing = [item for item in module if not (isinstance(item, _ELEMENTWISE) and _runs_as_in_torch(item))]
        return known_axes(changing[-1]) if changing else None
    if isinstance(module, _CHANNELS_FIRST):
        return Axes(2, 1)
    if isinstance(module, _NORMS):
        return Axes(2)
    if is_cell(module):
        return Axes()
    batch_first = _batch_first(module)
    return None if batch_first is None else Axes(int(batch_first), 0)


def is_cell(module: nn.Module) -> bool:
    """Whether the module is a recurrent cell of torch; the user may have written another forward of a derived class."""
    return isinstance(module, nn.RNNCellBase) and _runs_as_in_torch(module)


def _runs_as_in_torch(module: nn.Module) -> bool:
    """Whether the forward is one of torch; a class that is derived from a layer of torch may transpose or pool."""
    return getattr(module.forward, "__module__", "").partition(".")[0] == "torch"


def _batch_first(module: nn.Module) -> bool | None:
    if isinstance(module, (nn.TransformerEncoder, nn.TransformerDecoder)):
        return _batch_first(module.layers[0])
    if isinstance(module, (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)):
        module = module.self_attn
    return module.batch_first if isinstance(module, (nn.RNNBase, nn.MultiheadAttention, nn.Transformer)) else None


def before_end(n_timesteps: int, lengths: torch.Tensor) -> torch.Tensor:
    """Which time steps of sequences of ``lengths`` are before the end, (T, P)."""
    return torch.arange(n_timesteps, device="cpu")[:, None] < lengths.cpu()


def _nested_steps(output: torch.Tensor, layer: str) -> Steps:
    parts = list(output.unbind())
    if {part.ndim for part in parts} != {2} or len({part.shape[1] for part in parts}) != 1:
        shapes = ", ".join(str(tuple(part.shape)) for part in parts[:5])
        raise InputError(
            f"layer {layer!r} returns a nested tensor of the shapes {shapes}; accepted: (timestep, unit) for each "
            "sample, with the same number of units"
        )
    for part in parts:
        check_form(part, layer)
    lengths = torch.tensor([len(part) for part in parts], dtype=torch.int64, device="cpu")
    values = pad_sequence(parts)
    return Steps(values, before_end(len(values), lengths))


def joined(steps: Sequence[Steps], layer: str) -> Steps:
    """The time steps of several calls; each call gives one step."""
    if len(steps) == 1:
        return steps[0]
    ran = f"layer {layer!r} ran {len(steps)} times in one forward of the probe and returned"
    if any(step.present is not None or len(step.values) != 1 for step in steps):
        raise InputError(
            f"{ran} {_different(len(step.values) for step in steps)} time steps at a time; accepted: one call that "
            "returns the sequence, or calls of one time step each"
        )
    if len({step.values.shape for step in steps}) != 1:
        raise InputError(
            f"{ran} (sample, unit) = {_different(tuple(step.values.shape[1:]) for step in steps)}; accepted: the same "
            "shape at each time step"
        )
    return Steps(torch.cat([step.values for step in steps]))


def _different(values: Iterable[Any]) -> str:
    return " and ".join(map(str, sorted(set(values))[:3]))


def described(output: Any) -> str:
    """What an output without a tensor is, for an error."""
    name = f"a {type(output).__name__}"
    if isinstance(output, dict):
        return f"{name} with the keys {listed(output)}"
    if dataclasses.is_dataclass(output):
        return f"{name} with the fields {listed([field.name for field in dataclasses.fields(output)])}"
    if isinstance(output, (tuple, list)):
        return f"{name} without a tensor among its {len(output)} items"
    return "None" if output is None else name
