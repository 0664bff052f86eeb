"""Stored tiles times a thin dense block, in half precision with float32 sums."""

from __future__ import annotations

import torch

from .tile_layout import sum_of_tiles
from .twins import TRITON, twins


@twins("(Tensor tiles, Tensor indptr, Tensor columns, Tensor block) -> Tensor", cuda=TRITON)
def tile_matmul(
    tiles: torch.Tensor,  # (k, TILE, TILE) half
    indptr: torch.Tensor,  # (R + 1,) int64
    columns: torch.Tensor,  # (k,) int32
    block: torch.Tensor,  # (R, TILE, C) half
) -> torch.Tensor:  # (R, TILE, C) float32
    """For every row of tiles r the sum of tiles[t] @ block[columns[t]] over its tiles, indptr[r] <= t < indptr[r + 1].

    Products of halves are exact in float32; only the order of the sums differs between the twins. O(k TILE^2 C) time,
    reads 2 k TILE^2 bytes. Deterministic.
    """
    return sum_of_tiles(lambda part: tiles[part].float(), indptr, columns, block)
