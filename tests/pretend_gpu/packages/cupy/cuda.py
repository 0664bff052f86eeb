"""Contexts of `cupy.cuda`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch

Device = torch.cuda.device  # both make a device the current one of CUDA


def PythonFunctionAllocator(malloc: Callable[..., int], free: Callable[..., None]) -> Any:
    return SimpleNamespace(malloc=malloc)


@contextlib.contextmanager
def using_allocator(malloc: Callable[..., int]) -> Iterator[None]:
    yield


runtime = SimpleNamespace(getDeviceCount=torch.cuda.device_count, CUDARuntimeError=RuntimeError)
