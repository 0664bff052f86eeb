"""How much memory is in use, and how much has been at most."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import torch

STATUS = Path("/proc/self/status")  # Linux


def peak_bytes(device: torch.device) -> int:
    """The most memory used so far: by the CUDA allocator on ``device``, or by this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    # Linux's ru_maxrss is no use: a process inherits the peak of the process that started it.
    lines = STATUS.read_text(encoding="ascii", errors="replace").splitlines() if STATUS.exists() else []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    import resource  # Windows does not have it

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts in bytes, Linux in KiB


def held_bytes(device: torch.device) -> int:
    """The memory in use now: by the CUDA allocator on ``device``, or by this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return psutil.Process().memory_info().rss
