"""Stored tiles times a thin dense block, in half precision with float32 sums."""

from __future__ import annotations

import torch

from .launch.twins import triton_twin, twins
from .point_tiles import TILE
from .tile_layout import row_of_tile, sum_of_tiles


@twins("(Tensor tiles, Tensor slots, Tensor indptr, Tensor diagonal, Tensor columns, Tensor block) -> Tensor")
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


@triton_twin(tile_matmul, rehearse=lambda device: [_rehearsal(device)])
def tile_matmul_triton(
    tiles: torch.Tensor,
    slots: torch.Tensor,
    indptr: torch.Tensor,
    diagonal: torch.Tensor,
    columns: torch.Tensor,
    block: torch.Tensor,
) -> torch.Tensor:
    from .triton.products import DEPTH, OPTIONS, STAGES, panels, tile_matmul_kernel

    block, (padded, out), panel, grid = panels(block)
    tensors = (part.contiguous() for part in (tiles, slots, indptr, diagonal, columns))
    sizes = {"TILE": TILE, "PANEL": panel, "DEPTH": DEPTH, "STAGES": STAGES}
    with torch.cuda.device_of(block):
        tile_matmul_kernel[grid](*tensors, block, padded, block.shape[2], **sizes, **OPTIONS)
    return out


def _rehearsal(device: torch.device) -> tuple[torch.Tensor, ...]:
    from .triton.products import WIDEST_PANEL

    tiles = torch.zeros(1, TILE, TILE, dtype=torch.float16, device=device)
    block = torch.zeros(1, TILE, WIDEST_PANEL, dtype=torch.float16, device=device)
    first = torch.zeros(1, dtype=torch.int64, device=device)
    return tiles, first.int(), torch.arange(2, device=device), first, first.int(), block
