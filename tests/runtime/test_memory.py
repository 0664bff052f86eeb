"""The limit of memory, and the sentence that says what does not fit."""

from __future__ import annotations

import pytest
import torch

from mmphate_gpu.errors import InputError
from mmphate_gpu.runtime import memory


def test_memory_limit(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.delenv(memory.MEMORY_LIMIT_VARIABLE, raising=False)
    assert memory.memory_limit() is None and memory.available_bytes(cpu) > 2**20
    monkeypatch.setenv(memory.MEMORY_LIMIT_VARIABLE, "1e6")
    assert memory.memory_limit() == memory.available_bytes(cpu) == 1_000_000
    monkeypatch.setenv(memory.MEMORY_LIMIT_VARIABLE, "much")
    with pytest.raises(InputError, match="MMPHATE_GPU_MEMORY_LIMIT='much' is no number of bytes"):
        memory.memory_limit()


@pytest.mark.parametrize("text", ["inf", "nan", "-5"])
def test_memory_limit_out_of_range(monkeypatch, text):
    monkeypatch.setenv(memory.MEMORY_LIMIT_VARIABLE, text)
    with pytest.raises(InputError, match=f"MMPHATE_GPU_MEMORY_LIMIT='{text}' is no number of bytes"):
        memory.memory_limit()


def test_check_fits(monkeypatch):
    monkeypatch.setenv(memory.MEMORY_LIMIT_VARIABLE, str(3 * 2**20))
    memory.check_fits("it", 3 * 2**20, torch.device("cpu"), remedy="less helps")
    words = r"it needs 4.0 MiB but cpu has 3.0 MiB available \(MMPHATE_GPU_MEMORY_LIMIT is 3.0 MiB\); less helps"
    with pytest.raises(InputError, match=words):
        memory.check_fits("it", 4 * 2**20, torch.device("cpu"), remedy="less helps")


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**20, "1.0 MiB"), (5 * 2**40, "5120.0 GiB")]
)
def test_format_bytes(n, text):
    assert memory.format_bytes(n) == text
