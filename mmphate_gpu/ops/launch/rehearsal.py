"""The sizes on which the choice of CUDA kernels depends, and tensors of zeros to call launchers with."""

from __future__ import annotations

from dataclasses import dataclass

import torch

# With more points in a set than this, launchers start the same kernels.
MOST_POINTS = 1024
# So they do with more points than these in a small set, and with more positions.
FEW_POINTS, POSITIONS = 2, 64


@dataclass(frozen=True)
class Sizes:
    """Zeros of the shapes and types that ops receive in one run; indices are assumed to fit into 32 bits."""

    n_points: int  # of a large set, and rows of the sparse matrix
    n_features: int
    n_columns: int  # of the blocks that the sparse matrix multiplies
    n_components: int
    dtype: torch.dtype  # of the values of the sparse matrix
    masked: bool = False  # points may lack features
    surplus: tuple[int, ...] = ()  # components of the layouts that lead to further starts of MDS

    @staticmethod
    def zeros(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device="cpu")

    def small_set(self) -> torch.Tensor:  # (B, n, p)
        return self.zeros(1, FEW_POINTS, self.n_features)

    def large_set(self) -> torch.Tensor:  # (B, n, p)
        return self.zeros(1, self.n_points, self.n_features)

    def positions(self) -> torch.Tensor:  # (n, C)
        return self.zeros(POSITIONS, self.n_components)

    def entries(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices and values of no entries."""
        return self.zeros(0, dtype=torch.int32), self.zeros(0, dtype=self.dtype)

    def matrix(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The indptr, indices and values of a sparse matrix without entries."""
        return self.zeros(self.n_points + 1, dtype=torch.int32), *self.entries()
