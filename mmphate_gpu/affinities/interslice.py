"""Affinities between the slices of one unit (step 5 of docs/method.md)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from ..ops.radius_affinity import cut_distance, radius_counts, radius_fill
from ..ops.tile_layout import TileLayout, tile_layout

DECAY = 2  # the exponent of the formula


@dataclass(frozen=True, eq=False)
class Interslice:
    """The affinity exp(-(d/eps)^2) of two slices of one unit, whose points are at distance d; eps is ``bandwidth``.

    An affinity below ``thresh`` is no entry, and neither is that of a slice with itself. The object holds what defines
    the entries, and makes those of some slices on request (`fill`).
    """

    unit_points: torch.Tensor  # (M, S, D) float64
    bandwidth: torch.Tensor  # () float64
    thresh: float
    masked: bool = False  # NaN is a missing sample: see `ops.distances.distances_by_difference`

    @cached_property
    def reach(self) -> float:
        """The largest distance of an entry."""
        return float(cut_distance(self.bandwidth, decay=DECAY, thresh=self.thresh))

    @cached_property
    def counts(self) -> torch.Tensor:  # (M, S) int64
        """Entries of every row. The first access searches all pairs."""
        return radius_counts(self.unit_points, self.reach, self.masked)

    @cached_property
    def tile_layout(self) -> TileLayout:
        """The tiles of 128 x 128 slices with an entry. The first access searches all pairs."""
        return tile_layout(self.unit_points, self.reach, self.masked)

    @property
    def nbytes(self) -> int:
        """Bytes of the points, and of the counts and the layout once they exist."""
        cached = [vars(self)[name] for name in ("counts", "tile_layout") if name in vars(self)]
        return sum(part.nbytes for part in [self.unit_points, *cached])

    def fill(
        self,
        slices: slice,
        indptr: torch.Tensor,  # (rows + 1,) int64
        gaps: torch.Tensor,  # (rows,) int64
        indices: torch.Tensor,  # (nnz,) int32 or int64
        values: torch.Tensor,  # (nnz,) float32 or float64
    ) -> torch.Tensor:  # (rows,) int64
        """Write the entries of ``slices`` into CSR rows in node order, and return where the gap of every row begins.

        A row has ``gaps`` places more than it has entries: they lie between the earlier slices and the later ones.
        """
        search = (self.unit_points, float(self.bandwidth), float(DECAY), self.reach)
        return radius_fill(*search, slices.start, slices.stop, indptr, gaps, indices, values, self.masked)
