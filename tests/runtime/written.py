"""Results of every format, as calls that write them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from mmphate_gpu.runtime.atomic import scratch

TRACE = np.random.default_rng(0).normal(size=(30, 3, 50, 20)).astype(np.float32)  # 360 kB
posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX")


def names(folder):
    return {item.name for item in Path(folder).iterdir()}


def abandoned(path, **contents):
    """A scratch folder for ``path`` whose process has ended."""
    folder, lock = scratch.new_scratch(path)
    for name, text in contents.items():
        (folder / {"ready": scratch.READY, "old": scratch.OLD}.get(name, path.name)).mkdir()
        (folder / {"ready": scratch.READY, "old": scratch.OLD}.get(name, path.name) / "text").write_text(text)
    scratch.unlock(lock)
    return folder
