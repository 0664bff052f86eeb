"""The conditions of a measurement: machine, memory, versions, commit, and a hash of the sources.

`tasks.conditions_of` runs this module in a process of its own.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure.records import ROOT
from benchmarks.measure.rows import PORTABLE, Row, slug

# The files that decide a number. The code that shows results, compares them or starts the suites does not.
SOURCES = (
    "mmphate_gpu/**/*.py",
    "csrc/**/*",
    "CMakeLists.txt",
    "benchmarks/cases.py",
    "benchmarks/networks.py",
    *(f"benchmarks/{room}/*.py" for room in ("measure", "peers", "suites")),
)
# Another machine with the same name has more or less memory than this; what a kernel reserves changes less.
SAME_MEMORY = 0.1
PACKAGES = ("torch", "numpy", "scipy", "pykeops", "triton")
CUPY = ("cupy", "cupy-cuda12x", "cupy-cuda13x")


def conditions(device: Any, packages: Sequence[str] = ()) -> dict[str, Any]:
    """The fields that all rows of a process share.

    ``device`` is a torch device or its name. The versions of further ``packages`` are added if they are installed.
    """
    import torch

    device = torch.device(device)
    return {
        "device": device.type,
        "machine": machine_name(device),
        "threads": torch.get_num_threads(),
        "memory_bytes": memory_bytes(device),
        "versions": {**versions(packages), "twins": twins(device)},
        "commit": commit(),
        "source": source(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def machine_name(device: Any) -> str:
    """The GPU, or the processor with its cores, and the threads if they are fewer."""
    import torch

    if device.type == "cuda":
        return slug(torch.cuda.get_device_name(device))
    cores, threads = n_cores(), torch.get_num_threads()
    return slug(f"{_processor()} {cores} cores" + ("" if threads == cores else f" {threads} threads"))


def n_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2] for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def memory_bytes(device: Any) -> int:
    """The total memory of ``device``, or the user's limit for the library if that is lower."""
    import psutil
    import torch

    from mmphate_gpu.runtime.memory import memory_limit

    on_gpu = device.type == "cuda"
    whole = torch.cuda.get_device_properties(device).total_memory if on_gpu else psutil.virtual_memory().total
    return min(whole, memory_limit() or whole)


def twins(device: Any) -> str:
    """Which twins of the ops run in place of portable torch: "C++ (avx512)", "CUDA", or "none"."""
    from mmphate_gpu.ops.launch.native import isa
    from mmphate_gpu.ops.launch.twins import serves

    if not serves(device):
        return "none"
    return "CUDA" if device.type == "cuda" else f"C++ ({isa()})"


def same_conditions(row: Row, now: dict[str, Any]) -> bool:
    """Whether ``row`` has the sources, memory and versions of ``now``; of other packages, those installed here."""
    installed = _installed(row.versions) | now["versions"]
    names = {*installed, *PACKAGES, *CUPY}
    if row.by == PORTABLE:
        names.discard("twins")  # its process uses none
    same_versions = all(row.versions.get(name) == installed.get(name) for name in names)
    return row.source == now["source"] and same_versions and same_memory(row.memory_bytes or 0, now["memory_bytes"])


def _installed(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those ``packages`` that are installed."""
    by_name = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            by_name[package] = importlib.metadata.version(package)
    return by_name


def same_memory(before: int, now: int) -> bool:
    """Whether two totals may be of one machine."""
    return abs(before - now) <= SAME_MEMORY * now


def versions(packages: Sequence[str] = ()) -> dict[str, str]:
    """Versions, by name, of what decides a time or a digit; packages that are not installed are left out."""
    import torch

    from mmphate_gpu import __version__

    by_name = {"mmphate-gpu": __version__, "python": platform.python_version()}
    by_name |= _installed(dict.fromkeys((*PACKAGES, *CUPY, *packages)))
    by_name["torch"] = torch.__version__  # followed by the type of its build
    return by_name | ({"cuda": torch.version.cuda} if torch.version.cuda else {})


def commit() -> str:
    """The commit of the checkout, followed by "+" if the sources differ from it; empty outside a git checkout."""
    head = _git("rev-parse", "--short", "HEAD")
    changed = head and _git("status", "--porcelain", "--", *(f":(glob){pattern}" for pattern in SOURCES))
    return head + ("+" if changed else "")


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def source() -> str:
    """A hash of the files that decide a number. Rows with another hash are measured anew."""
    return hash_of(SOURCES)


def hash_of(patterns: Sequence[str]) -> str:
    """A hash of the names and contents of the files of the checkout that match one of ``patterns``."""
    digest = hashlib.sha256()
    for file in sorted({file for pattern in patterns for file in ROOT.glob(pattern) if file.is_file()}):
        name = file.relative_to(ROOT).as_posix()
        if "__pycache__" not in name:
            digest.update(f"{name}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def main(device_name: str) -> int:
    """Print the full name and the conditions of the device as JSON; 2 if there is no such device."""
    from mmphate_gpu.errors import InputError
    from mmphate_gpu.runtime.devices import resolve_device

    try:
        device = resolve_device(device_name)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps({"name": str(device), "conditions": conditions(device)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
