"""Save, compare and restore the mutable objects that the attributes of a model hold."""

from __future__ import annotations

import contextlib
import operator
import random
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch._C._autograd import _unsafe_set_version_counter as _set_versions

from .reachable import MISSING, Members, Walk

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_SMALL = 16384  # values; tensors up to this size are copied and compared together
_ENTRIES = Members(lambda mapping: mapping, operator.setitem, operator.delitem)


class Part(Protocol):
    """The saved state of a mutable object."""

    target: Any  # the object

    def changed(self) -> bool:
        """Whether the object differs from its saved state."""
        ...

    def restore(self) -> None:
        """Give the object its saved state; write nothing to an object that has not changed."""
        ...


class Saved:
    """The saved state of all mutable objects that ``walk`` reaches from ``values``."""

    def __init__(self, walk: Walk, values: Iterable[Any]) -> None:
        self._parts: list[Part] = []
        self._random: list[RandomPart] = []
        self._empty: list[dict[Any, Any]] = []
        groups: dict[Any, list[_TensorPart]] = {}
        for value in walk.visited(values, self._empty):
            if isinstance(value, torch.Tensor):
                if is_plain(value):
                    part = _TensorPart(value)
                    groups.setdefault(part.group, []).append(part)
            elif (other := _part(value, walk)) is not None:
                if isinstance(other, RandomPart):
                    self._random.append(other)
                else:
                    self._parts.append(other)
        self._groups = [_TensorGroup(parts) for parts in groups.values()]

    def changed(self) -> list[Part]:
        """The parts that differ from their saved state, without random generators."""
        changed = [part for part in self._parts if part.changed()]
        changed += [_DictPart(mapping, {}) for mapping in self._empty if mapping]
        return changed + [part for group in self._groups for part in group.changed()]

    def targets(self) -> list[Any]:
        """The objects."""
        tensors = [part for group in self._groups for part in group.parts]
        return [*(part.target for part in (*self._parts, *tensors)), *self._empty]

    def restore(self, changed: Iterable[Part]) -> None:
        """Restore the parts ``changed``, and the random generators."""
        for part in changed:
            part.restore()
        for generator in self._random:
            generator.restore()


def _part(value: Any, walk: Walk) -> Part | RandomPart | None:
    if isinstance(value, dict):
        return _DictPart(value, dict(value))
    if isinstance(value, (list, deque)):
        return _ListPart(value)
    if isinstance(value, set):
        return _SetPart(value)
    if isinstance(value, np.ndarray):
        return _ArrayPart(value) if value.flags.writeable else None
    members = walk.members(value)
    return _MembersPart(value, members, members.read(value)) if members else _random_part(value)


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether the tensor is dense, has its values in memory, and is of no subclass other than nn.Parameter."""
    dense = tensor.layout == torch.strided and not tensor.is_nested and not tensor.is_quantized
    return type(tensor) in (torch.Tensor, nn.Parameter) and dense and not tensor.is_meta


class _TensorPart:
    __slots__ = ("_flags", "_memory", "_version", "bits", "group", "saved", "target")

    def __init__(self, tensor: torch.Tensor) -> None:
        self.target = tensor
        self._memory = tensor.data  # it still refers to this memory after a forward has assigned to ``tensor.data``
        self._flags = _place(tensor), tensor.requires_grad
        self._version = None if tensor.is_inference() else tensor._version
        self.bits, small = self._memory, tensor.numel() <= _SMALL and tensor.is_contiguous()
        if small:
            self.bits = self.bits.view(-1)
        else:  # An expanded axis lies in memory once, and is written to once.
            self.bits = self.bits[tuple(slice(0, 1) if step == 0 else slice(None) for step in tensor.stride())]
        if tensor.is_complex() or tensor.is_neg():
            small = False
        else:  # As integers, NaN equals itself, and -0 differs from 0.
            self.bits = self.bits.view(_BITS[tensor.element_size()])
        self.group = (tensor.device, self.bits.dtype) if small else id(tensor)
        self.saved = self.bits  # `_TensorGroup` sets its copy

    def changed(self) -> bool:
        return self.has_other_flags() or not torch.equal(self.bits, self.saved)

    def has_other_flags(self) -> bool:
        return self._flags != (_place(self.target), self.target.requires_grad)

    def restore(self) -> None:
        with torch.inference_mode():  # without it, tensors that were made in that mode cannot be written to
            if not torch.equal(self.bits, self.saved):
                self.bits.copy_(self.saved)
        place, requires_grad = self._flags
        if _place(self.target) != place:
            self.target.data = self._memory
        if self.target.is_leaf and self.target.requires_grad != requires_grad:
            self.target.requires_grad_(requires_grad)
        if self._version is not None:  # a backward to come, which has saved the tensor, refuses another version
            _set_versions((self.target,), (self._version,))


def _place(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, tensor.stride()


@contextlib.contextmanager
def kept_versions(tensors: Iterable[torch.Tensor]) -> Iterator[None]:
    """Restore how often each of the tensors was written to, also if equal values were written."""
    versions = [(tensor, tensor._version) for tensor in tensors if not tensor.is_inference()]
    try:
        yield
    finally:
        for tensor, version in versions:
            _set_versions((tensor,), (version,))


class _TensorGroup:
    """One tensor, or many small ones, which are copied and compared together, because each call takes its time."""

    def __init__(self, parts: list[_TensorPart]) -> None:
        self.parts = parts
        self._saved = self._joined() if len(parts) > 1 else parts[0].bits.clone()

    def _joined(self) -> torch.Tensor:
        return torch.cat([part.bits for part in self.parts])

    def changed(self) -> list[_TensorPart]:
        several = len(self.parts) > 1
        if several and torch.equal(self._joined(), self._saved):
            return [part for part in self.parts if part.has_other_flags()]
        values = self._saved.split([part.bits.numel() for part in self.parts]) if several else (self._saved,)
        for part, saved in zip(self.parts, values, strict=True):
            part.saved = saved
        return [part for part in self.parts if part.changed()]


class _ArrayPart:
    def __init__(self, array: np.ndarray) -> None:
        self.target, self._values = array, array.copy()

    def changed(self) -> bool:
        left, right = self.target, self._values
        if left.dtype == object:
            return not _same_items(left.flat, right.flat)
        if type(left) in (np.ndarray, np.memmap) and left.itemsize in _BITS:
            bits = f"u{left.itemsize}"  # as integers, NaN equals itself, and -0 differs from 0
            return not np.array_equal(left.view(bits), right.view(bits))
        return left.tobytes() != right.tobytes()

    def restore(self) -> None:
        self.target[...] = self._values


def _same_items(left: Iterable[Any], right: Iterable[Any]) -> bool:
    return all(map(operator.is_, left, right))  # of equal length


class _MembersPart:
    def __init__(self, target: Any, members: Members, items: dict[Any, Any]) -> None:
        self.target, self._members, self._items = target, members, items

    def changed(self) -> bool:
        now = self._members.read(self.target)
        return now.keys() != self._items.keys() or any(now[key] is not item for key, item in self._items.items())

    def restore(self) -> None:
        # Entry by entry: an interrupt after ``clear()`` would leave a module without its attributes.
        now = self._members.read(self.target)
        for key, item in self._items.items():
            if now.get(key, MISSING) is not item:
                self._members.write(self.target, key, item)
        for key in now.keys() - self._items.keys():
            self._members.delete(self.target, key)


class _DictPart(_MembersPart):
    def __init__(self, mapping: dict[Any, Any], items: dict[Any, Any]) -> None:
        super().__init__(mapping, _ENTRIES, items)

    def changed(self) -> bool:
        now, then = self.target, self._items
        return not (len(now) == len(then) and _same_items(now, then) and _same_items(now.values(), then.values()))

    def restore(self) -> None:
        super().restore()
        if list(self.target) != list(self._items):  # the order of parameters and buffers is that of state_dict()
            self.target.clear()
            self.target.update(self._items)


class _ListPart:
    def __init__(self, sequence: list[Any] | deque[Any]) -> None:
        self.target, self._items = sequence, list(sequence)

    def changed(self) -> bool:
        return len(self.target) != len(self._items) or not _same_items(self.target, self._items)

    def restore(self) -> None:
        self.target.clear()
        self.target.extend(self._items)


class _SetPart:
    def __init__(self, members: set[Any]) -> None:
        self.target, self._saved = members, set(members)

    def changed(self) -> bool:
        return self.target != self._saved

    def restore(self) -> None:
        self.target.clear()
        self.target.update(self._saved)


class RandomPart:
    """The state of a random generator, as the function ``read`` returns it and ``write`` sets it."""

    def __init__(self, read: Any, write: Any) -> None:
        self._state, self._write = read(), write

    def restore(self) -> None:
        """Set the generator to its saved state."""
        self._write(self._state)


def _random_part(value: Any) -> RandomPart | None:
    if isinstance(value, (torch.Generator, np.random.RandomState)):
        return RandomPart(value.get_state, value.set_state)
    if isinstance(value, random.Random):
        return RandomPart(value.getstate, value.setstate)
    if isinstance(value, np.random.BitGenerator):
        return RandomPart(lambda: value.state, lambda state: setattr(value, "state", state))
    return None
