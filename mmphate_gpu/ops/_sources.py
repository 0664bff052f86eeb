"""The CUDA sources of this package as text."""

from __future__ import annotations

import re
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
_INCLUDE = re.compile(r'^#include "(.+)"$', re.MULTILINE)


def source_folder() -> Path:
    """``csrc``: beside the package in a source tree, inside it when installed."""
    tree = PACKAGE.parent / "csrc"
    return tree if (tree / "cuda" / "radius_affinity.cu").exists() else PACKAGE / "_native" / "csrc"


def kernel_source(name: str) -> str:
    """``csrc/cuda/<name>.cu`` with its own headers put in place, so that a compiler needs no include path."""
    return one_text(source_folder() / "cuda" / f"{name}.cu")


def one_text(path: Path) -> str:
    """The text of ``path`` with its own headers put in place."""
    return _in_one(path, set())


def kernel_names(name: str) -> list[str]:
    """The kernels of ``csrc/cuda/<name>.cu``."""
    text = (source_folder() / "cuda" / f"{name}.cu").read_text()
    return re.findall(r"^MMP_KERNEL void\s+__launch_bounds__\([^)]*\)\s+(\w+)\(", text, re.MULTILINE)


def _in_one(path: Path, seen: set[Path]) -> str:
    """The text of ``path`` and, each once, of what it includes."""

    def included(match: re.Match[str]) -> str:
        target = (path.parent / match[1]).resolve()
        if target in seen:
            return ""
        seen.add(target)
        return _in_one(target, seen)

    return _INCLUDE.sub(included, path.read_text().replace("#pragma once\n", ""))
