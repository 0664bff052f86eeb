"""Stored tiles times a thin dense block, in half precision with float32 sums."""

from __future__ import annotations

import torch

from .launch.twins import TRITON, twins
from .tile_layout import row_of_tile, sum_of_tiles


@twins(
    "(Tensor tiles, Tensor slots, Tensor indptr, Tensor diagonal, Tensor columns, Tensor block) -> Tensor", cuda=TRITON
)
def tile_matmul(
    tiles: torch.Tensor,  # (m, TILE, TILE) half
    slots: torch.Tensor,  # (k,) int32
    indptr: torch.Tensor,  # (R + 1,) int64
    diagonal: torch.Tensor,  # (R,) int64
    columns: torch.Tensor,  # (k,) int32
    block: torch.Tensor,  # (R, TILE, C) half
) -> torch.Tensor:  # (R, TILE, C) float32
    """For every row of tiles r the sum of tiles[slots[t]] @ block[columns[t]], indptr[r] <= t < indptr[r + 1].

    Those of t < diagonal[r] are transposed: of a symmetric matrix each tile is stored once. Products of halves are
    exact in float32; only the order of the sums differs between the twins. O(k TILE^2 C) time, reads 2 k TILE^2 bytes.
    Deterministic.
    """

    def entries(part: slice) -> torch.Tensor:
        found = tiles[slots[part]].float()
        pairs = torch.arange(part.start, part.stop, device=tiles.device)
        transposed = pairs < diagonal[row_of_tile(indptr, part)]
        found[transposed] = found[transposed].mT
        return found

    return sum_of_tiles(entries, indptr, columns, block)
