"""What the later stages use of an affinity, in whichever form it is held."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from ..errors import InputError, InputTypeError
from ..ops.csr import Csr
from ..runtime.arrays import array_or_tensor
from ..runtime.isolation import isolated


class AffinityOperator(ABC):
    """A symmetric N x N affinity K with non-negative entries.

    All forms have these members; `tests/conformance` compares each member of each form with a dense matrix. ``nbytes``
    are those that the form keeps in memory, ``storage`` is its name among the options of `MMPHATE`.
    """

    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device
    nbytes: int
    storage: str

    @abstractmethod
    def _matmul(self, block: torch.Tensor) -> torch.Tensor:  # (N, C) -> (N, C), contiguous, C >= 1
        ...

    @isolated()
    def product(self, block: torch.Tensor) -> torch.Tensor:  # (N, C) -> (N, C)
        """K @ block in the dtype of ``block``, so that entries kept in float32 can have float64 products."""
        return self._matmul(block.contiguous()) if block.shape[1] else block

    @isolated()
    def row_sums(self) -> torch.Tensor:  # (N,) float64
        """K @ 1, the degrees d. They come from the product, so that rows of diag(d)^-1 K as it is applied sum to 1."""
        return self._matmul(torch.ones(self.shape[0], 1, dtype=torch.float64, device=self.device))[:, 0]

    @abstractmethod
    def aggregate(self, labels: torch.Tensor, n: int) -> Csr:  # (N,) int64 -> (N, n)
        """K @ onehot(labels): the affinity of every node to each of ``n`` groups of nodes, in the operator's dtype."""

    @abstractmethod
    def to_csr(self) -> Csr:
        """All entries, rows and columns in node order, in memory that nothing else uses."""

    @isolated()
    def __matmul__(self, other: torch.Tensor) -> torch.Tensor:  # (N,) or (N, C)
        """Product with a vector or a matrix, in the operator's dtype and without a graph."""
        if not isinstance(other, torch.Tensor):
            raise InputTypeError(f"the right-hand side is a {type(other).__name__}; accepted: a torch tensor")
        other = array_or_tensor("the right-hand side", other)  # type: ignore[assignment]
        if other.is_complex():
            raise InputTypeError(f"the right-hand side has dtype {other.dtype}; accepted: real numbers")
        if other.ndim not in (1, 2) or other.shape[0] != self.shape[1]:
            n = self.shape[1]
            raise InputError(f"the right-hand side has shape {tuple(other.shape)}; accepted: ({n},) or ({n}, C)")
        block = other.to(device=self.device, dtype=self.dtype).reshape(self.shape[1], -1).contiguous()
        return self.product(block).reshape(other.shape)

    @isolated()
    def to_dense(self) -> torch.Tensor:  # (N, N)
        """All entries as a dense tensor: N^2 of them, for small N."""
        csr = self.to_csr()
        dense = torch.zeros(self.shape, dtype=self.dtype, device=self.device)
        dense[csr.row_of_entry(), csr.indices.long()] = csr.values
        return dense

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape}, dtype={self.dtype}, device={str(self.device)!r})"


def check_operator(operator: AffinityOperator) -> AffinityOperator:
    if not isinstance(operator, AffinityOperator):
        raise InputTypeError(f"operator is a {type(operator).__name__}; accepted: an AffinityOperator")
    return operator
