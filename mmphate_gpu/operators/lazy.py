"""The matrix-free form: interslice affinities are made anew in every product and never stored."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .._optional import require_keops, why_no_keops
from ..ops import csr as csr_ops
from ..ops.csr import Csr
from ..ops.csr_matmul import matmul
from ..ops.landmark_aggregate import aggregate
from ..ops.memory import check_fits
from ..ops.radius_affinity import cut_distance, radius_counts
from ..params import InputError, check_choice
from .assemble import assemble, assembled_bytes, assembled_nnz
from .protocol import AffinityOperator

LAZY_ENGINES = ("auto", "torch", "keops")
# Entries of the rows made at a time: a sixteenth of them all, so that what is held at once is small beside the sparse
# form; within limits below which the calls would cost more than the entries, and above which nothing is gained.
SHARE, FEWEST, MOST = 16, 1 << 18, 1 << 24


class LazyAffinity(AffinityOperator):
    """Intraslice entries stored (they are few), interslice entries computed from the points when needed.

    Exact: the same entries, decided by the same float64 distances, as the sparse form; with the "torch" engine its
    results have the same bits. Memory is the points, the intraslice part and one chunk of rows at a time; a product
    costs the search O(M S^2 D) and the entries O(nnz C).

    Parameters
    ----------
    unit_points : (M, S, D) float64
    bandwidth : () float64 tensor
    intraslice : Csr of S*M rows and M columns
    engine : {"auto", "torch", "keops"}
        What multiplies: "torch" makes the rows of a few slices at a time as the sparse form has them; "keops" fuses
        distances and product. "auto" is KeOps on CUDA where it can serve, torch elsewhere.
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
        self.unit_points, self.bandwidth, self.intraslice, self.thresh = unit_points, bandwidth, intraslice, thresh
        self.n_units, self.n_slices, _ = unit_points.shape
        n_nodes = self.n_units * self.n_slices
        if intraslice.shape != (n_nodes, self.n_units):
            raise InputError(f"intraslice has shape {intraslice.shape}; accepted: {(n_nodes, self.n_units)}")
        self.shape, self.dtype, self.device = (n_nodes, n_nodes), dtype, unit_points.device
        if engine == "auto":
            engine = "keops" if self.device.type == "cuda" and why_no_keops() is None else "torch"
        self.engine = engine
        self._counts: torch.Tensor | None = None

    @property
    def nbytes(self) -> int:  # type: ignore[override]
        parts = [self.unit_points, *self.intraslice[:3], *([] if self._counts is None else [self._counts])]
        return sum(part.numel() * part.element_size() for part in parts)

    def interslice_counts(self) -> torch.Tensor:  # (M, S) int64
        """Interslice entries per row, counted at first use; what `assemble` needs to know before it allocates."""
        if self._counts is None:
            reach = float(cut_distance(self.bandwidth, decay=2, thresh=self.thresh))
            self._counts = radius_counts(self.unit_points, reach)
        return self._counts

    def assembled(self, slices: slice | None = None) -> Csr:
        """The rows of ``slices`` (all) with their entries in node order."""
        parts = (self.intraslice, self.interslice_counts(), self.unit_points, self.bandwidth)
        return assemble(*parts, thresh=self.thresh, dtype=self.dtype, slices=slices)

    def _chunks(self) -> Iterator[tuple[slice, Csr]]:
        """All rows, some whole slices at a time: (nodes, rows)."""
        own = (self.intraslice.indptr[1:] - self.intraslice.indptr[:-1]).long()
        per_slice = self.interslice_counts().sum(0) + own.view(self.n_slices, self.n_units).sum(1)
        ends = per_slice.cumsum(0)
        at_once = min(MOST, max(FEWEST, int(ends[-1]) // SHARE))
        first = 0
        while first < self.n_slices:
            before = int(ends[first - 1]) if first else 0
            last = max(first + 1, int(torch.searchsorted(ends, before + at_once, right=True)))
            yield slice(first * self.n_units, last * self.n_units), self.assembled(slice(first, last))
            first = last

    def _matmul(self, block: torch.Tensor) -> torch.Tensor:
        if self.engine == "keops":
            return self._keops_product(block)
        out = torch.empty_like(block)
        for nodes, rows in self._chunks():
            out[nodes] = matmul(rows, block, interleave=self.n_units)
        return out

    def _keops_product(self, block: torch.Tensor) -> torch.Tensor:
        lazy_tensor = require_keops(purpose='engine="keops"').LazyTensor
        by_unit = block.view(self.n_slices, self.n_units, -1).transpose(0, 1)  # (M, S, C)
        points = self.unit_points.contiguous()
        x, y = lazy_tensor(points[:, :, None, :]), lazy_tensor(points[:, None, :, :])
        # Differences first, the bandwidth after: points scaled by a small bandwidth would carry its rounding into them.
        squared = ((x - y) ** 2).sum(-1)
        reach = cut_distance(self.bandwidth, decay=2, thresh=self.thresh)
        affinity = (float(reach) - squared.sqrt()).step() * (squared * (-1 / float(self.bandwidth) ** 2)).exp()
        values = by_unit.to(points.dtype)
        # The sum runs over all pairs; a slice is no neighbour of its own, and its affinity to itself is exactly 1.
        product = (affinity * lazy_tensor(values[:, None, :, :].contiguous())).sum(dim=2)
        product = (product - values).to(block.dtype).transpose(0, 1).reshape(block.shape)
        return product.add_(matmul(self._intraslice_in_node_order(), block))

    def _intraslice_in_node_order(self) -> Csr:
        """The intraslice part as an N x N CSR: unit columns become node columns."""
        first = torch.arange(self.n_slices, device=self.device) * self.n_units
        counts = (self.intraslice.indptr[1:] - self.intraslice.indptr[:-1]).long()
        shift = torch.repeat_interleave(first.repeat_interleave(self.n_units), counts)
        indices = (self.intraslice.indices + shift).to(self.intraslice.indices.dtype)
        return self.intraslice._replace(indices=indices, values=self.intraslice.values.to(self.dtype), shape=self.shape)

    def row_sums(self) -> torch.Tensor:
        return torch.cat([csr_ops.row_sums(rows) for _, rows in self._chunks()])

    def aggregate(self, labels: torch.Tensor, n: int) -> Csr:
        return csr_ops.stack_rows([aggregate(rows, labels, n) for _, rows in self._chunks()])

    def to_csr(self) -> Csr:
        nnz = assembled_nnz(self.intraslice, self.interslice_counts())
        needed = assembled_bytes(nnz, self.shape[0], self.dtype)
        check_fits(f"the affinity with {nnz:,} entries", needed, self.device, remedy="the lazy form itself needs none")
        return self.assembled()
