"""Visit the objects that a model holds."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import itertools
import sys
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from types import MemberDescriptorType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

MISSING = object()
# Immutable, and without contents.
_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes, np.float32, np.float64, np.int64, np.bool_})
# Modules, and containers of the standard library that keep their items in attributes.
_PLAIN = (nn.Module, SimpleNamespace, collections.UserDict, collections.UserList, collections.ChainMap)
_DICTS = frozenset({dict, collections.OrderedDict})
_CONTAINERS = _DICTS | {list, tuple, set, frozenset, deque}  # without attributes


class Walk:
    """Visits the objects that are reachable from values, but not those in ``outside``.

    It enters lists, tuples, sets, dicts, modules, dataclasses, and objects of classes that the user wrote or that come
    from a package of the classes of ``modules``, with their attributes and slots; for modules that the user wrote, also
    the class attributes. It does not enter objects of other packages: a trainer or a logger that a module refers to is
    no state of the model, and threads may be at work in it.
    """

    def __init__(self, modules: Iterable[nn.Module], outside: Iterable[Any] = ()) -> None:
        self._packages = set(map(_package, set(map(type, modules)))) - {"torch"}
        self._outside = list(outside)
        self._entered: dict[type, bool] = {}

    def visited(self, values: Iterable[Any], empty: list[Any] | None = None) -> list[Any]:
        """The values and all that is in them, each once, without numbers, texts, and tuples of them.

        If there is a list ``empty``, it gets the empty dicts that are in dicts, instead of the result. A module has
        many of them.
        """
        waiting, seen, visited = [list(values)], set(map(id, self._outside)), []
        while waiting:
            for value in _without_atoms(waiting.pop()):
                if id(value) not in seen:
                    seen.add(id(value))
                    visited.append(value)
                    contents = self._contents(value)
                    if contents and empty is not None and type(value) in _DICTS:
                        empty += [item for item in contents if type(item) in _DICTS and not item]
                        contents = [item for item in contents if type(item) not in _DICTS or item]
                    if contents:
                        waiting.append(contents)
        return visited

    def user_classes(self, cls: type) -> list[type]:
        """The bases of a class of modules that the user wrote, and it."""
        return [base for base in cls.__mro__ if issubclass(base, nn.Module) and self._is_of_user(base)]

    def _contents(self, value: Any) -> list[Any]:
        if isinstance(value, dict):
            contents = list(value.values())
        elif isinstance(value, torch.Tensor):
            return []
        elif isinstance(value, (list, tuple, set, frozenset, deque)):
            contents = list(value)
        elif isinstance(value, np.ndarray):
            return list(value.flat) if value.dtype == object else []
        elif isinstance(value, np.random.Generator):
            return [value.bit_generator]
        else:
            contents = []
        if type(value) in _CONTAINERS:
            return contents
        if members := self.members(value):
            contents += members.read(value).values()
        if self._is_entered(type(value)) and hasattr(value, "__dict__"):
            contents.append(vars(value))
        return contents

    def members(self, value: Any) -> Members | None:
        """The attributes of ``value`` that are in no dict: those of a class of the user's, and slots."""
        if isinstance(value, type):
            return _CLASS if issubclass(value, nn.Module) and self._is_of_user(value) else None
        return _SLOTS if self._is_entered(type(value)) and _slots(type(value)) else None  # type: ignore[arg-type]

    def _is_entered(self, cls: type) -> bool:
        if cls not in self._entered:
            closed = issubclass(cls, (type, torch.Tensor, torch.utils.data.Dataset, np.generic))
            plain = issubclass(cls, _PLAIN) or dataclasses.is_dataclass(cls)
            self._entered[cls] = not closed and (plain or self._is_of_user(cls))
        return self._entered[cls]

    def _is_of_user(self, cls: type) -> bool:
        return _package(cls) in self._packages or not _is_installed(_package(cls))


def tensors_in(value: Any) -> list[torch.Tensor]:
    """The tensors that are reachable from ``value``."""
    return [part for part in Walk([]).visited([value]) if isinstance(part, torch.Tensor)]


def _without_atoms(values: list[Any]) -> Iterable[Any]:
    types = set(map(type, values))
    while types == {tuple}:  # many tuples of numbers and texts are left out fast in this way
        values = list(itertools.chain.from_iterable(values))
        types = set(map(type, values))
    if types <= _ATOMS:
        return ()
    return values if types.isdisjoint(_ATOMS) else [value for value in values if type(value) not in _ATOMS]


@functools.cache
def _slots(cls: type) -> tuple[Any, ...]:
    slotted = [vars(base) for base in cls.__mro__ if "__slots__" in vars(base)]
    return tuple(item for names in slotted for item in names.values() if isinstance(item, MemberDescriptorType))


def _in_slots(value: Any) -> dict[Any, Any]:
    values = {}
    for slot in _slots(type(value)):  # type: ignore[arg-type]
        with contextlib.suppress(AttributeError):  # of a slot that is empty
            values[slot] = slot.__get__(value)
    return values


def class_attributes(cls: type) -> dict[str, Any]:
    """The attributes of a class itself, without those that Python keeps there."""
    return {name: value for name, value in vars(cls).items() if not name.startswith("__")}


class Members(NamedTuple):
    """How attributes that are in no dict are read, set and deleted."""

    read: Callable[[Any], dict[Any, Any]]
    write: Callable[[Any, Any, Any], None]
    delete: Callable[[Any, Any], None]


_CLASS = Members(class_attributes, setattr, delattr)
# The methods of slots, unlike `setattr`, write to frozen dataclasses as well.
_SLOTS = Members(
    _in_slots, lambda value, slot, item: slot.__set__(value, item), lambda value, slot: slot.__delete__(value)
)


def _package(cls: type) -> str:
    return cls.__module__.partition(".")[0]


@functools.cache
def _is_installed(package: str) -> bool:
    file = getattr(sys.modules.get(package), "__file__", None) or ""
    known = package == "torch" or package in sys.stdlib_module_names
    return known or not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)
