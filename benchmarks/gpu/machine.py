"""A step of `first_light`: the machine, what it lacks, and its rates."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.gpu.parts import Work, run

PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "triton", "cupy-cuda12x", "cupy-cuda13x", "pykeops")
OTHERS = ("pynndescent", "matplotlib", "psutil", "tqdm", "pytest", "pytest-xdist", "pytest-timeout", "pytest-benchmark")
TOOLS = ("nvidia-smi", "nvcc", "g++", "cmake", "ncu", "compute-sanitizer", "cuobjdump")
# Rates of suite "floors", and the bytes of a copy from the host, by whether inputs are small.
RATES = ("copy", "fma-float64", "fma-float16", "exp-float32", "exp-float64")
COPIED = {True: 2**24, False: 2**28}


def parts(options: argparse.Namespace) -> Iterator[tuple[str, Work]]:
    yield "versions", versions
    yield "tools", tools
    yield "processor", processor
    yield "device", lambda: device(options.device)
    yield "library", library
    yield "deprecations of CuPy", deprecations
    for name in RATES:
        yield f"rate of {name}", lambda name=name: rate(name, options)
    for pinned in (False, True):
        name = "pinned" if pinned else "pageable"
        yield f"host to device, {name}", lambda pinned=pinned: host_to_device(pinned, options)


def versions() -> dict[str, Any]:
    by_package = {"python": platform.python_version(), "platform": platform.platform()}
    for name in (*PACKAGES, *OTHERS):
        try:
            by_package[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            by_package[name] = None
    return by_package


def tools() -> dict[str, Any]:
    paths = {name: shutil.which(name) for name in TOOLS}
    return {**paths, "absent": ", ".join(name for name, path in paths.items() if path is None)}


def processor() -> dict[str, Any]:
    import psutil
    import torch

    memory = psutil.virtual_memory()
    disk = shutil.disk_usage(Path.cwd())
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": memory.total,
        "available_bytes": memory.available,
        "free_disk_bytes": disk.free,
        "load": os.getloadavg(),
    }


def device(device: Any) -> dict[str, Any]:
    """The GPU as torch and nvidia-smi see it."""
    import torch

    if device.type == "cpu":
        return {"missing": "this run is on the CPU"}
    properties = torch.cuda.get_device_properties(device)
    free, total = torch.cuda.mem_get_info(device)
    smi = shutil.which("nvidia-smi")
    return {
        "name": properties.name,
        "capability": torch.cuda.get_device_capability(device),
        "multiprocessors": properties.multi_processor_count,
        "free_bytes": free,
        "total_bytes": total,
        "cuda": torch.version.cuda,
        "nvidia_smi": subprocess.run([smi], capture_output=True, text=True).stdout if smi else None,
    }


def library() -> dict[str, Any]:
    """Which backends of the library work on this machine, and why the others do not."""
    from mmphate_gpu.config import show_config
    from mmphate_gpu.ops.launch.native import why_no_native
    from mmphate_gpu.ops.launch.twins import CUPY, TRITON
    from mmphate_gpu.runtime.keops import why_no_keops

    reasons = {
        "C++ twins": why_no_native(),
        "CuPy's twins": CUPY.why_not(),
        "Triton's twins": TRITON.why_not(),
        "KeOps": why_no_keops(),
        "pynndescent": None if importlib.util.find_spec("pynndescent") else "it is not installed",
    }
    lacking = "; ".join(f"{name}: {reason}" for name, reason in reasons.items() if reason is not None)
    return {"config": show_config(), **({"missing": lacking} if lacking else {})}


def deprecations() -> dict[str, Any]:
    """Whether CuPy can be imported, and whether its types of streams warn."""
    if importlib.util.find_spec("cupy") is None:
        return {"missing": "CuPy is not installed"}
    tries = {
        "import": "import cupy",
        "ExternalStream": "import cupy; cupy.cuda.ExternalStream(0)",
        "from_external": "import cupy; cupy.cuda.Stream.from_external",
    }
    messages = {}
    for name, code in tries.items():
        done = subprocess.run([sys.executable, "-W", "error::DeprecationWarning", "-c", code], capture_output=True)
        messages[name] = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or "no warning"
    return messages


def rate(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """A rate of suite "floors"."""
    from benchmarks.suites import floors

    chosen = [floor for floor in floors.floors(options.device) if floor.name == name]
    if not chosen:
        return {"missing": f"{name} is not measured on {options.device.type}"}
    row = floors.measure(chosen, options.device, quick=options.small)[0]
    if row.rate is None:
        return {"missing": row.skipped}
    return {"rate": row.rate, "unit": f"{row.unit}/s"}


def host_to_device(pinned: bool, options: argparse.Namespace) -> dict[str, Any]:
    import torch

    from benchmarks.measure.timer import warm

    if pinned and options.device.type == "cpu":
        return {"missing": "pinned memory needs a CUDA device"}
    source = torch.randint(0, 256, (COPIED[options.small],), dtype=torch.uint8)
    source = source.pin_memory() if pinned else source
    target = torch.empty(source.shape, dtype=source.dtype, device=options.device)
    seconds = min(warm(lambda: target.copy_(source), options.device, 5))
    return {"rate": source.nbytes / seconds, "unit": "bytes/s"}


if __name__ == "__main__":
    sys.exit(run(__doc__.splitlines()[0], parts))
