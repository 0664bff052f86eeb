"""A launch of a CUDA kernel: CuPy compiles it with NVRTC and starts it on torch's stream."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from ...runtime.optional import require_cupy
from .sources import source_of_kernel

Argument = torch.Tensor | int | float | None
# Fused multiply-adds could decide a pair at the cut otherwise than the C++ twin. CuPy appends -ftz=true.
OPTIONS = ("--std=c++17", "--fmad=false")


@dataclass(frozen=True)
class Launch:
    """A launch of a kernel. Arguments are pointers (tensors, None), int64 or float64."""

    source: str  # csrc/cuda/<source>.cu
    kernel: str
    arguments: tuple[Argument, ...]
    blocks: int
    threads: int
    shared_bytes: int = 0
    defines: dict[str, str] = field(default_factory=dict)


def blocks_of(items: int, each: int) -> int:
    """Blocks of ``each`` items; the last one may be partly empty."""
    return -(-items // each)


Start = Callable[[Launch, torch.device], None]


class Key(NamedTuple):
    """What distinguishes a compiled kernel from others."""

    device: int
    source: str
    kernel: str
    defines: tuple[tuple[str, str], ...]

    @staticmethod
    def of(launch: Launch, device: int) -> Key:
        return Key(device, launch.source, launch.kernel, tuple(sorted(launch.defines.items())))


_compiled: dict[Key, Future[Any]] = {}  # with kernels that are still being compiled
_lock = threading.Lock()


def start_with_cupy(launch: Launch, device: torch.device) -> None:
    """Start ``launch`` on torch's current stream of ``device``; its first start compiles the kernel."""
    kernel = _kernel(Key.of(launch, device.index))
    arguments = tuple(map(_argument, launch.arguments))
    stream = _Stream(torch.cuda.current_stream(device).cuda_stream)
    with torch.cuda.device(device):  # CuPy starts the current device's copy of a kernel
        kernel((launch.blocks,), (launch.threads,), arguments, shared_mem=launch.shared_bytes, stream=stream)


def begin_compiling(launches: Iterable[Launch], device: torch.device) -> None:
    """Begin to compile the kernels of ``launches`` in threads, and return.

    A launch waits for the compilation of its kernel only, and raises what that raised.
    """
    for key in dict.fromkeys(Key.of(launch, device.index) for launch in launches):
        slot = _slot(key)
        if slot.vacant:
            # A thread for each kernel, so that none waits for a slower one that the run needs later.
            thread = threading.Thread(target=_compile, args=(slot,), name=f"compiles {key.kernel}")
            try:
                thread.start()
            except RuntimeError:  # the system grants no more threads
                _compile(slot)


def probe() -> None:
    """Compile a kernel that nearly every op starts, for torch's current device. It raises what CuPy raises."""
    _kernel(Key(torch.cuda.current_device(), "pair_screen", "pair_screen", ()))


def _kernel(key: Key) -> Any:
    slot = _slot(key)
    if slot.vacant:
        _compile(slot)
    return slot.kernel.result()


class _Slot(NamedTuple):
    """Where a compiled kernel is or will be."""

    key: Key
    kernel: Future[Any]
    vacant: bool  # no thread compiles it yet, so the caller has to


def _slot(key: Key) -> _Slot:
    with _lock:
        vacant = key not in _compiled
        if vacant:
            _compiled[key] = Future()
        return _Slot(key, _compiled[key], vacant)


def _compile(slot: _Slot) -> None:
    """Compile a kernel, in any thread. CuPy keeps the result on disk."""
    key = slot.key
    try:
        cupy = require_cupy(purpose="a CUDA kernel")
        code = source_of_kernel(key.source, key.kernel, dict(key.defines))
        with cupy.cuda.Device(key.device):
            module = cupy.RawModule(code=code, options=OPTIONS, backend="nvrtc")
            slot.kernel.set_result(module.get_function(key.kernel))
    except BaseException as error:
        with _lock:
            del _compiled[key]  # the next launch tries again
        slot.kernel.set_exception(error)


def _argument(value: Argument) -> np.generic:
    if isinstance(value, torch.Tensor):
        return np.uint64(value.data_ptr())
    if value is None:
        return np.uint64(0)
    return np.int64(value) if isinstance(value, int) else np.float64(value)


class _Stream(NamedTuple):
    """What CuPy reads of a stream at a launch. CuPy's classes create a stream, or are deprecated since version 14."""

    ptr: int
