"""The CUDA twins on the CPU: the launchers of the package start the kernels of csrc/cuda under csrc/emulation."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from mmphate_gpu.ops.launch.cuda import Gpu
from mmphate_gpu.ops.launch.kernel import Argument, Launch, Start
from mmphate_gpu.ops.launch.sources import kernel_names, source_folder
from mmphate_gpu.ops.launch.twins import CUPY

# Orders of the threads of a block: forwards, backwards, in strides. In the second order the blocks run backwards too.
ORDERS = (0, 1, 5)

# The kernels are installed with the package, this folder is not.
HEADERS = Path(__file__).resolve().parents[2] / "csrc" / "emulation"

needs_emulation = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("g++") is None,
    reason="the emulation needs g++ on PATH, and switches stacks as glibc does",
)


def driver(source: str, defines: dict[str, str]) -> str:
    """One C++ file with the kernels of ``source`` for one set of types."""
    lines = ["#include <cuda_emulation.h>"]
    lines += [f'#include "{header}"' for header in sorted((source_folder() / "common").glob("*.h"))]
    lines += [f"#define {name} {value}" for name, value in defines.items()]
    lines += ["namespace of {", f'#include "{source_folder() / "cuda" / source}.cu"', "}"]
    lines += [f"MMP_EMULATE(of, {name})" for name in kernel_names(source)]
    return "\n".join(lines) + "\n"


def compile_text(name: str, text: str, folder: Path) -> ctypes.CDLL:
    source, library = folder / f"{name}.cpp", folder / f"{name}.so"
    source.write_text(text)
    options = ["-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-Wall", "-Werror"]
    # Votes jump between stacks, which glibc's checked longjmp reports as a fault. Pragmas are for nvcc. A file may have
    # functions that one set of types does not use.
    options += ["-U_FORTIFY_SOURCE", "-Wno-unknown-pragmas", "-Wno-unused-function", "-Wno-unused-const-variable"]
    subprocess.run(["g++", *options, f"-I{HEADERS}", str(source), "-o", str(library)], check=True, cwd=folder)
    return ctypes.CDLL(str(library))


class Twins:
    """The launchers of the CUDA twins by the names of their ops, over a way to start kernels."""

    def __init__(self, start: Start) -> None:
        self.gpu = Gpu(start)

    def __getattr__(self, op: str) -> Callable[..., Any]:
        return partial(CUPY.launchers[op], self.gpu)


@dataclass
class Emulation:
    """Runs kernels on the CPU. The first launch of a file of kernels with a new set of types compiles it."""

    folder: Path
    order: int = 0
    libraries: dict[str, ctypes.CDLL] = field(default_factory=dict)
    started: set[str] = field(default_factory=set)  # the names of kernels

    def start(self, launch: Launch, device: torch.device) -> None:
        assert device.type == "cpu"
        name = "_".join([launch.source, *(value for _, value in sorted(launch.defines.items()))])
        if name not in self.libraries:
            self.libraries[name] = compile_text(name, driver(launch.source, launch.defines), self.folder)
        self.started.add(launch.kernel)
        kernel = getattr(self.libraries[name], f"of_{launch.kernel}")
        values = [_value(argument) for argument in launch.arguments]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        letters = "".join(map(_letter, launch.arguments))
        geometry = (ctypes.c_uint * 3)(launch.blocks, launch.threads, launch.shared_bytes)
        message = ctypes.create_string_buffer(256)
        if kernel(geometry, pointers, letters.encode(), ctypes.c_int(self.order), message):
            raise RuntimeError(f"{launch.kernel}: {message.value.decode()}")

    def twins(self) -> Twins:
        return Twins(self.start)


def _letter(argument: Argument) -> str:
    if argument is None:
        return "-"
    if isinstance(argument, torch.Tensor):
        return {torch.float64: "D", torch.float32: "F", torch.int64: "Q", torch.int32: "I"}[argument.dtype]
    return "q" if isinstance(argument, int) else "d"


def _value(argument: Argument) -> ctypes._SimpleCData:
    if isinstance(argument, torch.Tensor):
        assert argument.is_contiguous()
        return ctypes.c_void_p(argument.data_ptr())
    if argument is None:
        return ctypes.c_void_p(None)
    return ctypes.c_int64(argument) if isinstance(argument, int) else ctypes.c_double(argument)
