"""The matrix-free form: interslice affinities are made anew in every product and never stored."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from .._optional import require_keops, why_no_keops
from ..ops import csr as csr_ops
from ..ops.chunks import CHUNK_ELEMENTS, row_chunks
from ..ops.csr import Csr
from ..ops.distances import distances_by_difference
from ..ops.memory import check_fits
from ..ops.radius_affinity import Entries, cut_distance, radius_counts, radius_entries
from ..ops.scatter_sum import scatter_sum
from ..params import InputError, check_choice
from .assemble import assemble, assembled_bytes, assembled_nnz
from .protocol import AffinityOperator

LAZY_ENGINES = ("auto", "torch", "keops")


class LazyAffinity(AffinityOperator):
    """Intraslice entries stored (they are few), interslice entries computed from the points when needed.

    Exact: the same entries, decided by the same float64 distances, as the sparse form. Memory is the points, the
    intraslice part and a few chunks; a product costs O(M S^2 (D + C)).

    Parameters
    ----------
    unit_points : (M, S, D) float64
    bandwidth : () float64 tensor
    intraslice : Csr of S*M rows and M columns
    engine : {"auto", "torch", "keops"}
        What multiplies: "torch" makes dense blocks and lets the matrix library multiply them; "keops" fuses both.
        "auto" is KeOps on CUDA where it is installed, torch elsewhere.
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
        self.nbytes = sum(part.numel() * part.element_size() for part in (unit_points, *intraslice[:3]))
        if engine == "auto":
            engine = "keops" if self.device.type == "cuda" and why_no_keops() is None else "torch"
        self.engine = engine

    def _matmul(self, block: torch.Tensor) -> torch.Tensor:
        by_unit = block.view(self.n_slices, self.n_units, -1).transpose(0, 1).contiguous()  # (M, S, C)
        product = self._keops_product(by_unit) if self.engine == "keops" else self._torch_product(by_unit)
        product = product.transpose(0, 1).reshape(block.shape)
        return product.add_(self._intraslice_product(block))

    def _torch_product(self, by_unit: torch.Tensor) -> torch.Tensor:  # (M, S, C) -> (M, S, C)
        out = torch.empty_like(by_unit)
        for unit, rows, tile in self._tiles():
            torch.mm(tile.to(by_unit.dtype), by_unit[unit], out=out[unit, rows])
        return out

    def _tiles(self) -> Iterator[tuple[int, slice, torch.Tensor]]:
        """Dense row blocks of the interslice part in the own dtype: (unit, rows, (r, S))."""
        reach = cut_distance(self.bandwidth, decay=2, thresh=self.thresh)
        for unit in range(self.n_units):
            points = self.unit_points[unit]
            for rows in row_chunks(self.n_slices, self.n_slices):
                scores = distances_by_difference(points[rows], points)
                own = torch.arange(rows.start, rows.stop, device=self.device)
                scores[own - rows.start, own] = math.inf
                scores.masked_fill_(scores > reach, math.inf).div_(self.bandwidth).square_()
                # The cut was decided in float64; the exponential need only be as good as the dtype it ends in.
                yield unit, rows, scores.neg_().to(self.dtype).exp_()

    def _keops_product(self, by_unit: torch.Tensor) -> torch.Tensor:  # (M, S, C) -> (M, S, C)
        lazy_tensor = require_keops(purpose='engine="keops"').LazyTensor
        points = self.unit_points.contiguous()
        x, y = lazy_tensor(points[:, :, None, :]), lazy_tensor(points[:, None, :, :])
        # Differences first, the bandwidth after: points scaled by a small bandwidth would carry its rounding into them.
        squared = ((x - y) ** 2).sum(-1)
        reach = cut_distance(self.bandwidth, decay=2, thresh=self.thresh)
        affinity = (float(reach) - squared.sqrt()).step() * (squared * (-1 / float(self.bandwidth) ** 2)).exp()
        values = by_unit.to(points.dtype)
        # The sum runs over all pairs; a slice is no neighbour of its own, and its affinity to itself is exactly 1.
        product = (affinity * lazy_tensor(values[:, None, :, :].contiguous())).sum(dim=2)
        return (product - values).to(by_unit.dtype)

    def _intraslice_product(self, block: torch.Tensor) -> torch.Tensor:
        csr = self._intraslice_in_node_order()
        return csr_ops.to_torch(csr._replace(values=csr.values.to(block.dtype))) @ block

    def _intraslice_in_node_order(self) -> Csr:
        """The intraslice part as an N x N CSR: unit columns become node columns."""
        first = torch.arange(self.n_slices, device=self.device) * self.n_units
        counts = (self.intraslice.indptr[1:] - self.intraslice.indptr[:-1]).long()
        shift = torch.repeat_interleave(first.repeat_interleave(self.n_units), counts)
        indices = (self.intraslice.indices + shift).to(self.intraslice.indices.dtype)
        return self.intraslice._replace(indices=indices, values=self.intraslice.values.to(self.dtype), shape=self.shape)

    def row_sums(self) -> torch.Tensor:
        sums = torch.empty(self.n_units, self.n_slices, dtype=torch.float64, device=self.device)
        for unit, rows, tile in self._tiles():
            sums[unit, rows] = tile.sum(1, dtype=torch.float64)
        return sums.T.reshape(-1) + csr_ops.row_sums(self.intraslice)

    def aggregate(self, labels: torch.Tensor, n: int) -> Csr:
        unit_major = csr_ops.of_dense_rows(self._aggregated_rows(labels.view(self.n_slices, self.n_units), n), n)
        nodes = torch.arange(self.shape[0], device=self.device)
        return csr_ops.take_rows(unit_major, nodes % self.n_units * self.n_slices + nodes // self.n_units)

    def _aggregated_rows(self, labels: torch.Tensor, n: int) -> Iterator[torch.Tensor]:  # labels: (S, M)
        """Dense row blocks (r, n) of K @ onehot(labels), rows in unit-major order."""
        # As many rows at a time as keep the (r, n) sums, not only the (r, S) distances, within a chunk.
        elements = CHUNK_ELEMENTS * self.n_slices // max(n, self.n_slices)
        for chunk in self._entries(elements):
            units = torch.arange(chunk.chunk.sets.start, chunk.chunk.sets.stop, device=self.device)
            slices = torch.arange(chunk.chunk.rows.start, chunk.chunk.rows.stop, device=self.device)
            own = csr_ops.take_rows(self.intraslice, (slices * self.n_units + units[:, None]).flatten())
            own_row = own.row_of_entry()
            own_label = labels[slices[own_row % slices.numel()], own.indices.long()]
            flat = torch.cat([chunk.row_in_chunk() * n + labels[chunk.columns, chunk.sets], own_row * n + own_label])
            sums = scatter_sum(flat, torch.cat([chunk.values, own.values]).double(), own.shape[0] * n)
            yield sums.view(-1, n).to(self.dtype)

    def _entries(self, elements: int = CHUNK_ELEMENTS) -> Iterator[Entries]:
        cut = {"decay": 2, "thresh": self.thresh, "diagonal": False}
        return radius_entries(self.unit_points, self.bandwidth, **cut, dtype=self.dtype, elements=elements)

    def interslice_counts(self) -> torch.Tensor:  # (M, S) int64
        """Interslice entries per row; what `assembled` needs to know before it allocates."""
        return radius_counts(self.unit_points, self.bandwidth, decay=2, thresh=self.thresh)

    def assembled(self, counts: torch.Tensor) -> Csr:
        """All entries in node order, given `interslice_counts`."""
        return assemble(self.intraslice, counts, self._entries(), dtype=self.dtype)

    def to_csr(self) -> Csr:
        counts = self.interslice_counts()
        nnz = assembled_nnz(self.intraslice, counts)
        needed = assembled_bytes(nnz, self.shape[0], self.dtype)
        check_fits(f"the affinity with {nnz:,} entries", needed, self.device, remedy="the lazy form itself needs none")
        return self.assembled(counts)
