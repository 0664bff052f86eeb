"""What is installed, which devices exist, and which backend each operation uses."""

from __future__ import annotations

import importlib.metadata
import platform

import torch

from .neighbors import KNN_BACKENDS, resolve_knn_backend
from .ops import register_all
from .ops.launch.twins import CPP, CUPY, TRITON, serves, serving
from .runtime.keops import why_no_keops
from .runtime.memory import format_bytes, free_memory, limit_text
from .runtime.optional import available

LIBRARIES = ("torch", "numpy", "scipy", "scikit-learn", "pykeops", "pynndescent", "matplotlib")  # also in report.json
OPTIONAL = ("cupy-cuda12x", "cupy-cuda13x", "triton", "xarray", "anndata", "zarr", "h5py")


def show_config() -> str:
    """A report for bug reports: versions, devices, backends, and why a backend does not work."""
    lines = [f"python {platform.python_version()} on {platform.platform()}"]
    lines += [f"  {name:<14} {version_of(name)}" for name in ("mmphate-gpu", *LIBRARIES, *OPTIONAL)]
    lines += ["devices", *_devices(), "backends", *_backends()]
    return "\n".join(lines)


def version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _devices() -> list[str]:
    memory = free_memory(torch.device("cpu"))
    free = f"{format_bytes(memory.free_bytes)} available{limit_text(memory)}"
    lines = [f"  cpu: {torch.get_num_threads()} threads, {free}"]
    for index in range(torch.cuda.device_count()):
        total = torch.cuda.get_device_properties(index).total_memory
        lines.append(f"  cuda:{index}: {torch.cuda.get_device_name(index)}, {format_bytes(total)}")
    reason = "this torch is built without CUDA" if torch.version.cuda is None else "torch finds no usable NVIDIA GPU"
    return lines if len(lines) > 1 else [*lines, f"  cuda: none ({reason})"]


def _backends() -> list[str]:
    register_all()
    reason = why_no_keops()
    keops = "works, exact" if reason is None else f"does not work: {reason}"
    missing = 'is not installed: pip install "mmphate-gpu[pynndescent]"'
    pynndescent = "works, approximate" if available("pynndescent") else missing
    states = {"torch": "works, exact", "scipy": "works, exact, on the CPU", "keops": keops, "pynndescent": pynndescent}
    lines = [f"  neighbors, {name}: {states[name]}" for name in KNN_BACKENDS]
    devices = ["cpu", *["cuda"] * torch.cuda.is_available()]
    lines += [f"  neighbors, auto on {device}: {_auto(device)}" for device in devices]
    return [
        *lines,
        f"  ops with twins on cpu: {serving('cpu')}",
        f"    {', '.join(sorted(CPP))}",
        f"  ops with twins on cuda: {serving('cuda')}",
        f"    {', '.join(sorted(CUPY.launchers))}",
        f"  ops of Triton on cuda: {serving('cuda', TRITON)}",
        f"    {', '.join(sorted(TRITON.launchers))}",
        "  affinity, sparse: torch CSR; products by csr_matmul, on cpu narrow float32 ones by torch",
        f"  affinity, lazy: radius_fill makes the rows for every product, csr_matmul multiplies them; KeOps {keops}",
        "  affinity, lazy and fused, or tiles: gaussian_product, tile_matmul",
        "  everything else: torch",
    ]


def _auto(device: str) -> str:
    return "native ops" if serves(torch.device(device)) else resolve_knn_backend("auto", torch.device(device))
