"""The matrix-free form: interslice affinities are made anew in every product and never stored."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import torch

from ..errors import InputError, check_choice
from ..ops import csr as csr_ops
from ..ops.csr import Csr
from ..ops.csr_matmul import matmul
from ..ops.gaussian_product import gaussian_product, points_by_feature, scaled_limit, scaled_points
from ..ops.landmark_aggregate import aggregate
from ..ops.launch.twins import TRITON
from ..ops.radius_affinity import cut_distance, radius_counts
from ..ops.tile_block import in_node_order, product_by_tiles
from ..ops.tile_layout import TileLayout, point_tiles, tile_layout
from ..runtime.isolation import isolated
from ..runtime.keops import KeopsError, give_up_keops, keops, keops_serves
from ..runtime.memory import available_bytes, check_fits
from .assemble import assemble, assembled_bytes, assembled_nnz
from .choose import suits_half
from .protocol import AffinityOperator

LAZY_ENGINES = ("auto", "torch", "keops", "fused")
# Points farther than this from the mean of their unit, in the scale of `scaled_points`, leave float32 too few digits
# for their distances: entries of the fused product would be off by more than 6e-5, a quarter of their rounding to half.
FUSED_RADIUS = 512
# Entries of the rows made at a time: a sixteenth of them all, so that what is held at once is small beside the sparse
# form; within limits below which the calls would cost more than the entries, and above which nothing is gained.
SHARE, FEWEST, MOST = 16, 1 << 18, 1 << 24
# On a GPU every chunk costs some waits for the host and a pass over all points. So a chunk has as many entries as a
# share of the free memory holds; ENTRY_BYTES counts an entry, the row offsets of its product, and its place.
ROOM_SHARE, ENTRY_BYTES, MOST_ON_GPU = 16, 26, 1 << 28


def entries_at_once(nnz: float, room: int | None = None) -> int:
    """Entries of the rows that are made at a time; ``room`` is the number of free bytes of the GPU, None on a CPU."""
    few = min(MOST, max(FEWEST, int(nnz) // SHARE))
    return few if room is None else max(few, min(MOST_ON_GPU, room // (ROOM_SHARE * ENTRY_BYTES)))


class _FusedTiles(NamedTuple):
    """What the products of the "fused" engine read beside the layout (see `gaussian_product`)."""

    points: torch.Tensor  # (M T, p, TILE) float32
    centers: torch.Tensor | None  # (M T, p) float32
    limit: float


class LazyAffinity(AffinityOperator):
    """Intraslice entries stored (they are few), interslice entries computed from the points when needed.

    Entries, groups' sums (`aggregate`) and, but for the "fused" engine, products and degrees are exact: the same
    entries, decided by the same float64 distances, as the sparse form; with the "torch" engine its results have the
    same bits. Memory is the points, the intraslice part and one chunk of rows at a time; a product costs the search
    O(M S^2 D) and the entries O(nnz C).

    Parameters
    ----------
    unit_points : (M, S, D) float64
    bandwidth : () float64 tensor
    intraslice : Csr of S*M rows and M columns
    engine : {"auto", "torch", "keops", "fused"}
        What multiplies: "torch" makes the rows of a few slices at a time as the sparse form has them; "keops" fuses
        distances and product; "fused" does so in half precision with float32 sums, for the tensor cores of a GPU:
        products are accurate to about 5e-4 of a column's norm, whatever their dtype, and pairs at the cut are decided
        in float32. "auto" is "fused" on CUDA where Triton serves and the points lie close enough, else KeOps where
        that serves; "torch" elsewhere.
    """

    def __init__(
        self,
        unit_points: torch.Tensor,
        bandwidth: torch.Tensor,
        intraslice: Csr,
        *,
        thresh: float,
        dtype: torch.dtype,
        engine: str = "auto",
    ) -> None:
        check_choice("engine", engine, LAZY_ENGINES)
        self.unit_points, self.bandwidth, self.thresh = unit_points, bandwidth, thresh
        self.intraslice = intraslice._replace(values=intraslice.values.to(dtype))
        self.n_units, self.n_slices, _ = unit_points.shape
        n_nodes = self.n_units * self.n_slices
        if intraslice.shape != (n_nodes, self.n_units):
            raise InputError(f"intraslice has shape {intraslice.shape}; accepted: {(n_nodes, self.n_units)}")
        self.shape, self.dtype, self.device = (n_nodes, n_nodes), dtype, unit_points.device
        self._counts: torch.Tensor | None = None
        self._layout: TileLayout | None = None
        self._fused: _FusedTiles | None = None
        self._engine_is_auto = engine == "auto"
        self.engine = self._best_engine() if self._engine_is_auto else engine

    def _best_engine(self) -> str:
        if self.device.type != "cuda":
            return "torch"
        if suits_half(self.thresh) and TRITON.serves() and self.fused_radius() <= FUSED_RADIUS:
            return "fused"
        return "keops" if keops_serves() else "torch"

    @property
    def nbytes(self) -> int:  # type: ignore[override]
        parts = [self.unit_points, *self.intraslice[:3], *(self._layout or []), self._counts, *(self._fused or [])[:2]]
        return sum(part.numel() * part.element_size() for part in parts if part is not None)

    @cached_property
    def reach(self) -> float:
        """The largest distance between slices of a unit with an entry."""
        return float(cut_distance(self.bandwidth, decay=2, thresh=self.thresh))

    def interslice_counts(self) -> torch.Tensor:  # (M, S) int64
        """Interslice entries per row, counted at first use; what `assemble` needs to know before it allocates."""
        if self._counts is None:
            self._counts = radius_counts(self.unit_points, self.reach)
        return self._counts

    def tile_layout(self) -> TileLayout:
        """The tiles that hold interslice entries, found at first use; what tells the bytes of the tiled form."""
        if self._layout is None:
            self._layout = tile_layout(self.unit_points, self.reach)
        return self._layout

    def fused_radius(self) -> float:
        """The largest distance of a slice from the mean of its unit, in the scale of `scaled_points`."""
        return float(scaled_points(self.unit_points, self.bandwidth).norm(dim=2).max())

    def assembled(self, slices: slice | None = None) -> Csr:
        """The rows of ``slices`` (all) with their entries in node order."""
        parts = (self.intraslice, self.interslice_counts(), self.unit_points, float(self.bandwidth), self.reach)
        return assemble(*parts, dtype=self.dtype, slices=slices)

    def _chunks(self) -> Iterator[tuple[slice, Csr]]:
        """All rows, some whole slices at a time: (nodes, rows)."""
        own = (self.intraslice.indptr[1:] - self.intraslice.indptr[:-1]).long()
        per_slice = self.interslice_counts().sum(0) + own.view(self.n_slices, self.n_units).sum(1)
        ends = per_slice.cumsum(0).cpu()  # one copy: reading single numbers from a GPU waits for each of them
        room = available_bytes(self.device) if self.device.type == "cuda" else None
        at_once = entries_at_once(int(ends[-1]), room)
        first = 0
        while first < self.n_slices:
            before = int(ends[first - 1]) if first else 0
            last = max(first + 1, int(torch.searchsorted(ends, before + at_once, right=True)))
            yield slice(first * self.n_units, last * self.n_units), self.assembled(slice(first, last))
            first = last

    def _matmul(self, block: torch.Tensor) -> torch.Tensor:
        if self.engine == "torch":
            out = torch.empty_like(block)
            for nodes, rows in self._chunks():
                out[nodes] = matmul(rows, block, interleave=self.n_units)
            return out
        return self._keops_or_torch_product(block) if self.engine == "keops" else self._fused_product(block)

    def _keops_or_torch_product(self, block: torch.Tensor) -> torch.Tensor:  # (N, C) -> (N, C)
        try:
            return self._keops_product(block)
        except KeopsError as error:
            if not self._engine_is_auto:
                raise
            give_up_keops(error)
            self.engine = "torch"
            return self._matmul(block)

    def _fused_product(self, block: torch.Tensor) -> torch.Tensor:  # (N, C) -> (N, C)
        layout, tiles = self.tile_layout(), self._fused_tiles()
        return product_by_tiles(
            layout,
            block,
            self.intraslice,
            lambda halves: gaussian_product(*tiles, layout.indptr, layout.columns, halves),
        )

    def _fused_tiles(self) -> _FusedTiles:
        """Made at the first product: what was decided on the host is decided once, and no later product waits."""
        if self._fused is None:
            # Filled with points that are there: others would make a tile wide, whose distances then cost more.
            points = point_tiles(self.tile_layout(), scaled_points(self.unit_points, self.bandwidth), None)
            self._fused = _FusedTiles(*points_by_feature(points), scaled_limit(self.reach, float(self.bandwidth)))
        return self._fused

    def _keops_product(self, block: torch.Tensor) -> torch.Tensor:  # (N, C) -> (N, C)
        points, reach, bandwidth = self.unit_points.contiguous(), self.reach, float(self.bandwidth)
        by_unit = block.view(self.n_slices, self.n_units, -1).transpose(0, 1)
        values = by_unit.to(points.dtype)
        with keops(purpose='engine="keops"') as module:
            x, y = module.LazyTensor(points[:, :, None, :]), module.LazyTensor(points[:, None, :, :])
            # Differences first, the bandwidth after: points scaled by a small one would carry its rounding into them.
            squared = ((x - y) ** 2).sum(-1)
            affinity = (reach - squared.sqrt()).step() * (squared * (-1 / bandwidth**2)).exp()
            product = (affinity * module.LazyTensor(values[:, None, :, :].contiguous())).sum(dim=2)
        # The sum runs over all pairs; a slice is no neighbour of its own, and its affinity to itself is exactly 1.
        product = (product - values).to(block.dtype).transpose(0, 1).reshape(block.shape)
        return product.add_(matmul(self.intraslice_in_node_order(), block))

    def intraslice_in_node_order(self) -> Csr:
        """The intraslice part as an N x N CSR: unit columns become node columns."""
        return in_node_order(self.intraslice)

    @isolated()
    def row_sums(self) -> torch.Tensor:
        """K @ 1, the degrees. Those of the fused engine come from its own product, so that the rows of D^-1 K as it is
        applied sum to 1: with exact degrees the spectrum of D^-1/2 K D^-1/2 would reach beyond 1 by the rounding.
        """
        if self.engine == "fused":
            return self._matmul(torch.ones(self.shape[0], 1, dtype=torch.float64, device=self.device))[:, 0]
        return torch.cat([csr_ops.row_sums(rows) for _, rows in self._chunks()])

    @isolated()
    def aggregate(self, labels: torch.Tensor, n: int) -> Csr:
        return csr_ops.stack_rows([aggregate(rows, labels, n) for _, rows in self._chunks()])

    @isolated()
    def to_csr(self) -> Csr:
        nnz = assembled_nnz(self.intraslice, self.interslice_counts())
        needed = assembled_bytes(nnz, self.shape[0], self.dtype)
        check_fits(f"the affinity with {nnz:,} entries", needed, self.device, remedy="the lazy form itself needs none")
        return self.assembled()
