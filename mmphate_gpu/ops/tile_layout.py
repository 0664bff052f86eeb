"""The pairs of points of a stack cut into square tiles, and which tiles hold pairs within reach."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from .chunks import row_chunks
from .point_tiles import TILE, in_tiles, kd_order
from .tile_entries import tile_reached

# Rows of tiles from which the share of active tiles is estimated, to choose an order of the points.
SAMPLED_ROWS = 16


class TileLayout(NamedTuple):
    """B sets of n points, each in some order and cut into t tiles, and the active pairs of tiles, as CSR.

    Tiles are counted over the stack: tile i of set b is number b t + i. The pairs of a row of tiles ascend, and with
    every pair its transpose is active too.
    """

    order: torch.Tensor  # (B, n) int64
    indptr: torch.Tensor  # (B t + 1,) int64
    diagonal: torch.Tensor  # (B t,) int64, the first pair of every row whose column is not below it
    columns: torch.Tensor  # (k,) int32

    @property
    def n_active(self) -> int:
        return self.columns.numel()

    @property
    def n_stored(self) -> int:
        """Pairs on the diagonal and above it; the others are their transposes."""
        return int((self.indptr[1:] - self.diagonal).sum())

    @property
    def nbytes(self) -> int:
        return sum(part.numel() * part.element_size() for part in self)


def tile_layout(points: torch.Tensor, reach: float, masked: bool = False) -> TileLayout:  # (B, n, p) float64
    """The layout whose active tiles hold every pair of different points of a set within ``reach``.

    For every set the order is that of the points or of a kd-tree, whichever gives fewer active tiles in sampled rows.
    ``masked`` points may lack features (`distances_by_difference`).
    O(B n^2 p) time at most: pairs of tiles whose bounding boxes are too far apart are left out. Deterministic.
    """
    n_sets = points.shape[0]
    orders, shares = _judged_orders(points, reach, SAMPLED_ROWS, masked)
    order = orders[shares.argmin(0), torch.arange(n_sets, device=points.device)]
    tiled = in_tiles(points, order, torch.nan)
    upper = _near_boxes(tiled, reach).triu_()
    active = _reached(tiled, upper, reach, masked)
    active |= active.mT.clone()
    counts = active.sum(2).view(-1)
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    diagonal = indptr[:-1] + active.tril(-1).sum(2).view(-1)
    first = torch.arange(n_sets, device=points.device) * active.shape[1]
    sets, _, column = torch.nonzero(active, as_tuple=True)
    return TileLayout(order, indptr, diagonal, (first[sets] + column).to(torch.int32))


def active_share(points: torch.Tensor, reach: float, n_rows: int, masked: bool = False) -> float:  # (B, n, p) float64
    """The share of tiles that are active in `tile_layout`, from ``n_rows`` rows of tiles of every set.

    It is exact if these are all rows. O(B n_rows TILE n p) time at most. Deterministic.
    """
    least = _judged_orders(points, reach, n_rows, masked)[1].amin(0)
    return float(least.mean())


def _judged_orders(points: torch.Tensor, reach: float, n_rows: int, masked: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Both orders of the points, (2, B, n) int64, and every set's share of active tiles in each, (2, B) float64."""
    n_sets, n, _ = points.shape
    orders = torch.stack([torch.arange(n, device=points.device).expand(n_sets, n), kd_order(points, masked)])
    tiled = (in_tiles(points, order, torch.nan) for order in orders)
    return orders, torch.stack([_sampled_share(points, reach, n_rows, masked) for points in tiled])


def _near_boxes(tiled: torch.Tensor, reach: float) -> torch.Tensor:  # (B, t, TILE, p) -> (B, t, t) bool
    """Pairs of tiles whose bounding boxes come within ``reach``, or slightly farther.

    The box of a tile has no bounds along a feature that some of its points lack. A distance is at least that over the
    other features, because its scale p / count is at least 1. A place without any feature is far from everything.
    """
    nothing = tiled.isnan()
    lacking = (nothing & ~nothing.all(3, keepdim=True)).any(2)
    low = tiled.masked_fill(nothing, torch.inf).amin(2).masked_fill_(lacking, -torch.inf)
    high = tiled.masked_fill(nothing, -torch.inf).amax(2).masked_fill_(lacking, torch.inf)
    squared = tiled.new_zeros(*low.shape[:2], low.shape[1])
    for k in range(low.shape[2]):
        gap = low[:, :, None, k] - high[:, None, :, k]
        squared += torch.maximum(gap, gap.mT).clamp_min_(0).square_()
    return squared <= (reach * (1 + 1e-9)) ** 2


def _sampled_share(tiled: torch.Tensor, reach: float, n_rows: int, masked: bool) -> torch.Tensor:  # (B,) float64
    """The share of active tiles of every set in a sample of its rows of tiles."""
    near = _near_boxes(tiled, reach)
    rows = torch.arange(0, near.shape[1], -(-near.shape[1] // n_rows), device=near.device)
    sampled = torch.zeros_like(near).index_copy_(1, rows, near[:, rows])
    return _reached(tiled, sampled, reach, masked).sum((1, 2)).double() / (len(rows) * near.shape[2])


def _reached(
    tiled: torch.Tensor, candidates: torch.Tensor, reach: float, masked: bool
) -> torch.Tensor:  # (B, t, t) bool, both
    """The pairs of tiles among ``candidates`` that hold a pair of points within ``reach``."""
    pairs = torch.nonzero(candidates.view(-1, candidates.shape[2]))
    n_rows = candidates.shape[1]
    row, column = pairs[:, 0], pairs[:, 0] // n_rows * n_rows + pairs[:, 1]
    reached = torch.zeros_like(candidates)
    reached[candidates] = tile_reached(tiled.flatten(0, 1), row, column, reach, masked)
    return reached


def row_of_tile(indptr: torch.Tensor, part: slice) -> torch.Tensor:  # -> (k,) int64
    """The row of tiles of every active pair of ``part``."""
    tiles = torch.arange(part.start, part.stop, device=indptr.device)
    return torch.searchsorted(indptr.contiguous(), tiles, right=True) - 1


def stored_pairs(layout: TileLayout) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The pairs on the diagonal and above it, row by row, and for every active pair which of them it is, or mirrors.

    Returns
    -------
    rows, columns : (n_stored,) int64
    slots : (n_active,) int32
    """
    rows, columns = row_of_tile(layout.indptr, slice(0, layout.n_active)), layout.columns.long()
    above, below = columns >= rows, torch.nonzero(columns < rows)[:, 0]
    slots = above.cumsum(0) - 1
    # Pairs below the diagonal, ordered by column and then by row, mirror the pairs above it in their order.
    transposed = below[(columns[below] * layout.diagonal.numel() + rows[below]).argsort()]
    slots[transposed] = slots[columns > rows]
    return rows[above], columns[above], slots.to(torch.int32)


def point_tiles(
    layout: TileLayout, points: torch.Tensor, filling: float | None
) -> torch.Tensor:  # (B, n, p) -> (B t, TILE, p)
    """The points of every tile; places without a point hold ``filling``, or the last point if that is None."""
    return in_tiles(points, layout.order, filling).flatten(0, 1)


def sum_of_tiles(
    entries: Callable[[slice], torch.Tensor],  # active pairs -> (k, TILE, TILE) float32
    indptr: torch.Tensor,
    columns: torch.Tensor,
    block: torch.Tensor,  # (r, TILE, C) half
) -> torch.Tensor:  # (r, TILE, C) float32
    """For every row of tiles the sum of ``entries @ block[column]`` over its active pairs, in float32."""
    out = torch.zeros(block.shape, dtype=torch.float32, device=block.device)
    for part in row_chunks(columns.numel(), TILE * max(TILE, block.shape[2])):
        products = torch.bmm(entries(part), block[columns[part]].float())
        rows, lengths = torch.unique_consecutive(row_of_tile(indptr, part), return_counts=True)
        out[rows] += torch.segment_reduce(products, "sum", lengths=lengths, axis=0)
    return out
