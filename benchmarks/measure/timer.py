"""Seconds of a call: by the clock on the CPU, by events on CUDA.

On CUDA a call is one of many in a row between two events, so many that these lie a millisecond apart: what it takes to
begin is done while the call before it runs, and counts only where it takes the longer of the two. The second-level
cache is not flushed between them: a call whose inputs fit there finds them there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

LEAST = 1e-3  # seconds of a sample, far beyond what a clock or an event is off by


def nothing(n: int) -> None:
    """What has to be put back before ``n`` calls that change nothing."""


def one_of(n: int, call: Callable[[], Any], device: torch.device) -> float:
    """Seconds of a call when ``n`` follow one another."""
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
    return one_of(1, call, device)


def enough(call: Callable[[], Any], device: torch.device, restore: Callable[[int], None] = nothing) -> int:
    """How many calls in a row take `LEAST` seconds: a power of two."""
    n = 1
    while True:
        restore(n)
        if n * one_of(n, call, device) >= LEAST:
            return n
        n *= 2


def warm(
    call: Callable[[], Any], device: torch.device, repeats: int, restore: Callable[[int], None] = nothing
) -> list[float]:
    """Seconds of a call, ``repeats`` times: one by one on the CPU, of as many as are `enough` on CUDA.

    ``restore(n)`` is called before each sample, outside the clock: what the next ``n`` calls change is then as it was.
    """
    n, found = enough(call, device, restore) if device.type == "cuda" else 1, []
    for _ in range(repeats):
        restore(n)
        found.append(one_of(n, call, device))
    return found


def cold_and_warm(
    call: Callable[[], Any], device: torch.device, repeats: int, restore: Callable[[int], None] = nothing
) -> tuple[float, list[float]]:
    """Seconds of the first call, and those of ``repeats`` more (`warm`)."""
    restore(1)
    return once(call, device), warm(call, device, repeats, restore)
