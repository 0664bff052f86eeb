"""Restore a model after a probe has run through it, and find the state that a forward carries to the next one."""

from __future__ import annotations

import contextlib
import copy
import random
import sys
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, is_dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from .reachable import MISSING, Walk, class_attributes
from .saved import RandomPart, Saved

# What every module has: its flags, its hooks, and the dicts of parameters, buffers and submodules.
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_LARGEST_STATE = 2**20  # values of a frozen parameter; larger ones are weights, of which no copy is kept
Key = tuple[int, str]  # id of a module or of its class, and the name of one of its attributes or buffers


@dataclass
class Change:
    """What a forward has made of an attribute."""

    has_matrix: bool  # it holds a tensor or an array of two or more axes
    vector: Any  # otherwise a copy of the new value, if that holds a tensor or an array of one axis and is no buffer


@contextlib.contextmanager
def undisturbed(model: nn.Module, others: Iterable[Any] = ()) -> Iterator[dict[Key, Change]]:
    """Run the block in evaluation mode; then restore the model, the random states, and the objects ``others``.

    Parameters, their gradients, buffers, and the attributes of every module are restored, with all that `Walk` reaches
    from them. The tensors of the model are copied for this while the block runs. Random states are those of torch (CPU,
    and CUDA where in use), NumPy, `random`, and generators among the attributes. The default dtype and device of torch
    are restored as well. When the block has ended, the dict that it got holds the attributes that it has changed.
    """
    attributes = Attributes(model)
    changes: dict[Key, Change] = {}
    gradients = [(weight, weight.grad) for weight in attributes.weights]
    flags = [(module, module.training) for module in attributes.modules]
    saved = None
    try:
        for weight, _ in gradients:
            weight.grad = None
        # Set each flag itself: ``model.train()`` would wake modules that the user has frozen in evaluation mode.
        _set_flags((module, False) for module, _ in flags)
        values, saved = attributes.values(), Saved(Walk(attributes.modules), [*_roots(attributes), *others])
        with _without_caches(), _torch_defaults(), random_states():
            yield changes
    finally:
        try:
            if saved is not None:
                changes |= _restored(saved, attributes, values)
        finally:
            for weight, gradient in gradients:
                weight.grad = gradient
            _set_flags(flags)


def _restored(saved: Saved, attributes: Attributes, values: dict[Key, Any]) -> dict[Key, Change]:
    changed = saved.changed()
    try:
        return attributes.changes(values, [part.target for part in changed]) if changed else {}
    finally:
        saved.restore(changed)


def _set_flags(flags: Iterable[tuple[nn.Module, bool]]) -> None:
    for module, training in flags:
        if "training" in vars(module):
            vars(module)["training"] = training  # much faster than the assignment to a module
        else:  # scripted and compiled modules hold the flag elsewhere
            module.training = training


def _roots(attributes: Attributes) -> list[Any]:
    scripted = [module for module in attributes.modules if isinstance(module, torch.jit.ScriptModule)]
    buffers = [buffer for module in scripted for buffer in module.buffers()]  # they are not among its attributes
    # The cache of `parametrize.cached` would hand weights without gradients to the next training step.
    return [*attributes.owners(), *attributes.weights, *buffers, parametrize._cache]


@contextlib.contextmanager
def random_states(generators: Iterable[torch.Generator] = ()) -> Iterator[None]:
    """Restore the random states of torch (CPU, and CUDA where in use), NumPy and `random`, and of ``generators``."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    numpy_state = partial(np.random.get_state, legacy=False)
    states = [RandomPart(random.getstate, random.setstate), RandomPart(numpy_state, np.random.set_state)]
    states += [RandomPart(generator.get_state, generator.set_state) for generator in generators]
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        for state in states:
            state.restore()


@contextlib.contextmanager
def _torch_defaults() -> Iterator[None]:
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:  # a default device that is set makes every call of torch slower
            torch.set_default_device(device)


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


class Attributes:
    """The attributes and buffers of all modules of a model, and the attributes of the classes that the user wrote.

    Small parameters without gradients are among them, because some models keep a state in such a parameter.
    """

    def __init__(self, model: nn.Module) -> None:
        self.modules, self.weights = list(model.modules()), list(model.parameters())
        self._walk = Walk(
            self.modules, outside=(*self.modules, *(weight for weight in self.weights if not _may_be_state(weight)))
        )
        classes = [cls for group in set(map(type, self.modules)) for cls in self._walk.user_classes(group)]
        self._owners: dict[int, Any] = {id(owner): owner for owner in (*self.modules, *classes)}

    def owners(self) -> Collection[Any]:
        """The modules and classes."""
        return self._owners.values()

    def values(self) -> dict[Key, Any]:
        """The present values."""
        return {(number, name): value for number, owner in self._owners.items() for name, value in _attributes(owner)}

    def differing(self, before: dict[Key, Any], targets: Iterable[Any], keys: Iterable[Key] | None = None) -> set[Key]:
        """Those of ``keys`` (all by default) that have another value than ``before``, or hold one of ``targets``."""
        now, numbers = self.values(), set(map(id, targets))
        return {
            key
            for key in (now.keys() | before.keys() if keys is None else keys)
            if now.get(key, MISSING) is not before.get(key, MISSING)
            or (numbers and not numbers.isdisjoint(map(id, self._walk.visited([now.get(key)]))))
        }

    def changes(self, before: dict[Key, Any], targets: Iterable[Any]) -> dict[Key, Change]:
        """The attributes that `differing` names, with what they are now."""
        keys = self.differing(before, targets)
        now, matrices = self.values(), self.shapes(keys)
        return {
            key: Change(key in matrices, None if key in matrices else self._copied_vector(key, now.get(key)))
            for key in keys
        }

    def _copied_vector(self, key: Key, value: Any) -> Any:
        arrays = [item for item in self._walk.visited([value]) if isinstance(item, (torch.Tensor, np.ndarray))]
        is_buffer = vars(self._owners[key[0]]).get(key[1]) is not value
        if is_buffer or not any(array.ndim == 1 for array in arrays) or not _is_plain(value):
            return None
        return copied(value, [array for array in arrays if isinstance(array, torch.Tensor)])

    def shapes(self, keys: Collection[Key] | None = None) -> dict[Key, tuple[int, ...]]:
        """The shapes of tensors and arrays of two or more axes, by the attributes ``keys`` (or all) that hold them."""
        now = self.values()
        return {
            key: tuple(item.shape)
            for key in (now if keys is None else now.keys() & keys)
            for item in self._walk.visited([now[key]])
            if isinstance(item, (torch.Tensor, np.ndarray)) and item.ndim > 1 and not getattr(item, "is_nested", False)
        }

    def set(self, key: Key, value: Any) -> None:
        """Give an attribute a value, or take it away if the value is ``MISSING``."""
        owner, name = self._owners[key[0]], key[1]
        if isinstance(owner, type):
            setattr(owner, name, value) if value is not MISSING else delattr(owner, name)
            return
        holder = next((group for group in (owner._parameters, owner._buffers) if name in group), vars(owner))
        if value is MISSING:
            del holder[name]
        else:
            holder[name] = value


def _is_plain(value: Any) -> bool:
    """Whether all that is within ``value`` can be copied, and is worth it."""
    plain = (torch.Tensor, np.ndarray, dict, list, tuple, set, deque, SimpleNamespace)
    return all(isinstance(item, plain) or is_dataclass(item) for item in Walk([]).visited([value]))


def copied(value: Any, tensors: Iterable[torch.Tensor]) -> Any:
    """A deep copy of ``value``, in which the ``tensors`` are copies without a graph."""
    # `copy.deepcopy` refuses tensors that were computed from others that require gradients.
    copies = {id(tensor): tensor.detach().clone().requires_grad_(tensor.requires_grad) for tensor in tensors}
    return copy.deepcopy(value, copies)


def _attributes(owner: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(owner, type):
        return class_attributes(owner).items()
    attributes = vars(owner)
    frozen = [(name, weight) for name, weight in owner._parameters.items() if _may_be_state(weight)]
    others = [(name, attributes[name]) for name in attributes.keys() - _OF_EVERY_MODULE]
    return [*frozen, *others, *owner._buffers.items()]


def _may_be_state(weight: torch.Tensor | None) -> bool:
    if weight is None or weight.requires_grad or is_lazy(weight):
        return False
    return weight.numel() <= _LARGEST_STATE


class Start(Attributes):
    """The attributes of a model with the values and contents that they had when this was made."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._values = self.values()
        self._saved = Saved(self._walk, self._values.values())

    def objects(self) -> list[Any]:
        """The values, and all in them that `put_back` may change."""
        return [*self._values.values(), *self._saved.targets()]

    def moved(self, keys: Iterable[Key] | None = None) -> set[Key]:
        """Those of the attributes ``keys`` (or all) that have another value or other contents now."""
        if keys is not None:
            keys = [key for key in keys if key[0] in self._owners]
            if not keys:
                return set()
        return self.differing(self._values, [part.target for part in self._saved.changed()], keys)

    def put_back(self, keys: Collection[Key]) -> None:
        """Give the attributes ``keys`` the values they had, buffers on their present device and in their present dtype.

        An attribute that did not exist is deleted. One that is None or missing now stays so, because then the model has
        no state to start from.
        """
        now = self.values() if keys else {}
        for key in keys:
            value = self._values.get(key, MISSING)
            frozen_since = value is MISSING and isinstance(now.get(key), nn.Parameter)
            if now.get(key) is not None and not frozen_since:
                self._restore_contents(value)
                tensors = isinstance(value, torch.Tensor) and isinstance(now[key], torch.Tensor)
                self.set(key, value.to(now[key]) if tensors else value)

    def _restore_contents(self, value: Any) -> None:
        changed = {id(part.target): part for part in self._saved.changed()}
        # What is within a part can be reached only when the part has its contents again.
        while reached := [id(item) for item in self._walk.visited([value]) if id(item) in changed]:
            for number in reached:
                changed.pop(number).restore()
