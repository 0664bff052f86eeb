"""The form for GPUs: interslice affinities as dense tiles in half precision, empty ones left out."""

from __future__ import annotations

import torch

from ..ops import csr as csr_ops
from ..ops.chunks import row_chunks
from ..ops.csr import Csr
from ..ops.tile_block import product_by_tiles
from ..ops.tile_entries import TILE, tile_entries
from ..ops.tile_layout import point_tiles, stored_pairs
from ..ops.tile_matmul import tile_matmul
from ..runtime.isolation import isolated
from ..runtime.memory import check_fits
from .lazy import LazyAffinity
from .protocol import AffinityOperator


def tiles_bytes(n_stored: int) -> int:
    """Bytes of ``n_stored`` tiles."""
    return n_stored * TILE * TILE * torch.float16.itemsize


class TiledAffinity(AffinityOperator):
    """Interslice affinities of every unit in tiles of 128 x 128 slices, rounded to half; the intraslice part exact.

    They are symmetric: tiles on the diagonal and above it are stored, and read once more, transposed, for those below.
    Which entries there are is decided in float64, as in every form, but those below 6e-8 round to 0 (``thresh``
    is far above that if it is not lowered). Products round the block to half too and sum in
    float32, whatever their dtype: they are accurate to about 5e-4 of a column's norm. Degrees come from the same
    product, so that the rows of D^-1 K as it is applied sum to 1. `to_dense` gives the rounded entries, those that
    multiply; `aggregate` and `to_csr` give exact ones, made anew from the points that ``lazy`` holds. A product costs
    O(k 128^2 C) and reads 32 KiB for each of the k active tiles, of which about half are stored.

    Parameters
    ----------
    lazy : LazyAffinity
        The affinity to be stored. It stays in use, and in memory.

    Raises
    ------
    InputError
        The tiles do not fit; nothing has been allocated for them then.
    """

    def __init__(self, lazy: LazyAffinity) -> None:
        self.lazy, self.layout = lazy, lazy.tile_layout()
        self.shape, self.dtype, self.device = lazy.shape, lazy.dtype, lazy.device
        n_stored = self.layout.n_stored
        what, needed = f"the affinity in {n_stored:,} tiles", tiles_bytes(n_stored)
        check_fits(what, needed, self.device, remedy='storage="lazy" stores none of them')
        rows, columns, self.slots = stored_pairs(self.layout)
        points = point_tiles(self.layout, lazy.unit_points, torch.nan)
        self.tiles = tile_entries(points, rows, columns, float(lazy.bandwidth), lazy.reach)  # (n_stored, TILE, TILE)

    @property
    def nbytes(self) -> int:  # type: ignore[override]
        return self.lazy.nbytes + self.tiles.nbytes + self.slots.nbytes

    def _matmul(self, block: torch.Tensor) -> torch.Tensor:
        stored, (_, *pairs) = (self.tiles, self.slots), self.layout
        return product_by_tiles(
            self.layout, block, self.lazy.intraslice, lambda halves: tile_matmul(*stored, *pairs, halves)
        )

    @isolated()
    def row_sums(self) -> torch.Tensor:
        return self._matmul(torch.ones(self.shape[0], 1, dtype=torch.float64, device=self.device))[:, 0]

    def aggregate(self, labels: torch.Tensor, n: int) -> Csr:
        return self.lazy.aggregate(labels, n)

    def to_csr(self) -> Csr:
        return self.lazy.to_csr()

    @isolated()
    def to_dense(self) -> torch.Tensor:
        dense = csr_ops.to_torch(self.lazy.intraslice_in_node_order()).to_dense()
        nodes = torch.arange(self.shape[0], device=self.device).view(self.lazy.n_slices, self.lazy.n_units).T
        nodes = point_tiles(self.layout, nodes[..., None], 0)[..., 0]  # (M T, TILE)
        rows, columns, _ = stored_pairs(self.layout)
        for part in row_chunks(len(self.tiles), TILE * TILE):
            tile, i, j = torch.nonzero(self.tiles[part], as_tuple=True)
            row, column = nodes[rows[part][tile], i], nodes[columns[part][tile], j]
            dense[row, column] = dense[column, row] = self.tiles[part][tile, i, j].to(self.dtype)
        return dense
