"""The choice of the form: by the device, its free memory, the share of entries and what compiles."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mmphate_gpu.affinities import Interslice
from mmphate_gpu.errors import InputError
from mmphate_gpu.operators import LazyAffinity, SparseAffinity, TiledAffinity, affinity_of_points
from mmphate_gpu.operators import choose as choose_module
from mmphate_gpu.operators import multislice as multislice_module
from mmphate_gpu.operators.choose import choose_engine
from mmphate_gpu.operators.lazy_fused import FUSED_RADIUS, fused_radius
from mmphate_gpu.operators.multislice import auto_form
from mmphate_gpu.operators.tiles import tiles_bytes
from mmphate_gpu.runtime import memory

from ..conformance.forms import long_points, parts

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_auto_stores_what_fits(get_case):
    assert isinstance(affinity_of_points(get_case("walk")[0].points()).operator, SparseAffinity)


def test_auto_turns_lazy_where_memory_is_short(get_case, monkeypatch):
    points = get_case("walk")[0].points()
    stored = affinity_of_points(points, storage="sparse").operator
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", str(stored.nbytes))  # more than 40 % of the free memory
    assert isinstance(affinity_of_points(points).operator, LazyAffinity)
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", str(3 * stored.nbytes))
    assert isinstance(affinity_of_points(points).operator, SparseAffinity)


def test_sparse_that_does_not_fit_is_refused_with_numbers(get_case, monkeypatch):
    points = get_case("walk")[0].points()
    nnz = affinity_of_points(points, storage="sparse").operator.nnz
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", "1000")
    with pytest.raises(
        InputError,
        match=rf"{nnz:,} entries needs .* KiB but cpu has 1000 B available \(.*\); storage=\"lazy\"",
    ):
        affinity_of_points(points, storage="sparse")


def test_unknown_storage():
    with pytest.raises(InputError, match="storage='dense' is unknown; accepted: 'auto', 'sparse', 'tiles', 'lazy'"):
        affinity_of_points(torch.zeros(3, 2, 1, dtype=torch.float64), storage="dense")


def test_tiles_that_do_not_fit_are_refused_with_numbers(get_case, monkeypatch):
    points = get_case("walk")[0].points()
    operator = affinity_of_points(points, storage="tiles").operator
    assert isinstance(operator, TiledAffinity)
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", "1000")
    words = rf"{operator.layout.n_stored:,} tiles needs .* KiB but cpu has 1000 B available \(.*\); storage=\"lazy\""
    with pytest.raises(InputError, match=words):
        affinity_of_points(points, storage="tiles")


def test_auto_on_a_gpu(get_case, monkeypatch):
    """Tiles if they fit and have enough entries, else CSR if that fits, else neither."""
    lazy = affinity_of_points(get_case("walk")[0].points(), storage="lazy").operator
    tiles = tiles_bytes(lazy.interslice.tile_layout.n_stored)
    csr = affinity_of_points(get_case("walk")[0].points(), storage="sparse").operator.nbytes
    assert csr < tiles  # 30 slices in tiles of 128

    def with_memory(needed: int, device: torch.device = CUDA) -> str:
        monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", str(int(needed / choose_module.STORED_SHARE) + 1))
        monkeypatch.setattr(multislice_module, "available_bytes", lambda device: memory.memory_limit())
        return auto_form(lazy.intraslice, lazy.interslice, device)

    assert with_memory(tiles, CPU) == "sparse"  # a CPU has no tensor cores
    assert with_memory(tiles) == "sparse"  # Triton cannot compile for this GPU
    monkeypatch.setattr(choose_module.TRITON, "serves", lambda: True)
    assert [with_memory(needed) for needed in (tiles, tiles - 1000, csr, csr - 1000)] == [
        "tiles", "sparse", "sparse", "lazy",
    ]  # fmt: skip
    monkeypatch.setattr(choose_module, "TILES_FROM", 1.0)
    assert with_memory(tiles) == "sparse"


def test_the_engine_on_a_cpu_is_torch(get_case):
    lazy = affinity_of_points(get_case("walk")[0].points(), storage="lazy").operator
    assert lazy.engine == choose_engine(lazy.interslice, CPU) == "torch"


def test_far_points_are_not_for_the_fused_engine(monkeypatch):
    """float32 has too few digits for the distances of points so far from the mean of their unit."""
    _, interslice = parts(torch.float64, CPU, long_points())
    far = Interslice(interslice.unit_points, interslice.bandwidth / 1000, interslice.thresh)
    assert 1 < fused_radius(interslice) < FUSED_RADIUS < fused_radius(far)
    monkeypatch.setattr(choose_module.TRITON, "serves", lambda: True)
    monkeypatch.setattr(choose_module, "keops_serves", lambda: True)
    assert choose_engine(interslice, CUDA) == "fused"
    assert choose_engine(replace(interslice, masked=True), CUDA) == "torch"  # the others need every sample
    assert choose_engine(far, CUDA) == "keops"
    monkeypatch.setattr(choose_module, "keops_serves", lambda: False)
    assert choose_engine(far, CUDA) == "torch"
