"""Run a model on a probe with replaced states of one of its recurrent layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..errors import InputError, InputTypeError, check_number
from ..record.carried_state import MISFITS
from ..record.layers import find_module, unwrapped
from ..record.probe import Batch, Probe
from ..record.saved import kept_versions
from ..record.undisturbed import undisturbed
from .split_run import Call, Change, recurrent_module

# Values of the states of all variants that are held at once. About five arrays of this size are alive, 160 MiB.
_CHUNK_VALUES = 2**22


class ReplacedRuns:
    """Forwards of a model on a probe, in which the states of one recurrent layer may be replaced.

    Every forward is in evaluation mode, starts from the state that the model has now, and leaves the model as it was.
    ``read`` makes a tensor of what the model returns.
    """

    def __init__(self, model: Any, layer: Any, probe: Any, depth: Any, read: Callable[[Any], torch.Tensor]) -> None:
        if not isinstance(model, nn.Module):
            raise InputTypeError(f"model is a {type(model).__name__}; accepted: a torch.nn.Module")
        self.model, self._name, self._read = model, layer, read
        self._module = recurrent_module(find_module(model, layer), layer)
        count = self._module.num_layers
        self._depth = int(check_number("depth", depth, low=-count, high=count - 1, integer=True)) % count
        self._probe = Probe(probe, model)
        if self._probe.is_shuffled:
            raise InputError(
                "probe is a loader that shuffles, so labels cannot follow its samples; accepted: DataLoader(..., "
                "shuffle=False)"
            )
        self._calls: list[Call] = []

    def intact(self) -> list[torch.Tensor]:
        """What is read for each batch. The states of these runs are kept for the calls that follow."""
        try:
            results = [self._observed(batch) for batch in self._probe.batches()]
        except torch.OutOfMemoryError:
            raise
        except MISFITS as error:
            if not isinstance(error, InputError):
                self._probe.explain(error, unwrapped(self.model))
            raise
        self._calls = [call for call, _ in results]
        lengths = {len(states[0]) for states in self._batch_states()}
        if len(lengths) > 1:
            raise InputError(f"the batches of the probe have {sorted(lengths)} time steps; accepted: the same number")
        return [output for _, output in results]

    def states(self) -> list[torch.Tensor]:  # each (T, P, M)
        """The hidden states, and the cell states of an LSTM, on the samples of all batches."""
        return [torch.cat(parts, 1) for parts in zip(*self._batch_states(), strict=True)]

    def replaced(self, change: Change) -> Iterator[list[torch.Tensor] | None]:
        """What is read for each batch, in each variant; None if the variant changes no state."""
        n_timesteps, n_samples, n_units = self.states()[0].shape
        size = max(1, _CHUNK_VALUES // (n_timesteps * n_samples * n_units))
        for where in change.where.split(size):
            by_batch = [call.outputs(self._depth, part) for call, part in self._parts(change._replace(where=where))]
            for values in zip(*by_batch, strict=True):
                pairs = zip(self._probe.batches(), values, strict=True)
                is_changed = any(value is not None for value in values)
                yield [self._forward(*pair) for pair in pairs] if is_changed else None

    def _batch_states(self) -> list[list[torch.Tensor]]:
        return [call.states(self._depth) for call in self._calls]

    def _parts(self, change: Change) -> Iterator[tuple[Call, Change]]:
        """The change of each batch's samples."""
        start = 0
        for call, states in zip(self._calls, self._batch_states(), strict=True):
            samples = slice(start, start := start + states[0].shape[1])
            h, c = (None if by is None else by[:, samples] for by in (change.h, change.c))
            yield call, Change(change.where, h, c)

    def _observed(self, batch: Batch) -> tuple[Call, torch.Tensor]:
        calls: list[Call] = []

        def keep(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            calls.append(Call.of_hook(self._name, module, args, kwargs, output))

        with undisturbed(self.model):
            handle = self._module.register_forward_hook(keep, with_kwargs=True)
            try:
                output = self._run(batch)
            finally:
                handle.remove()
        if len(calls) != 1:
            raise InputError(
                f"layer {self._name!r} ran {len(calls)} times in one forward of the probe; accepted: a layer that runs "
                "once, through the whole sequence"
            )
        return calls[0], output

    def _forward(self, batch: Batch, value: Any) -> torch.Tensor:
        """What is read if the layer returns ``value``, or what it does by itself if that is None."""
        with undisturbed(self.model), _returning(self._module, value):
            return self._run(batch)

    def _run(self, batch: Batch) -> torch.Tensor:
        # A copy, because the output may be a buffer, which is restored after the forward.
        return self._read(unwrapped(self.model)(*batch.args, **batch.kwargs)).clone()


@contextmanager
def _returning(module: nn.Module, value: Any) -> Iterator[None]:
    """Have ``module`` return ``value``, if that is not None, without running its forward."""
    attributes = vars(module)
    before = {name: attributes[name] for name in ("forward",) if name in attributes}
    if value is not None:
        attributes["forward"] = lambda *_, **__: value
    try:
        yield
    finally:
        attributes.pop("forward", None)
        attributes |= before


@contextmanager
def with_weights(model: nn.Module, state_dict: Any, name: str) -> Iterator[None]:
    """Run the block with the weights and buffers of ``state_dict``, if it is not None."""
    if state_dict is None:
        yield
        return
    with kept_versions((*model.parameters(), *model.buffers())), undisturbed(model):
        try:
            model.load_state_dict(state_dict)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise InputError(f"{name} does not fit the model ({error}); accepted: a state_dict of the model") from error
        yield
