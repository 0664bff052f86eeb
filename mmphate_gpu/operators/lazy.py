"""The matrix-free form: interslice entries are computed again in every product and never stored."""

from __future__ import annotations

import torch

from ..ops import csr as csr_ops
from ..ops.csr_matmul import matmul
from ..runtime.isolation import isolated
from .assemble import row_blocks
from .exact_rows import ExactRows


class LazyAffinity(ExactRows):
    """Products and degrees by exact rows, some slices at a time: the same bits as the sparse form.

    A product costs the search, O(M S^2 D), and the entries, O(nnz C).
    """

    storage = "lazy"
    engine = "torch"  # what makes the entries of a product

    def _matmul(self, block: torch.Tensor) -> torch.Tensor:
        product = torch.empty_like(block)
        for nodes, rows in row_blocks(self.intraslice, self.interslice):
            product[nodes] = matmul(rows, block, interleave=self.n_units)
        return product

    @isolated()
    def row_sums(self) -> torch.Tensor:
        return torch.cat([csr_ops.row_sums(rows) for _, rows in row_blocks(self.intraslice, self.interslice)])
