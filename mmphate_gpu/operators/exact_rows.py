"""The base class of the forms that keep the two parts of the affinity instead of its rows."""

from __future__ import annotations

import torch

from ..affinities import Interslice
from ..errors import InputError
from ..ops import csr as csr_ops
from ..ops.csr import Csr
from ..ops.landmark_aggregate import aggregate
from ..runtime.isolation import isolated
from .assemble import assemble, row_blocks
from .protocol import AffinityOperator


class ExactRows(AffinityOperator):
    """An affinity kept as its two parts; a form adds the product.

    `aggregate` and `to_csr` compute the rows again, some slices at a time. They have the bits of the sparse form.
    Memory is the points, the intraslice entries and one block of rows.
    """

    def __init__(self, intraslice: Csr, interslice: Interslice) -> None:  # (N rows, M columns)
        self.n_units, self.n_slices, _ = interslice.unit_points.shape
        n_nodes = self.n_units * self.n_slices
        if intraslice.shape != (n_nodes, self.n_units):
            raise InputError(f"intraslice has shape {intraslice.shape}; accepted: {(n_nodes, self.n_units)}")
        self.intraslice, self.interslice = intraslice, interslice
        self.shape, self.dtype, self.device = (n_nodes, n_nodes), intraslice.values.dtype, interslice.unit_points.device

    @property
    def nbytes(self) -> int:  # type: ignore[override]
        return self.interslice.nbytes + sum(part.nbytes for part in self.intraslice[:3])

    @isolated()
    def aggregate(self, labels: torch.Tensor, n: int) -> Csr:
        blocks = row_blocks(self.intraslice, self.interslice)
        return csr_ops.stack_rows([aggregate(rows, labels, n) for _, rows in blocks])

    @isolated()
    def to_csr(self) -> Csr:
        return assemble(self.intraslice, self.interslice, remedy="the operator itself needs none of them")
