"""Fixtures of this folder."""

from __future__ import annotations

import pytest

from mmphate_gpu.trace import stored

from .stored_files import SHAPE


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of three units of one slice: the last is truncated."""
    monkeypatch.setattr(stored, "BLOCK_ELEMENTS", 3 * SHAPE[3])
