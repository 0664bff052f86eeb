"""Compiles the libraries of the pretended GPU, once for a folder, and loads the device before torch."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .environment import FOLDER_VARIABLE

FOLDER = Path(__file__).parent
OF_TORCH = ("libgomp.so.1", "libc10.so", "libtorch_cpu.so")  # what `device.cpp` needs, in the order of loading
# The return types of the C functions of `device.cpp` that do not return int.
RETURNS = {
    ctypes.c_int64: ("get_stream", "allocated", "reserved", "most_allocated", "capacity", "overruns"),
    ctypes.c_void_p: ("reserve", "capture_begin"),
    ctypes.c_char_p: ("replay", "names"),
}


def compiled(name: str, text: str, options: Sequence[str], headers: Sequence[Path]) -> Path:
    """The library of a C++ ``text`` that includes ``headers``, compiled once for all processes with the same folder."""
    folder = Path(os.environ[FOLDER_VARIABLE])
    folder.mkdir(parents=True, exist_ok=True)
    deciding = [text, *options, importlib.metadata.version("torch"), *(header.read_text() for header in headers)]
    path = folder / f"{name}-{hashlib.sha256(chr(0).join(deciding).encode()).hexdigest()[:16]}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            source, made = Path(temporary, f"{name}.cpp"), Path(temporary, "made.so")
            source.write_text(text)
            subprocess.run(["g++", "-fPIC", "-shared", str(source), "-o", str(made), *options], check=True)
            os.replace(made, path)
    return path


def library() -> ctypes.CDLL:
    """The device. It is loaded before torch is imported, because torch asks once what CUDA can do."""
    if "torch" in sys.modules:
        raise ImportError("torch is imported already; start Python by `python -m tests.pretend_gpu`")
    torch = Path(importlib.util.find_spec("torch").origin).parent
    options = ["-std=c++20", "-O1", "-w", f"-I{FOLDER}", f"-I{torch / 'include'}"]
    options += [f"-I{torch / 'include/torch/csrc/api/include'}", f"-L{torch / 'lib'}", "-ltorch_cpu", "-lc10"]
    path = compiled("device", (FOLDER / "device.cpp").read_text(), options, sorted(FOLDER.glob("*.h")))
    for part in OF_TORCH:
        if (torch / "lib" / part).exists():
            ctypes.CDLL(str(torch / "lib" / part), ctypes.RTLD_GLOBAL)
    loaded = ctypes.CDLL(str(path))
    for returned, names in RETURNS.items():
        for name in names:
            getattr(loaded, f"pretend_{name}").restype = returned
    return loaded
