"""The device of a benchmark's process, and its memory."""

from __future__ import annotations

import ctypes
import gc
import sys

import torch

from mmphate_gpu.runtime.devices import resolve_device
from mmphate_gpu.runtime.memory import release_cached


def use_device(name: str) -> torch.device:
    """``name`` as a device that exists, on CUDA made the current one: events, streams and ``synchronize()`` are that
    one's."""
    device = resolve_device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def let_go(device: torch.device) -> None:
    """Give back the memory that is free but still held, so that a run which fills it is seen to take it."""
    gc.collect()
    release_cached(device)
    if "cupy" in sys.modules:
        sys.modules["cupy"].get_default_memory_pool().free_all_blocks()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
        if trim is not None:
            trim(0)
