"""Random matrices that the tests of several modules share."""

from __future__ import annotations

import torch

from mmphate_gpu.linalg.random import seeded_generator


def normal(*shape: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=seeded_generator(seed)).to(dtype)


def symmetric(values: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """A matrix with these eigenvalues and random eigenvectors."""
    basis = torch.linalg.qr(normal(len(values), len(values), seed=seed)).Q
    return basis @ torch.diag(values) @ basis.T


SPECTRA = {
    "falling": lambda n: 0.9 ** torch.arange(n, dtype=torch.float64),
    "of both signs": lambda n: (-0.85) ** torch.arange(n, dtype=torch.float64),
    "low rank": lambda n: torch.cat([torch.tensor([3.0, -2.0, 1.0]), torch.zeros(n - 3)]).double(),
    "repeated": lambda n: torch.cat(
        [torch.ones(n // 3), 0.1 * torch.rand(n - n // 3, generator=seeded_generator(0))]
    ).double(),
    "zero": lambda n: torch.zeros(n, dtype=torch.float64),
}
