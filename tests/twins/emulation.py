"""The CUDA twins on the CPU: the kernels of csrc/cuda under csrc/emulation, started by the launchers of the package."""

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

import torch

from mmphate_gpu.ops.launch.cuda import Gpu
from mmphate_gpu.ops.launch.kernel import Argument, Launch, Start
from mmphate_gpu.ops.launch.sources import kernel_names, source_folder
from mmphate_gpu.ops.launch.twins import CUPY

# Schedules of the threads of a block: forwards, backwards, in strides. In the second the blocks run backwards too.
ORDERS = (0, 1, 5)


# Not installed with the package, as the kernels are.
HEADERS = Path(__file__).resolve().parents[2] / "csrc" / "emulation"


def why_no_emulation() -> str | None:
    if sys.platform != "linux":
        return "the emulation switches stacks as glibc does"
    return None if shutil.which("g++") else "there is no g++ on PATH"


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
    # Votes jump between stacks, which glibc's checked longjmp takes for a fault. Pragmas and unused kernels are nvcc's.
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
    """Compiles a file of kernels at the first launch with a new set of types, and runs kernels on the CPU."""

    folder: Path
    order: int = 0
    libraries: dict[str, ctypes.CDLL] = field(default_factory=dict)

    def start(self, launch: Launch, device: torch.device) -> None:
        assert device.type == "cpu"
        name = "_".join([launch.source, *(value for _, value in sorted(launch.defines.items()))])
        if name not in self.libraries:
            self.libraries[name] = compile_text(name, driver(launch.source, launch.defines), self.folder)
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
