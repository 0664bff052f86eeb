"""The matrix-free form for tensor cores: entries are made tile by tile, inside the kernel that multiplies them."""

from __future__ import annotations

from functools import cached_property

import torch

from ..affinities import Interslice
from ..ops.gaussian_product import gaussian_product, points_by_feature, scaled_limit, scaled_points
from ..ops.tile_block import product_by_tiles
from ..ops.tile_layout import point_tiles
from .exact_rows import ExactRows

# Points farther than this from the mean of their unit, in the scale of `scaled_points`, leave float32 too few digits
# for their distances: entries would be off by more than 6e-5, a quarter of their rounding to half.
FUSED_RADIUS = 512


def fused_radius(interslice: Interslice) -> float:
    """The largest distance of a slice from the mean of its unit, in the scale of `scaled_points`."""
    return float(scaled_points(interslice.unit_points, interslice.bandwidth).norm(dim=2).max())


class LazyFusedAffinity(ExactRows):
    """Products in half precision with float32 sums, whatever the dtype: accurate to about 5e-4 of a column's norm.

    Pairs at the cut are decided in float32. With exact degrees the spectrum of diag(d)^-1/2 K diag(d)^-1/2 would exceed
    1 by the rounding, so degrees come from the product too.
    """

    storage = "lazy"
    engine = "fused"

    @property
    def nbytes(self) -> int:  # type: ignore[override]
        cached = vars(self).get("_tiles", ())[:2]
        return super().nbytes + sum(part.nbytes for part in cached if part is not None)

    @cached_property
    def _tiles(self) -> tuple[torch.Tensor, torch.Tensor | None, float]:
        """The first arguments of `gaussian_product`; later products then read no number from the GPU."""
        points = scaled_points(self.interslice.unit_points, self.interslice.bandwidth)
        # A tile is filled up with its last point. Other points would make it wide, and its distances cost more then.
        tiles = point_tiles(self.interslice.tile_layout, points, None)
        return *points_by_feature(tiles), scaled_limit(self.interslice.reach, float(self.interslice.bandwidth))

    def _matmul(self, block: torch.Tensor) -> torch.Tensor:
        return product_by_tiles(self.interslice.tile_layout, block, self.intraslice, self._multiply)

    def _multiply(self, halves: torch.Tensor) -> torch.Tensor:
        layout = self.interslice.tile_layout
        return gaussian_product(*self._tiles, layout.indptr, layout.columns, halves)
