"""The parts of CuPy's interface that mmphate_gpu uses, over the pretended GPU of `tests.pretend_gpu`."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from tests.pretend_gpu import build, device

from . import cuda, linalg
from .arrays import from_dlpack, ndarray

__version__ = "14.2.0"
__all__ = ["RawModule", "cuda", "from_dlpack", "get_default_memory_pool", "linalg", "ndarray"]


def get_default_memory_pool() -> Any:
    return SimpleNamespace(total_bytes=lambda: 0, used_bytes=lambda: 0, free_all_blocks=lambda: None)


HEADERS = Path(__file__).resolve().parents[4] / "csrc" / "emulation"
OPTIONS = ["-std=c++17", "-O1", "-ffp-contract=off", "-U_FORTIFY_SOURCE", "-w", f"-I{HEADERS}"]
ORDER = 1  # of the threads of a block: backwards


class RawModule:
    """A module of kernels from their source, compiled for the emulation when a kernel is asked for."""

    def __init__(self, *, code: str, options: tuple[str, ...] = (), backend: str = "nvrtc") -> None:
        assert backend == "nvrtc" and all(option.startswith("--") for option in options)
        self.code = code

    def get_function(self, name: str) -> Callable[..., None]:
        standard = re.findall(r"^#include <.*>$", self.code, re.MULTILINE)
        lines = ["#include <cuda_emulation.h>", *standard, "namespace of {", self.code, "}", f"MMP_EMULATE(of, {name})"]
        text = "\n".join(lines) + "\n"
        path = build.compiled(name, text, OPTIONS, [HEADERS / "cuda_emulation.h"])
        library = ctypes.CDLL(str(path))
        return partial(launch, getattr(library, f"of_{name}"), name)


def launch(
    function: Any,
    name: str,
    grid: tuple[int],
    block: tuple[int],
    args: tuple[Any, ...],
    *,
    shared_mem: int,
    stream: Any,
) -> None:
    """Start a kernel as CuPy's `Function` does: on the current device, with arguments that are NumPy's scalars."""
    index = torch.cuda.current_device()
    assert stream.ptr == torch.cuda.current_stream(index).cuda_stream
    assert 0 < grid[0] < 2**31 and 0 < block[0] <= 1024 and 0 <= shared_mem <= 227 * 1024
    letters = ""
    for value in args:
        if isinstance(value, np.uint64):  # a pointer
            if int(value) and device.device_of(int(value)) != index:
                raise RuntimeError(
                    f"{name}: illegal memory access: the address {int(value):#x} is not in the memory of cuda:{index}"
                )
            letters += "*" if int(value) else "-"
        else:
            letters += {np.dtype(np.int64): "q", np.dtype(np.float64): "d"}[value.dtype]
    device.start(partial(_run, function, name, (grid[0], block[0], shared_mem), args, letters))


def _run(function: Any, name: str, geometry: tuple[int, ...], args: tuple[Any, ...], letters: str) -> None:
    values = [np.array([value]) for value in args]
    pointers = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
    sizes = (ctypes.c_uint * 3)(*geometry)
    message = ctypes.create_string_buffer(256)
    if function(sizes, pointers, letters.encode(), ctypes.c_int(ORDER), message):
        raise RuntimeError(f"{name}: {message.value.decode()}")
