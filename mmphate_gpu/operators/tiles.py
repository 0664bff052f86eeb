"""The form for GPUs: interslice entries as dense tiles in half precision, without the empty tiles."""

from __future__ import annotations

import torch

from ..affinities import Interslice
from ..ops import csr as csr_ops
from ..ops.chunks import row_chunks
from ..ops.csr import Csr
from ..ops.point_tiles import TILE
from ..ops.tile_block import in_node_order, product_by_tiles
from ..ops.tile_entries import tile_entries
from ..ops.tile_layout import point_tiles, stored_pairs
from ..ops.tile_matmul import tile_matmul
from ..runtime.isolation import isolated
from ..runtime.memory import check_fits
from .exact_rows import ExactRows


def tiles_bytes(n_stored: int) -> int:
    """Bytes of ``n_stored`` tiles."""
    return n_stored * TILE * TILE * torch.float16.itemsize


class TiledAffinity(ExactRows):
    """Interslice entries of every unit in tiles of 128 x 128 slices, rounded to half; the intraslice part is exact.

    K is symmetric: only tiles on the diagonal and above it are stored, and a product reads each of these again,
    transposed. Which entries exist is decided in float64, as in every form. Those below 6e-8 round to 0, but the
    default ``thresh`` is far above.

    Products round the block to half too and sum in float32, whatever its dtype: they are accurate to about 5e-4 of a
    column's norm. Degrees come from the same product, so that the rows of diag(d)^-1 K as it is applied sum to 1.
    `to_dense` gives the rounded entries, which multiply; `aggregate` and `to_csr` give exact ones. A product costs
    O(k 128^2 C) and reads 32 KiB for each of the k active tiles, of which about half are stored.

    Raises
    ------
    InputError
        The tiles do not fit in memory. Nothing has been allocated for them then.
    """

    storage = "tiles"

    def __init__(self, intraslice: Csr, interslice: Interslice) -> None:
        super().__init__(intraslice, interslice)
        self.layout = interslice.tile_layout
        n_stored = self.layout.n_stored
        what, size = f"the affinity in {n_stored:,} tiles", tiles_bytes(n_stored)
        check_fits(what, size, self.device, remedy='storage="lazy" stores none of them')
        rows, columns, self.slots = stored_pairs(self.layout)
        points = point_tiles(self.layout, interslice.unit_points, torch.nan)
        numbers = float(interslice.bandwidth), interslice.reach, interslice.masked
        self.tiles = tile_entries(points, rows, columns, *numbers)  # (n_stored, TILE, TILE)

    @property
    def nbytes(self) -> int:  # type: ignore[override]
        return super().nbytes + self.tiles.nbytes + self.slots.nbytes

    def _matmul(self, block: torch.Tensor) -> torch.Tensor:
        return product_by_tiles(self.layout, block, self.intraslice, self._multiply)

    def _multiply(self, halves: torch.Tensor) -> torch.Tensor:
        _, *pairs = self.layout
        return tile_matmul(self.tiles, self.slots, *pairs, halves)

    @isolated()
    def to_dense(self) -> torch.Tensor:
        dense = csr_ops.to_torch(in_node_order(self.intraslice)).to_dense()
        nodes = torch.arange(self.shape[0], device=self.device).view(self.n_slices, self.n_units).T
        nodes = point_tiles(self.layout, nodes[..., None], 0)[..., 0]  # (tiles, TILE)
        rows, columns, _ = stored_pairs(self.layout)
        for part in row_chunks(len(self.tiles), TILE * TILE):
            tile, i, j = torch.nonzero(self.tiles[part], as_tuple=True)
            row, column = nodes[rows[part][tile], i], nodes[columns[part][tile], j]
            dense[row, column] = dense[column, row] = self.tiles[part][tile, i, j].to(self.dtype)
        return dense
