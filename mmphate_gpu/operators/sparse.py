"""The stored form: a CSR matrix on the device."""

from __future__ import annotations

import torch

from ..affinities import Interslice
from ..ops import csr as csr_ops
from ..ops.csr import Csr
from ..ops.csr_matmul import matmul
from ..ops.landmark_aggregate import aggregate
from ..runtime.isolation import isolated
from .assemble import assemble
from .protocol import AffinityOperator


class SparseAffinity(AffinityOperator):
    """An affinity kept as a CSR matrix, which other tools understand.

    A product costs O(nnz C) and reads nnz * (index + value) bytes. ``interleave`` is the distance of rows with
    neighboring columns (in node order the number of units): a hint for the product, see `ops.csr_matmul`.
    """

    storage = "sparse"

    def __init__(self, csr: Csr, *, interleave: int = 1) -> None:
        self.csr, self.interleave = csr, interleave
        self.tensor = csr_ops.to_torch(csr)  # an attribute, so that `Stages` sees writes to it
        self.shape, self.dtype, self.device = csr.shape, csr.values.dtype, csr.values.device
        self.nbytes = sum(part.nbytes for part in csr[:3])

    @classmethod
    def of_parts(cls, intraslice: Csr, interslice: Interslice) -> SparseAffinity:  # (N rows, M columns)
        """All entries of both parts, refused with an `InputError` if they do not fit in memory."""
        return cls(assemble(intraslice, interslice), interleave=intraslice.shape[1])

    @property
    def nnz(self) -> int:
        return self.csr.nnz

    def _matmul(self, block: torch.Tensor) -> torch.Tensor:
        return matmul(self.csr, block, interleave=self.interleave)

    @isolated()
    def row_sums(self) -> torch.Tensor:
        return csr_ops.row_sums(self.csr)

    @isolated()
    def aggregate(self, labels: torch.Tensor, n: int) -> Csr:
        return aggregate(self.csr, labels, n)

    def to_csr(self) -> Csr:
        return csr_ops.moved(self.csr, self.device, copy=True)

    # Not every torch version in range can pickle a sparse tensor; its parts can be pickled.
    def __getstate__(self) -> tuple[Csr, int]:
        return self.csr, self.interleave

    def __setstate__(self, state: tuple[Csr, int]) -> None:
        self.__init__(state[0], interleave=state[1])  # type: ignore[misc]
