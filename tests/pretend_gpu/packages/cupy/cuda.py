"""Contexts of `cupy.cuda`."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch

_state = threading.local()


def _devices() -> list[int]:
    if not hasattr(_state, "devices"):
        _state.devices = []
    return _state.devices


def entered() -> bool:
    return bool(_devices())


def current() -> int:
    return _devices()[-1] if _devices() else 0


@contextlib.contextmanager
def Device(index: int) -> Iterator[None]:
    _devices().append(index)
    try:
        yield
    finally:
        _devices().pop()


def PythonFunctionAllocator(malloc: Callable[..., int], free: Callable[..., None]) -> Any:
    return SimpleNamespace(malloc=malloc)


@contextlib.contextmanager
def using_allocator(malloc: Callable[..., int]) -> Iterator[None]:
    yield


runtime = SimpleNamespace(getDeviceCount=torch.cuda.device_count, CUDARuntimeError=RuntimeError)
