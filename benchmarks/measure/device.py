"""The device of a benchmark's process, and the peak memory of a run."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from pathlib import Path

import torch

from benchmarks.measure.rows import TOTAL
from mmphate_gpu.runtime.devices import resolve_device
from mmphate_gpu.runtime.memory import release_cached
from mmphate_gpu.runtime.memory_use import held_bytes, peak_bytes

CLEAR = Path("/proc/self/clear_refs")
CPU = torch.device("cpu")


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


class PeakMeter:
    """Peak memory within a span: of this process, and on CUDA of the pools of torch and CuPy.

    It is made just before the first span begins. On Linux the peak of the process is reset between spans; elsewhere it
    is the peak so far.
    """

    def __init__(self, device: torch.device) -> None:
        let_go(device)
        self.device = device
        self.held_bytes = held_bytes(CPU)  # of the process, before the first span
        self.before = held_bytes(device) + cupy_bytes()  # the same of the device
        self.host: dict[str, int] = {}
        self.pools: dict[str, int] = {}
        self._reset()

    def __call__(self, stage: str, done: int = 0, total: int = 0) -> None:
        """End the span of ``stage`` and begin the next. This is a ``callback`` of MMPHATE."""
        self.host[stage] = max(self.host.get(stage, 0), peak_bytes(CPU))
        if self.device.type == "cuda":
            pools = peak_bytes(self.device) + cupy_bytes()
            self.pools[stage] = max(self.pools.get(stage, 0), pools)
        self._reset()

    @property
    def spans(self) -> dict[str, int]:
        """Peaks in the memory of the device."""
        return self.pools or self.host

    def fields(self, stage: str = TOTAL) -> dict[str, int]:
        """The peaks of one stage, or of all, as fields of a row."""
        names = {"peak_bytes": self.host, "device_peak_bytes": self.pools}
        return {name: max(spans.values()) if stage == TOTAL else spans[stage] for name, spans in names.items() if spans}

    def run_fields(self) -> dict[str, int]:
        """The memory of the whole run as fields of a row: held before, peak and added.

        Where the peak cannot be reset it is that of everything before too, so nothing is said to be added.
        """
        whole = {"held_bytes": self.held_bytes, **self.fields()}
        if not (self.pools or os.access(CLEAR, os.W_OK)):
            return whole
        return {**whole, "added_bytes": max(0, max(self.spans.values()) - self.before)}

    def _reset(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        if os.access(CLEAR, os.W_OK):
            CLEAR.write_text("5")


def cupy_bytes() -> int:
    """The size of CuPy's pool, which torch's allocator does not count. It does not shrink while a kernel runs."""
    cupy = sys.modules.get("cupy")
    return 0 if cupy is None else int(cupy.get_default_memory_pool().total_bytes())
