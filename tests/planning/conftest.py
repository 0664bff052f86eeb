"""What several tests of planning need."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest

import mmphate_gpu as mm
from mmphate_gpu.operators import LazyAffinity
from mmphate_gpu.ops.point_tiles import TILE
from mmphate_gpu.planning.sample import Entries


@pytest.fixture(scope="session")
def settings_named() -> Callable[[str], list[dict[str, object]]]:
    """The settings with which a run fits, as a refusal names them: one dictionary for each way."""

    def parsed(refusal: str) -> list[dict[str, object]]:
        if "by plan it fits with" not in refusal:
            return []
        ways = [refusal] if refusal.endswith("together") else refusal.split(", or with ")
        numbers = [{name: int(value) for name, value in re.findall(r"(n_\w+)=(\d+)", way)} for way in ways]
        lazy = [{"storage": "lazy"} if 'storage="lazy"' in way else {} for way in ways]
        return [settings | storage for settings, storage in zip(numbers, lazy, strict=True)]

    return parsed


@pytest.fixture(scope="session")
def counted_entries() -> Callable[[mm.Trace, LazyAffinity], Entries]:
    """The entries of an affinity, counted."""

    def counted(trace: mm.Trace, lazy: LazyAffinity) -> Entries:
        pairs = trace.n_nodes * (trace.n_slices - 1)
        tiles = lazy.interslice.tile_layout.n_active / (trace.n_units * math.ceil(trace.n_slices / TILE) ** 2)
        interslice = int(lazy.interslice.counts.sum()) / pairs
        return Entries(interslice, lazy.intraslice.nnz / trace.n_nodes, 0.0, tiles)

    return counted
