"""Seconds of a call: by the clock on the CPU, by events on CUDA."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch


def once(call: Callable[[], Any], device: torch.device) -> float:
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def cold_and_warm(call: Callable[[], Any], device: torch.device, repeats: int) -> tuple[float, list[float]]:
    """Seconds of the first call, and those of ``repeats`` more."""
    cold = once(call, device)
    return cold, [once(call, device) for _ in range(repeats)]
