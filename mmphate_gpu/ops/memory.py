"""How much memory there is, and the refusal of what does not fit."""

from __future__ import annotations

import os

import psutil
import torch

from ..params import InputError

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
        raise InputError(f"{MEMORY_LIMIT_VARIABLE}={text!r} must be a number of bytes")
    return limit


def available_bytes(device: torch.device) -> int:
    """Bytes that a new allocation on ``device`` may take: free memory, the allocator's own reserve included."""
    cap = memory_limit()
    if device.type == "cuda":
        used = torch.cuda.memory_allocated(device)
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - used
        cap = None if cap is None else max(0, cap - used)
    else:
        free = psutil.virtual_memory().available
    return free if cap is None else min(free, cap)


def release_cached(device: torch.device) -> None:
    """Give back what torch's allocator keeps of freed memory on ``device``, so that nothing is left of it in pieces."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def format_bytes(n: float) -> str:
    """``n`` bytes as a person reads them: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(n) < 1024 or unit == "GiB":
            return f"{n:.0f} B" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    raise AssertionError("unreachable")


def check_fits(what: str, needed: int, device: torch.device, *, remedy: str) -> None:
    """Raise `InputError` with the numbers and the setting that helps, before ``needed`` bytes are allocated."""
    there = available_bytes(device)
    if needed > there:
        raise InputError(
            f"{what} needs {format_bytes(needed)} but {device} has {format_bytes(there)} available; {remedy}"
        )
