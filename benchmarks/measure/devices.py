"""The device of a benchmark's process, and its memory."""

from __future__ import annotations

import ctypes
import gc
import sys

import torch

from mmphate_gpu.runtime.devices import resolve_device
from mmphate_gpu.runtime.memory import release_cached


def use_device(name: str) -> torch.device:
    """The device ``name``, which on CUDA becomes the current one: events and streams belong to the current device."""
    device = resolve_device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def let_go(device: torch.device) -> None:
    """Return memory that is free but still held by an allocator, so that a run which fills it is seen to take it."""
    gc.collect()
    release_cached(device)
    if "cupy" in sys.modules:
        sys.modules["cupy"].get_default_memory_pool().free_all_blocks()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
        if trim is not None:
            trim(0)
