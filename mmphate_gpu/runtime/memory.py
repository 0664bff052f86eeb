"""How much memory is free, and a check that refuses what does not fit."""

from __future__ import annotations

import os

import psutil
import torch

from ..errors import InputError
from .memory_limits import Limit, process_limits

MEMORY_LIMIT_VARIABLE = "MMPHATE_GPU_MEMORY_LIMIT"  # bytes; an artificial cap, for shared machines and for tests


def memory_limit() -> int | None:
    """The cap in bytes the user has set through the environment, or None."""
    text = os.environ.get(MEMORY_LIMIT_VARIABLE)
    if text is None:
        return None
    try:
        limit = int(float(text))
    except (ValueError, OverflowError):
        limit = -1
    if limit < 0:
        raise InputError(
            f"{MEMORY_LIMIT_VARIABLE}={text!r} is no number of bytes; accepted: a number of bytes, 0 or more"
        )
    return limit


def free_memory(device: torch.device) -> Limit:
    """The limit on memory that leaves the fewest bytes for new allocations on ``device``, with that number of bytes.

    On CUDA it is the free memory of the device, with the memory that torch's allocator has reserved but does not use.
    On the CPU it is the free memory of the machine, without swap, or what a control group or a resource limit leaves.
    The environment variable MMPHATE_GPU_MEMORY_LIMIT is one more limit on both.
    """
    cap = memory_limit()
    if device.type == "cuda":
        used = torch.cuda.memory_allocated(device)
        free, total = torch.cuda.mem_get_info(device)
        limits = [Limit(free + torch.cuda.memory_reserved(device) - used, "", total)]
    else:
        used, machine = 0, psutil.virtual_memory()
        limits = [Limit(machine.available, "", machine.total), *process_limits()]
    if cap is not None:
        limits.append(Limit(max(0, cap - used), MEMORY_LIMIT_VARIABLE, cap))
    return min(limits, key=lambda limit: limit.free_bytes)


def available_bytes(device: torch.device) -> int:
    """The number of bytes that new allocations on ``device`` may take; see `free_memory`."""
    return free_memory(device).free_bytes


def limit_text(limit: Limit) -> str:
    """``limit`` in parentheses, for messages, after a number of bytes; "" for the memory of the device itself.

    >>> limit_text(Limit(2**20, "memory.max of the cgroup /user.slice", 500 * 2**20))
    ' (memory.max of the cgroup /user.slice is 500.0 MiB)'
    """
    return f" ({limit.name} is {format_bytes(limit.limit_bytes)})" if limit.name else ""


def release_cached(device: torch.device) -> None:
    """Give back what torch's allocator keeps of freed memory on ``device``, so that nothing is left of it in pieces."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def format_bytes(n: float) -> str:
    """``n`` bytes as a person reads them: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB"):
        if abs(n) < 1024:
            return f"{n:.0f} B" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.1f} GiB"


def check_fits(what: str, needed: int, device: torch.device, *, remedy: str) -> None:
    """Raise `InputError` with the numbers and the setting that helps, before ``needed`` bytes are allocated."""
    limit = free_memory(device)
    if needed > limit.free_bytes:
        free = f"{format_bytes(limit.free_bytes)} available{limit_text(limit)}"
        raise InputError(f"{what} needs {format_bytes(needed)} but {device} has {free}; {remedy}")
