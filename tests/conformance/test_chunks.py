"""Rows made a few at a time: the results of all rows at once, to the last bit where the same ops make them."""

from __future__ import annotations

import pytest
import torch

from mmphate_gpu.affinities import interslice as interslice_module
from mmphate_gpu.operators import assemble as assemble_module
from mmphate_gpu.operators import tiles as tiles_module
from mmphate_gpu.operators.assemble import row_blocks
from mmphate_gpu.operators.exact_rows import ExactRows
from mmphate_gpu.ops import csr as csr_ops
from mmphate_gpu.ops import csr_matmul, landmark_aggregate, radius_affinity
from mmphate_gpu.ops import tile_layout as tile_layout_module
from mmphate_gpu.ops.launch.twins import PORTABLE

from .forms import GROUPS, N_NODES, N_SLICES, TOLERANCE, assert_near, make, right_hand_side


@pytest.mark.parametrize("portable", [False, True], ids=["twins", "portable"])
@pytest.mark.parametrize("entries_at_once", [1, 700])
def test_small_chunks_change_nothing(operator, dtype, device, entries_at_once, portable, monkeypatch):
    """One slice, or a few, at a time, and blocks of a few rows, as at full size; by the portable ops too."""
    block = right_hand_side(N_NODES, 16, dtype=dtype, device=device)
    labels = GROUPS["random"]().to(device)
    expected = operator @ block, operator.row_sums(), csr_ops.to_torch(operator.aggregate(labels, 9)).to_dense()
    entries = operator.to_dense()
    few_at_a_time(monkeypatch, entries_at_once)
    if portable:
        by_portable_ops(monkeypatch)
    if isinstance(operator, ExactRows) and entries_at_once == 1:
        assert len(list(row_blocks(operator.intraslice, operator.interslice))) == N_SLICES
    actual = operator @ block, operator.row_sums(), csr_ops.to_torch(operator.aggregate(labels, 9)).to_dense()
    for part, expected_part in zip(actual, expected, strict=True):
        assert_near(part, expected_part, TOLERANCE[dtype])
    again = operator.to_dense()
    assert torch.equal(entries > 0, again > 0)
    if not portable:
        assert torch.equal(entries, again)
    # An exponential of torch's and one of the twins' may round apart. Measured: 2.2e-16 and 6e-8.
    assert_near(again, entries, 1e-15 if dtype == torch.float64 else 1.2e-7)


def few_at_a_time(monkeypatch, entries: int) -> None:
    monkeypatch.setattr(assemble_module, "entries_at_once", lambda *_: entries)
    pairs, few_rows = radius_affinity.pair_chunks, lambda rows, columns, *_: five_rows(rows)
    monkeypatch.setattr(
        radius_affinity, "pair_chunks", lambda sets, points, **rows: pairs(sets, points, 5 * N_SLICES, **rows)
    )
    for module in (assemble_module, landmark_aggregate, csr_ops, tile_layout_module, tiles_module):
        monkeypatch.setattr(module, "row_chunks", few_rows)


def five_rows(n_rows: int):
    return (slice(start, min(start + 5, n_rows)) for start in range(0, n_rows, 5))


def by_portable_ops(monkeypatch) -> None:
    """As without the native library and CuPy."""
    for module, name in (
        (interslice_module, "radius_counts"),
        (interslice_module, "radius_fill"),
        (csr_matmul, "csr_matmul"),
        (landmark_aggregate, "landmark_aggregate"),
    ):
        monkeypatch.setattr(module, name, PORTABLE[name])


@pytest.mark.parametrize("width", [1, 3, 16, 40])
@pytest.mark.parametrize("entries_at_once", [1, 700, 10**6])
def test_lazy_has_the_bits_of_sparse(dtype, device, width, entries_at_once, monkeypatch):
    """The same rows, made anew some slices at a time: products, degrees and aggregates to the last bit."""
    stored, anew = make("sparse", dtype, device), make("lazy", dtype, device)
    monkeypatch.setattr(assemble_module, "entries_at_once", lambda *_: entries_at_once)
    labels = GROUPS["random"]().to(device)
    for block_dtype in (torch.float32, torch.float64):
        block = right_hand_side(N_NODES, width, dtype=block_dtype, device=device)
        assert torch.equal(anew.product(block), stored.product(block))
    assert torch.equal(anew.row_sums(), stored.row_sums())
    parts = zip(anew.aggregate(labels, 9)[:3], stored.aggregate(labels, 9)[:3], strict=True)
    assert all(torch.equal(part, stored_part) for part, stored_part in parts)


def test_int64_offsets_give_the_same_matrix(dtype, device, monkeypatch):
    """The path that more than 2^31 entries take, forced by a lower threshold."""
    expected = make("sparse", dtype, device).csr
    assert expected.indptr.dtype == expected.indices.dtype == torch.int32
    monkeypatch.setattr(csr_ops, "index_dtype", lambda nnz, columns: torch.int64)
    actual = make("lazy", dtype, device).to_csr()
    assert actual.indptr.dtype == actual.indices.dtype == torch.int64
    for part, expected_part in zip(actual[:3], expected[:3], strict=True):
        assert torch.equal(part, expected_part.to(part.dtype))
