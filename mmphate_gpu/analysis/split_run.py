"""Run an RNN, LSTM or GRU on from states that were replaced at some time steps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from ..errors import InputError
from ..record.axes import Axes, known_axes
from ..record.replay import Direction, Inputs, Replay, copied_inputs, n_directions, replay_of, replayed
from ..record.values import copied


class Change(NamedTuple):
    """Which states of a layer are replaced in each of B variants of a run, and by what.

    The units are those of both directions, side by side. A state that is None is not replaced.
    """

    where: torch.Tensor  # (B, T, M) bool, or (B, T, 1) for all units
    h: torch.Tensor | None  # (T, P, M)
    c: torch.Tensor | None = None  # (T, P, M)

    def of_direction(self, number: int, count: int) -> Change:
        """The units of one of ``count`` directions."""
        where = self.where if self.where.shape[-1] == 1 else self.where.chunk(count, -1)[number]
        return Change(where, *(None if state is None else state.chunk(count, -1)[number] for state in (self.h, self.c)))

    def at(self, step: int, states: list[torch.Tensor]) -> list[torch.Tensor]:  # each (B, P, M)
        """The ``states`` after one time step, replaced where that is asked for."""
        return [
            state if by is None else torch.where(self.where[:, step, None], by[step], state)
            for state, by in zip(states, (self.h, self.c), strict=False)
        ]

    def differs(self, states: list[torch.Tensor]) -> torch.Tensor:  # each (T, P, M) -> (B, T) bool
        """At which time steps a variant replaces a value of ``states`` by another value."""
        result = self.where.new_zeros(self.where.shape[:2])
        for state, by in zip(states, (self.h, self.c), strict=False):
            if by is not None:
                result |= (self.where & (state != by).any(1)).any(2)
        return result


class _Side(NamedTuple):
    """One direction of a layer: its run, and its states in that run or in B variants of it."""

    run: Direction
    states: list[torch.Tensor]  # h, and c of an LSTM, each (T, P, M) or (B, T, P, M)

    @property
    def order(self) -> range:
        """The time steps in the order in which the direction passes them."""
        return range(len(self.run.h))[:: -1 if self.run.backward else 1]

    def before(self, position: int) -> list[torch.Tensor]:  # each (B, P, M)
        """The states of the variants that the time step ``order[position]`` starts from."""
        if position:
            return [state[:, self.order[position - 1]] for state in self.states]
        return [
            start.to(state).expand_as(state[:, 0]) for start, state in zip(self.run.start, self.states, strict=True)
        ]


@dataclass(frozen=True)
class Call:
    """One call of a recurrent module in one forward of a model."""

    module: Any  # nn.RNN, nn.LSTM or nn.GRU
    name: str
    inputs: Inputs
    output: tuple[Any, ...]  # copies of the output and of each final state that the module returned

    @classmethod
    def of_hook(cls, name: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Call:
        """Copy the call in a forward hook of ``module`` that gets keywords."""
        finals = output[1] if isinstance(output[1], tuple) else (output[1],)
        return cls(module, name, copied_inputs(module, args, kwargs), copied((output[0], *finals)))

    @cached_property
    def _sides(self) -> list[_Side]:
        """All directions of all layers in the run itself."""
        if isinstance(self.inputs.values, PackedSequence):
            raise InputError(
                f"layer {self.name!r} gets a packed sequence, whose samples end at different time steps; accepted: a "
                "tensor, with samples of the same length"
            )
        steps = self._axes.steps(self.output[0], self.name, self.module)
        return [
            _Side(run, _states(run, replay)) for run, replay in replayed(self.module, self.inputs, steps, self.name)
        ]

    @property
    def _axes(self) -> Axes:
        axes = known_axes(self.module)
        assert axes is not None  # `recurrent_module` refuses other modules
        return axes

    def states(self, layer: int) -> list[torch.Tensor]:  # each (T, P, M)
        """The hidden states, and the cell states of an LSTM, of a layer, both directions side by side.

        `InputError` refuses packed sequences, and a module that does not return what its weights give.
        """
        count = n_directions(self.module)
        sides = [side.states for side in self._sides[layer * count : (layer + 1) * count]]
        return [torch.cat(parts, -1) for parts in zip(*sides, strict=True)]

    def outputs(self, layer: int, change: Change) -> list[Any]:
        """What the module returns in each variant; None if every state is replaced by itself.

        The run is split at the first replacement: the earlier states stay, and the later ones follow from the changed
        states, in this layer and in those above it. O(B T P M^2) time for each layer.
        """
        count, differs = n_directions(self.module), change.differs(self.states(layer))
        changed: list[_Side] = []
        x = self._sides[layer * count].run.inputs[None]  # (1, T, P, n)
        for number, side in enumerate(self._sides[layer * count :]):
            part = change.of_direction(number, count) if number < count else None
            # With two directions, a layer above gets other inputs at all time steps.
            steps = differs.any(0)[list(side.order)] if part or count == 1 else differs.new_ones(1)
            changed.append(self._variants(side, x, len(differs), part, start=int(steps.int().argmax())))
            if number % count == count - 1:
                x = torch.cat([last.states[0] for last in changed[-count:]], -1)
        is_changed = differs.any(1).tolist()
        return [self._output(x[i], changed, i) if is_changed[i] else None for i in range(len(x))]

    def _variants(self, side: _Side, x: torch.Tensor, n_variants: int, change: Change | None, start: int) -> _Side:
        """The side in all variants; those states are kept that are before the position ``start`` of its order."""
        variants = side._replace(states=[state.repeat(n_variants, 1, 1, 1) for state in side.states])
        for position in range(start, len(side.order)):
            step = side.order[position]
            after = self._step(side.run, x[:, step].expand(n_variants, -1, -1), variants.before(position))
            for state, value in zip(variants.states, after if change is None else change.at(step, after), strict=True):
                state[:, step] = value
        return variants

    def _step(self, run: Direction, x: torch.Tensor, before: list[torch.Tensor]) -> list[torch.Tensor]:
        """The states (B, P, M) after one time step, of all variants in one product."""
        rows, *start = (part.reshape(-1, part.shape[-1]) for part in (x, *before))
        step = run._replace(inputs=rows[None], h=start[0][None], start=tuple(start), backward=False)
        replay = replay_of(self.module, step, self.inputs.autocast)
        return [state.view(*x.shape[:2], -1) for state in (replay.h, replay.c) if state is not None]

    def _output(self, values: torch.Tensor, changed: list[_Side], variant: int) -> Any:
        """The output (from ``values``, (T, P, M)) and the final states of one variant, in the form of the module's."""
        output, *finals = self.output
        # Without a batch, the module returns two axes.
        values = values.movedim(0, self._axes.three or 0) if output.ndim == 3 else values[:, 0]
        for number, final in enumerate(finals):
            ends = torch.stack([side.states[number][variant, side.order[-1]] for side in changed])
            ends = ends if final.ndim == 3 else ends[:, 0]
            finals[number] = torch.cat([final[: len(final) - len(ends)], ends.to(final)])
        return values.to(output).contiguous(), finals[0] if len(finals) == 1 else tuple(finals)


def _states(run: Direction, replay: Replay) -> list[torch.Tensor]:
    """The hidden states, and the cell states of an LSTM, in float32 or float64."""
    states = [state for state in (run.h, replay.c) if state is not None]
    return [state.to(torch.promote_types(state.dtype, torch.float32)) for state in states]


def recurrent_module(module: nn.Module, name: str) -> nn.RNNBase:
    """``module``, if its runs can be split; else `InputError`."""
    if isinstance(module, nn.RNNCellBase):
        raise InputError(
            f"layer {name!r} is a {type(module).__name__}, which a loop of the model calls once a time step; "
            "accepted: an nn.RNN, nn.LSTM or nn.GRU, which runs through the whole sequence in one call"
        )
    if not isinstance(module, nn.RNNBase) or known_axes(module) is None:
        raise InputError(
            f"layer {name!r} is a {type(module).__name__}; accepted: an nn.RNN, nn.LSTM or nn.GRU with the forward of "
            "torch"
        )
    return module
