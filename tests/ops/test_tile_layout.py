"""Which tiles a layout lists, and in which order it puts the points."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmphate_gpu.ops import tile_layout as tile_layout_module
from mmphate_gpu.ops.tile_layout import TILE, stored_pairs, tile_layout

LONG = 300  # points of a set: three tiles, the last one not full


def walk(device: torch.device) -> torch.Tensor:  # (3, LONG, 5) float64
    """Sets with tiles that are far apart; the last set is a curve that returns, for which the kd-tree is better."""
    steps = np.random.default_rng(0).normal(size=(LONG, 3, 5))
    points = torch.from_numpy(0.4 * np.cumsum(steps, axis=0)).transpose(0, 1).contiguous()
    points[2, :, 1:] = 0
    return points.to(device)


@pytest.mark.parametrize("order", ["time", "tree"])
def test_layout_holds_every_pair(device, order, monkeypatch):
    """In either order each pair within reach lies in a listed tile, and each listed tile holds such a pair."""
    points, reach = walk(device), 1.8
    monkeypatch.setattr(tile_layout_module, "SAMPLED_ROWS", 3)
    if order == "time":
        in_time = torch.arange(LONG, device=device).repeat(3, 1)
        monkeypatch.setattr(tile_layout_module, "kd_order", lambda *_: in_time)
    layout = tile_layout(points, reach)
    near = torch.cdist(points, points) <= reach
    expected = []
    for unit in range(3):
        assert torch.equal(layout.order[unit].sort().values, torch.arange(LONG, device=device))
        in_order = near[unit].fill_diagonal_(False)[layout.order[unit]][:, layout.order[unit]]
        in_order = torch.nn.functional.pad(in_order, (0, 3 * TILE - LONG) * 2)
        expected.append(in_order.view(3, TILE, 3, TILE).any(3).any(1))
    active = torch.zeros(9, 9, dtype=torch.bool, device=device)
    rows = torch.repeat_interleave(torch.arange(9, device=device), layout.indptr.diff())
    active[rows, layout.columns.long()] = True
    assert torch.equal(active, torch.block_diag(*expected).bool())
    above = torch.repeat_interleave(layout.diagonal, layout.indptr.diff()) <= torch.arange(layout.n_active).to(device)
    assert torch.equal(above, layout.columns >= rows)
    for slot, row, column in zip(stored_pairs(layout)[2].tolist(), rows.tolist(), layout.columns.tolist(), strict=True):
        assert [int(tile[slot]) for tile in stored_pairs(layout)[:2]] == sorted((row, column))
    assert 9 < layout.n_active < 27  # some are left out


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (2, 128, 3), (2, 129, 3), (3, 300, 2), (1, 2500, 1), (4, 1601, 5)], ids=str
)
def test_tree_by_levels_is_the_tree_span_by_span(shape, device):
    """The order is exactly that of sorting the halves one after the other, with ties."""
    points = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).cumsum(1).round()
    expected, spans = torch.arange(shape[1]).repeat(shape[0], 1), [(0, shape[1])]
    while spans:
        first, last = spans.pop()
        if last - first > TILE:
            for order, of_set in zip(expected, points, strict=True):
                coordinates = of_set[order[first:last]]
                along = coordinates[:, int((coordinates.amax(0) - coordinates.amin(0)).argmax())]
                order[first:last] = order[first:last][along.argsort(stable=True)]
            middle = first + -(-(last - first) // TILE) // 2 * TILE
            spans += [(first, middle), (middle, last)]
    assert torch.equal(tile_layout_module.kd_order(points.to(device)).cpu(), expected)


def test_layout_takes_the_better_order(device):
    """A set keeps its order if that gives fewer tiles; another set takes the order of the tree."""
    line = torch.arange(4.0 * TILE, dtype=torch.float64, device=device)[:, None]
    shuffled = line.flatten().view(TILE, 4).T.reshape(-1, 1)  # every tile spans the whole line
    layout = tile_layout(torch.stack([line, shuffled]), 4.5)
    assert torch.equal(layout.order[0], torch.arange(4 * TILE, device=device))
    leaves = shuffled.flatten()[layout.order[1]].view(4, TILE)
    assert torch.equal(leaves.sort(1).values.flatten(), line.flatten())
    assert layout.n_active == 2 * (4 + 2 * 3)  # a tile meets itself and its neighbors
