"""Seconds of a call: by the clock on the CPU, by events on CUDA.

On CUDA many calls follow one another between two events, so many that the events lie at least a millisecond apart. The
launch of a call overlaps with the call before it, and counts only where it takes longer. The second-level cache is not
flushed between calls, so inputs that fit into it are read from it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

LEAST = 1e-3  # seconds of a sample, far above the resolution of a clock or an event


def nothing(n: int) -> None:
    """The ``restore`` of calls that change nothing."""


def seconds_each(n: int, call: Callable[[], Any], device: torch.device) -> float:
    """Mean seconds of ``n`` calls that follow one another."""
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(n):
            call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3 / n
    started = time.perf_counter()
    for _ in range(n):
        call()
    return (time.perf_counter() - started) / n


def once(call: Callable[[], Any], device: torch.device) -> float:
    """Seconds of one call."""
    return seconds_each(1, call, device)


def enough(call: Callable[[], Any], device: torch.device, restore: Callable[[int], None] = nothing) -> int:
    """How many calls take `LEAST` seconds together: a power of two."""
    n = 1
    while True:
        restore(n)
        if n * seconds_each(n, call, device) >= LEAST:
            return n
        n *= 2


def warm(
    call: Callable[[], Any], device: torch.device, repeats: int, restore: Callable[[int], None] = nothing
) -> list[float]:
    """Seconds of a call, ``repeats`` times. A sample is one call on the CPU, and `enough` calls on CUDA.

    ``restore(n)`` is called before each sample, outside the clock. It undoes the changes that ``n`` calls would see.
    """
    n, samples = enough(call, device, restore) if device.type == "cuda" else 1, []
    for _ in range(repeats):
        restore(n)
        samples.append(seconds_each(n, call, device))
    return samples


def cold_and_warm(
    call: Callable[[], Any], device: torch.device, repeats: int, restore: Callable[[int], None] = nothing
) -> tuple[float, list[float]]:
    """Seconds of the first call, and those of ``repeats`` more (`warm`)."""
    restore(1)
    return once(call, device), warm(call, device, repeats, restore)
