"""Save, compare and restore the mutable objects that the attributes of a model hold."""

from __future__ import annotations

import dataclasses
import functools
import random
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

_MISSING = object()
_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes})  # immutable, and without contents
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Part(Protocol):
    """The saved state of a mutable object."""

    def changed(self) -> bool:
        """Whether the object differs from its saved state."""
        ...

    def restore(self) -> None:
        """Give the object its saved state; write nothing to an object that has not changed."""
        ...


class Walk:
    """Visits the objects that are reachable from values, and saves the state of each once.

    It enters lists, tuples, sets, dicts, modules, dataclasses, and objects of classes that the user wrote or that come
    from a package of the model's own classes. It does not enter objects of other packages: a trainer or a logger that
    a module refers to is no state of the model, and threads may be at work in it.

    Parameters
    ----------
    model : the module whose classes, and those of its submodules, name the packages to enter.
    outside : objects that are not visited.
    """

    def __init__(self, model: nn.Module, outside: Iterable[Any] = ()) -> None:
        self._packages = {_package(module) for module in model.modules()} - {"torch"}
        self._outside = {id(value) for value in outside}
        self._saved: dict[int, Part] = {}

    def visited(self, values: Iterable[Any]) -> Iterator[Any]:
        """Yield the values and all objects reachable from them, each once."""
        waiting, seen = list(values), set()
        while waiting:
            value = waiting.pop()
            if type(value) not in _ATOMS and id(value) not in self._outside and id(value) not in seen:
                seen.add(id(value))
                yield value
                waiting.extend(self._contents(value))

    def parts(self, values: Iterable[Any]) -> list[Part]:
        """The present state of every mutable object that is reachable from ``values``."""
        parts = []
        for value in self.visited(values):
            part = self._saved.get(id(value)) or _part(value)
            if part is not None:
                parts.append(self._saved.setdefault(id(value), part))
        return parts

    def _contents(self, value: Any) -> Iterable[Any]:
        if isinstance(value, dict):
            return list(value.values())
        if isinstance(value, (list, tuple, set, frozenset, deque)):
            return list(value)
        if isinstance(value, np.random.Generator):
            return (value.bit_generator,)
        return (vars(value),) if self._is_entered(value) else ()

    def _is_entered(self, value: Any) -> bool:
        if isinstance(value, (type, torch.Tensor, torch.utils.data.Dataset)) or not hasattr(value, "__dict__"):
            return False
        plain = isinstance(value, (nn.Module, SimpleNamespace)) or dataclasses.is_dataclass(value)
        return plain or _package(value) in self._packages or not _is_installed(_package(value))


def _package(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


@functools.cache
def _is_installed(package: str) -> bool:
    file = getattr(sys.modules.get(package), "__file__", None) or ""
    known = package == "torch" or package in sys.stdlib_module_names
    return known or not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)


def _part(value: Any) -> Part | None:
    if isinstance(value, torch.Tensor):
        return _TensorPart(value) if _is_plain(value) else None
    if isinstance(value, dict):
        return _DictPart(value)
    if isinstance(value, (list, deque)):
        return _ListPart(value)
    if isinstance(value, set):
        return _SetPart(value)
    return _ArrayPart(value) if isinstance(value, np.ndarray) else _random_part(value)


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether the tensor is dense, has its values in memory, and is of no subclass other than nn.Parameter."""
    dense = tensor.layout == torch.strided and not tensor.is_nested and not tensor.is_quantized
    return type(tensor) in (torch.Tensor, nn.Parameter) and dense and not tensor.is_meta


class _TensorPart:
    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor
        self._memory = tensor.data  # it still refers to this memory after a forward has assigned to ``tensor.data``
        # An expanded axis lies in memory once, and is written to once.
        once = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in tensor.stride())
        self._core = self._memory[once]
        self._values = self._core.clone()
        self._requires_grad = tensor.requires_grad

    def changed(self) -> bool:
        return self._moved() or not _same_bits(self._core, self._values)

    def restore(self) -> None:
        with torch.inference_mode():  # without it, tensors that were made in that mode cannot be written to
            if not _same_bits(self._core, self._values):
                self._core.copy_(self._values)
        if self._moved():
            self._tensor.data = self._memory
        if self._tensor.is_leaf and self._tensor.requires_grad != self._requires_grad:
            self._tensor.requires_grad_(self._requires_grad)

    def _moved(self) -> bool:
        return _place(self._tensor) != _place(self._memory)


def _place(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, tensor.stride()


def _same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    if left.is_complex() or left.is_neg():
        return torch.equal(left, right)
    bits = _BITS[left.element_size()]  # so that NaN equals itself, and -0 differs from 0
    return torch.equal(left.view(bits), right.view(bits))


class _ArrayPart:
    def __init__(self, array: np.ndarray) -> None:
        self._array, self._values = array, array.copy()

    def changed(self) -> bool:
        return self._array.tobytes() != self._values.tobytes()

    def restore(self) -> None:
        if self.changed():
            self._array[...] = self._values


class _DictPart:
    def __init__(self, mapping: dict[Any, Any]) -> None:
        self._mapping, self._items = mapping, dict(mapping)

    def changed(self) -> bool:
        same = len(self._mapping) == len(self._items) and all(
            self._mapping.get(key, _MISSING) is value for key, value in self._items.items()
        )
        return not same

    def restore(self) -> None:
        # Entry by entry: an interrupt after ``clear()`` would leave a module without its attributes.
        for key, value in self._items.items():
            if self._mapping.get(key, _MISSING) is not value:
                self._mapping[key] = value
        for key in self._mapping.keys() - self._items.keys():
            del self._mapping[key]
        if list(self._mapping) != list(self._items):  # the order of parameters and buffers is that of state_dict()
            self._mapping.clear()
            self._mapping.update(self._items)


class _ListPart:
    def __init__(self, sequence: list[Any] | deque[Any]) -> None:
        self._sequence, self._items = sequence, list(sequence)

    def changed(self) -> bool:
        now = list(self._sequence)
        return len(now) != len(self._items) or any(a is not b for a, b in zip(now, self._items, strict=True))

    def restore(self) -> None:
        if self.changed():
            self._sequence.clear()
            self._sequence.extend(self._items)


class _SetPart:
    def __init__(self, members: set[Any]) -> None:
        self._members, self._saved = members, set(members)

    def changed(self) -> bool:
        return self._members != self._saved

    def restore(self) -> None:
        if self.changed():
            self._members.clear()
            self._members.update(self._saved)


class RandomPart:
    """The state of a random generator, as the function ``read`` returns it and ``write`` sets it.

    `changed` is always False, because a random state is no value of the model.
    """

    def __init__(self, read: Any, write: Any) -> None:
        self._state, self._write = read(), write

    def changed(self) -> bool:
        return False

    def restore(self) -> None:
        self._write(self._state)


def _random_part(value: Any) -> RandomPart | None:
    if isinstance(value, torch.Generator):
        return RandomPart(value.get_state, value.set_state)
    if isinstance(value, random.Random):
        return RandomPart(value.getstate, value.setstate)
    if isinstance(value, np.random.RandomState):
        return RandomPart(value.get_state, value.set_state)
    if isinstance(value, np.random.BitGenerator):
        return RandomPart(lambda: value.state, lambda state: setattr(value, "state", state))
    return None
