"""Fixtures of this folder."""

from __future__ import annotations

import pytest

from mmphate_gpu import plots
from mmphate_gpu.runtime.atomic import rename


@pytest.fixture(params=["exchange", "two renames"])
def system(request, monkeypatch):
    """Run the test on a system that can exchange two names and rename without replacing, and on one that cannot."""
    if request.param == "two renames":
        monkeypatch.setattr(rename, "_system_call", lambda how: None)
    return request.param


@pytest.fixture
def quick_pictures(monkeypatch):
    """Replace each plot by a function that only writes a file."""
    for name in ("panels", "entropy"):
        monkeypatch.setattr(plots, name, lambda embedding, path: path.write_bytes(bytes(20_000)) and None)
