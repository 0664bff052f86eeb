"""Products of stored tiles with a thin dense block, in half precision with float32 sums."""

from __future__ import annotations

import torch

from .launch.twins import triton_twin, twins
from .point_tiles import TILE
from .tile_layout import row_of_tile, sum_of_tiles


@twins("(Tensor tiles, Tensor slots, Tensor indptr, Tensor diagonal, Tensor columns, Tensor block) -> Tensor")
def tile_matmul(
    tiles: torch.Tensor,  # (n, TILE, TILE) half
    slots: torch.Tensor,  # (k,) int32
    indptr: torch.Tensor,  # (r + 1,) int64
    diagonal: torch.Tensor,  # (r,) int64
    columns: torch.Tensor,  # (k,) int32
    block: torch.Tensor,  # (r, TILE, C) half
) -> torch.Tensor:  # (r, TILE, C) float32
    """For every row of tiles i the sum of tiles[slots[j]] @ block[columns[j]] over indptr[i] <= j < indptr[i + 1].

    Tiles of j < diagonal[i] are transposed: of a symmetric matrix each tile is stored once. Products of halves are
    exact in float32, and only the order of the sums differs between the versions. O(k TILE^2 C) time; reads
    2 k TILE^2 bytes. Deterministic.
    """

    def entries(part: slice) -> torch.Tensor:
        stored = tiles[slots[part]].float()
        pairs = torch.arange(part.start, part.stop, device=tiles.device)
        transposed = pairs < diagonal[row_of_tile(indptr, part)]
        stored[transposed] = stored[transposed].mT
        return stored

    return sum_of_tiles(entries, indptr, columns, block)


@triton_twin(tile_matmul, rehearse=lambda device: [_rehearsal(device)])
def tile_matmul_triton(tiles, slots, indptr, diagonal, columns, block):
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
