"""The matrix-free form whose products are KeOps reductions."""

from __future__ import annotations

import torch

from ..ops.csr_matmul import matmul
from ..ops.tile_block import in_node_order
from ..runtime.keops import KeopsError, give_up_keops, keops
from .lazy import LazyAffinity


class LazyKeopsAffinity(LazyAffinity):
    """Distances and product are fused, in float64: no row is made. A product costs O(M S^2 (D + C)).

    From the first fault of KeOps on, products are those of `LazyAffinity`. A warning says why.
    """

    engine = "keops"

    def _matmul(self, block: torch.Tensor) -> torch.Tensor:
        if self.engine == "keops":
            try:
                return self._interslice_product(block).add_(matmul(in_node_order(self.intraslice), block))
            except KeopsError as error:
                give_up_keops(error)
                self.engine = "torch"
        return super()._matmul(block)

    def _interslice_product(self, block: torch.Tensor) -> torch.Tensor:  # (N, C) -> (N, C)
        points, bandwidth = self.interslice.unit_points.contiguous(), float(self.interslice.bandwidth)
        by_unit = block.view(self.n_slices, self.n_units, -1).transpose(0, 1)
        values = by_unit.to(points.dtype)
        with keops(purpose="the matrix-free product of KeOps") as module:
            x, y = module.LazyTensor(points[:, :, None, :]), module.LazyTensor(points[:, None, :, :])
            # Differences first, the bandwidth after: scaled points would carry the rounding of the scale.
            squared = ((x - y) ** 2).sum(-1)
            affinity = (self.interslice.reach - squared.sqrt()).step() * (squared * (-1 / bandwidth**2)).exp()
            product = (affinity * module.LazyTensor(values[:, None, :, :].contiguous())).sum(dim=2)
        # The sum runs over all pairs. A slice is no neighbor of its own, and its affinity to itself is exactly 1.
        return (product - values).to(block.dtype).transpose(0, 1).reshape(block.shape)
