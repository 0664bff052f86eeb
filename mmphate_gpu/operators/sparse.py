"""The stored form: a CSR matrix on the device."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..ops import csr as csr_ops
from ..ops.chunks import row_chunks
from ..ops.csr import Csr
from ..ops.scatter_sum import scatter_sum
from .protocol import AffinityOperator


class SparseAffinity(AffinityOperator):
    """An affinity kept as a torch sparse CSR tensor: what other tools are handed.

    A product costs O(nnz C) and reads nnz * (index + value) bytes.
    """

    def __init__(self, csr: Csr) -> None:
        self.csr = csr
        self.tensor = csr_ops.to_torch(csr)
        self.shape, self.dtype, self.device = csr.shape, csr.values.dtype, csr.values.device
        self.nbytes = sum(part.numel() * part.element_size() for part in csr[:3])

    @property
    def nnz(self) -> int:
        return self.csr.nnz

    def _matmul(self, block: torch.Tensor) -> torch.Tensor:
        if block.dtype == self.dtype:
            return self.tensor @ block
        return csr_ops.to_torch(self.csr._replace(values=self.csr.values.to(block.dtype))) @ block

    def row_sums(self) -> torch.Tensor:
        return csr_ops.row_sums(self.csr)

    def aggregate(self, labels: torch.Tensor, n: int) -> Csr:
        return csr_ops.of_dense_rows(self._aggregated_rows(labels, n), n)

    def _aggregated_rows(self, labels: torch.Tensor, n: int) -> Iterator[torch.Tensor]:
        indptr, indices, values, _ = self.csr
        for rows in row_chunks(self.shape[0], n):
            part = slice(int(indptr[rows.start]), int(indptr[rows.stop]))
            counts = (indptr[rows.start + 1 : rows.stop + 1] - indptr[rows]).long()
            flat = torch.repeat_interleave(torch.arange(counts.numel(), device=self.device) * n, counts)
            flat += labels[indices[part].long()]
            yield scatter_sum(flat, values[part], counts.numel() * n).view(-1, n)

    def to_csr(self) -> Csr:
        return self.csr

    # A torch sparse tensor does not survive pickling with every torch version in range; its parts do.
    def __getstate__(self) -> Csr:
        return self.csr

    def __setstate__(self, csr: Csr) -> None:
        self.__init__(csr)  # type: ignore[misc]
