"""The sizes on which the CUDA kernels of a fit depend, and tensors of zeros to call launchers with."""

from __future__ import annotations

from dataclasses import dataclass

import torch

# Two units and 64 landmarks are enough: with more of them every launcher starts the same kernels.
UNITS, LANDMARKS = 2, 64


@dataclass(frozen=True)
class FitSizes:
    """Zeros of the shapes and types that a fit passes to the ops; indices are assumed to fit into 32 bits."""

    n_slices: int
    n_features: int
    width: int  # columns of the blocks that the affinity multiplies
    n_components: int
    dtype: torch.dtype  # of the values of the affinity

    @staticmethod
    def zeros(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device="cpu")

    def slice_points(self) -> torch.Tensor:  # (B, n, p)
        return self.zeros(1, UNITS, self.n_features)

    def unit_points(self) -> torch.Tensor:  # (B, n, p)
        return self.zeros(1, self.n_slices, self.n_features)

    def positions(self) -> torch.Tensor:  # (L, C)
        return self.zeros(LANDMARKS, self.n_components)

    def entries(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices and values of no entries."""
        return self.zeros(0, dtype=torch.int32), self.zeros(0, dtype=self.dtype)

    def matrix(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The indptr, indices and values of a sparse matrix without entries, with a row for every slice."""
        return self.zeros(self.n_slices + 1, dtype=torch.int32), *self.entries()
