"""What a run says it took."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import psutil
import pytest
import torch

from mmphate_gpu.runtime import memory_limits, memory_use

CPU = torch.device("cpu")
LINUX = pytest.mark.skipif(not memory_limits.memory_of_process(), reason="there is no /proc here")


def test_the_peak_of_linux_is_the_high_water_mark(tmp_path, monkeypatch):
    status = tmp_path / "proc/self/status"
    status.parent.mkdir(parents=True)
    status.write_text("Name:\tpython\nVmPeak:\t  900 kB\nVmHWM:\t  123 kB\nVmRSS:\t  100 kB\n")
    monkeypatch.setattr(memory_limits, "ROOT", tmp_path)
    assert memory_use.peak_bytes(CPU) == 123 * 1024


@pytest.mark.skipif(sys.platform == "win32", reason="no getrusage")
@pytest.mark.parametrize("text", [None, "Name:\tpython\n"])
def test_without_one_it_is_that_of_getrusage(tmp_path, monkeypatch, text):
    import resource

    status = tmp_path / "proc/self/status"
    if text is not None:
        status.parent.mkdir(parents=True)
        status.write_text(text)
    monkeypatch.setattr(memory_limits, "ROOT", tmp_path)
    unit = 1 if sys.platform == "darwin" else 1024
    assert memory_use.peak_bytes(CPU) == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def test_the_peak_rises_with_what_is_held():
    before = memory_use.peak_bytes(CPU)
    block = np.ones(25_000_000)  # 200 MB
    held = psutil.Process().memory_info().rss
    # Linux counts pages a few at a time for each thread.
    assert memory_use.peak_bytes(CPU) >= max(before, 0.99 * held) and held > block.nbytes


@LINUX
def test_a_process_does_not_count_the_one_that_started_it():
    """Started by one with 200 MB more, it says what it takes itself."""
    code = "import torch; from mmphate_gpu.runtime.memory_use import peak_bytes; print(peak_bytes(torch.device('cpu')))"

    def peak_of_child() -> int:
        return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)

    small = peak_of_child()
    block = np.ones(small // 8 + 25_000_000)
    assert peak_of_child() < small + 1e8 < block.nbytes
