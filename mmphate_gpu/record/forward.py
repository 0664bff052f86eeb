"""Forwards of the probe, each from the state that the model carried when its recording began."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils.hooks import RemovableHandle

from ..errors import InputError
from .carried_state import MISFITS, Run, run_from_carried_state, warn_of_other_states
from .layers import Call, Layer, unwrapped
from .probe import Batch, Probe
from .undisturbed import Attributes, Key, Start, undisturbed


class Forwards:
    """Runs the batches of a probe through a model, and restores the model afterwards.

    Every batch starts from the state that the model had when this was made, or at the first snapshot; see `Recorder`.
    """

    def __init__(self, model: nn.Module, probe: Probe) -> None:
        self._model, self._probe = model, probe
        self._start, self._weights = Start(model), _versions(model)
        self._carried: set[Key] = set()

    def calls(self, layers: Sequence[Layer], *, is_first: bool) -> list[list[list[Call]]]:
        """The calls of the layers, by batch, layer and call; only the first time it may choose another start."""
        if is_first and any(map(is_lazy, (*self._model.parameters(), *self._model.buffers()))):
            raise InputError(
                "model has lazy modules without parameters yet; call it on a batch before the first snapshot"
            )
        failure: Any = None
        for start in self._possible_starts() if is_first else [self._start]:
            try:
                return self._from(start, layers, is_first)
            except torch.OutOfMemoryError:
                raise
            except MISFITS as error:
                failure = failure or error
        if not isinstance(failure, InputError):
            self._probe.explain(failure, unwrapped(self._model))
        raise failure

    def _from(self, start: Start, layers: Sequence[Layer], is_first: bool) -> list[list[list[Call]]]:
        run = functools.partial(self._run, layers, start)
        last, carried = run_from_carried_state(run, start, self._carried)
        if is_first:
            warn_of_other_states(run, carried, last, f"layer {', '.join(repr(layer.name) for layer in layers)}")
        self._start, self._carried = start, carried
        return last.batches

    def _possible_starts(self) -> list[Start]:
        """The state when the recorder was made, and that of now, in the order of preference."""
        if not self._start.moved():
            return [self._start]
        starts = [self._start, Start(self._model)]
        return starts if self._weights != _versions(self._model) else starts[::-1]

    def _run(
        self, layers: Sequence[Layer], start: Start, keys: set[Key], vectors: Mapping[Key, Any] | None = None
    ) -> Run:
        runs = [self._batch(batch, layers, start, keys, vectors or {}) for batch in self._probe.batches()]
        changes = {key: change for run in runs for key, change in run.changes.items()}
        return Run([calls for run in runs for calls in run.batches], changes)

    def _batch(
        self, batch: Batch, layers: Sequence[Layer], start: Start, keys: set[Key], vectors: Mapping[Key, Any]
    ) -> Run:
        with undisturbed(self._model, start.objects() if keys else ()) as changes:
            start.put_back(keys)
            for key, value in vectors.items():
                Attributes(self._model).set(key, value)
            calls = self._forward(batch, layers)
            touched = start.moved(keys) if keys else set()
        return Run([calls], {key: change for key, change in changes.items() if key not in keys or key in touched})

    def _forward(self, batch: Batch, layers: Sequence[Layer]) -> list[list[Call]]:
        calls: list[list[Call]] = [[] for _ in layers]
        handles = [_keep_calls(*pair) for pair in zip(layers, calls, strict=True)]
        try:
            with torch.no_grad():
                unwrapped(self._model)(*batch.args, **batch.kwargs)
        finally:
            for handle in handles:
                handle.remove()
        return calls


def _keep_calls(layer: Layer, calls: list[Call]) -> RemovableHandle:
    def keep(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        calls.append(layer.call(args, kwargs, output))

    return layer.module.register_forward_hook(keep, with_kwargs=True)


def _versions(model: nn.Module) -> list[tuple[int, int]]:
    """The parameters that are trained, and how often each has been written to."""
    weights = [weight for weight in model.parameters() if weight.requires_grad and not is_lazy(weight)]
    return [(id(weight), 0 if weight.is_inference() else weight._version) for weight in weights]
