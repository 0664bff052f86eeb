"""How much memory is in use, and how much has been at most."""

from __future__ import annotations

import sys

import psutil
import torch

from .memory_limits import memory_of_process


def peak_bytes(device: torch.device) -> int:
    """The most memory used so far: by the CUDA allocator on ``device``, or by this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    # Linux's ru_maxrss is no use: a process inherits the peak of the process that started it.
    if (peak := memory_of_process().get("VmHWM")) is not None:
        return peak
    import resource  # Windows does not have it

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts in bytes, Linux in KiB


def held_bytes(device: torch.device) -> int:
    """The memory in use now: by the CUDA allocator on ``device``, or by this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return psutil.Process().memory_info().rss
