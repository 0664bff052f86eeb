"""Restore a model after a probe has run through it, and find the state that a forward carries to the next one."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from .parts import RandomPart, Walk

# What every module has: its flags, its hooks, and the dicts of parameters, buffers and submodules.
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
Key = tuple[int, str]  # id of a module, and the name of one of its attributes or buffers


@contextlib.contextmanager
def undisturbed(model: nn.Module, start: Attributes) -> Iterator[None]:
    """Run the block in evaluation mode; then restore the model, the random states, and the values of ``start``.

    Parameters, their gradients, buffers, and the attributes of every module are restored, with all that `Walk` finds in
    them. The model's tensors are copied for this while the block runs. Random states are those of torch (CPU, and CUDA
    where in use), NumPy, `random`, and generators among the attributes.
    """
    # The cache of `parametrize.cached` would hand weights without gradients to the next training step.
    roots = [*map(vars, model.modules()), *model.parameters(), *model.buffers(), parametrize._cache]
    saved = Walk(model).parts([*roots, *start.values()])
    saved += [RandomPart(random.getstate, random.setstate), RandomPart(_numpy_state, np.random.set_state)]
    gradients = [(weight, weight.grad) for weight in model.parameters()]
    flags = [(module, module.training) for module in model.modules()]
    try:
        for weight, _ in gradients:
            weight.grad = None
        # Set flags one by one: ``model.train()`` would wake modules that the user has frozen in evaluation mode.
        for module, _ in flags:
            module.training = False
        with _without_caches(), _random_state_of_torch():
            yield
    finally:
        for part in saved:
            part.restore()
        for weight, gradient in gradients:
            weight.grad = gradient
        for module, training in flags:  # the flag of a scripted module is not among its attributes
            module.training = training


def _numpy_state() -> Any:
    return np.random.get_state(legacy=False)


@contextlib.contextmanager
def _without_caches() -> Iterator[None]:
    # Older torch (its issue 112583) hands weights that autocast cached without gradients to the next training step.
    caching = torch.is_autocast_cache_enabled()
    # The hook of each snapshot would make torch compile the model again, until torch gives up compiling it.
    compiled = "torch._dynamo" in sys.modules
    try:
        torch.set_autocast_cache_enabled(False)
        with torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext():
            yield
    finally:
        torch.set_autocast_cache_enabled(caching)


def _random_state_of_torch() -> contextlib.AbstractContextManager[None]:
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    return torch.random.fork_rng(devices=devices)


class Attributes:
    """The attributes and buffers of all modules of a model as they are now, without the parameters."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = {id(module): module for module in model.modules()}
        self._walk = Walk(model, outside=(*self._modules.values(), *model.parameters()))
        self._values = {key: (value, self._walk.parts([value])) for key, value in self._now().items()}

    def keys(self) -> Collection[Key]:
        return self._values.keys()

    def values(self) -> list[Any]:
        return [value for value, _ in self._values.values()]

    def changed(self) -> set[Key]:
        """The attributes that have been replaced, modified, added or removed since."""
        now = self._now()
        return (now.keys() ^ self._values.keys()) | {
            key
            for key, (value, parts) in self._values.items()
            if key in now and (now[key] is not value or any(part.changed() for part in parts))
        }

    def put_back(self, keys: Iterable[Key]) -> None:
        """Reset the attributes ``keys`` to their saved values; tensors keep their present device and dtype.

        An attribute that is None or missing now stays so, because the model has no state to go on from.
        """
        for key in keys:
            module, name = self._modules[key[0]], key[1]
            holder = module._buffers if name in module._buffers else vars(module)
            now = holder.get(name)
            if now is not None:
                holder[name] = self._restored(key, now)

    def _restored(self, key: Key, now: Any) -> Any:
        value, parts = self._values.get(key, (None, ()))
        for part in parts:
            part.restore()
        tensors = isinstance(value, torch.Tensor) and isinstance(now, torch.Tensor)
        return value.to(now) if tensors else value

    def carried_on(self) -> set[Key]:
        """The changed attributes of modules in which one of them has two or more axes: these are states of samples.

        A module in which only numbers and vectors have changed keeps running statistics or a count.
        """
        changed = self.changed()
        modules = {number for number, _ in self.shapes(changed)}
        return {key for key in changed if key[0] in modules}

    def shapes(self, keys: Collection[Key]) -> dict[Key, tuple[int, ...]]:
        """Of the attributes ``keys``, those that hold a tensor or an array of two or more axes now, with its shape."""
        now = self._now() if keys else {}
        return {
            key: tuple(part.shape)
            for key in now.keys() & keys
            for part in self._walk.visited([now[key]])
            if isinstance(part, (torch.Tensor, np.ndarray)) and part.ndim > 1
        }

    def _now(self) -> dict[Key, Any]:
        return {
            (number, name): value
            for number, module in self._modules.items()
            for name, value in (vars(module) | dict(module._buffers.items())).items()
            if name not in _OF_EVERY_MODULE
        }
