"""The singular values of a large matrix: the leading ones, and a sample of the others."""

from __future__ import annotations

from typing import Any

import torch

from .lanczos import Tridiagonal, gauss_quadrature, lanczos
from .random import seeded_generator
from .top_eigenpairs import top_eigenpairs

# Leading singular values that are computed, with blocks and passes that make most of them converge on landmark
# operators: 181 and 200 of 200 on walks of 4000 landmarks. From about the tenth power on, sums of powers depend on
# these alone.
N_LEADING = 200
BLOCK = 100
N_PASSES = 10
# Leading pairs converged if the norm of their residuals, relative to the largest eigenvalue of A^T A, is at most this.
# Its square enters sums of functions of the eigenvalues: less than 1e-6 of the sum of 100th powers.
CONVERGED = 1e-5
# Error of the eigenvalues of A^T A, relative to the largest: that of the float64 Gram matrix (`diffusion`).
ROUNDING = 1e-13
# Lanczos steps of every probe. Sums of squares and higher powers of singular values then have relative errors of 1e-5;
# see `measure` for the first power.
N_STEPS = 64


class SingularValueSample:
    """Singular values of a square matrix A (n, n) float64, without a decomposition of it.

    The leading ones come from block Krylov, and a sample of the others from random probes, by Lanczos on A^T A. The
    sample is weighted so that the number of all singular values and the sum of their squares are exact.

    Notes
    -----
    About 2200 products with a vector at first, then 128 for every probe: O(n^2) time each. O(n (1000 + 64 k)) memory
    beside A for k probes at a time. Deterministic for a ``random_state``, device, dtype and number of threads.
    Source: Ubaru, Chen & Saad, "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature", 2017.
    """

    def __init__(self, matrix: torch.Tensor, *, random_state: int = 0) -> None:
        self.matrix = matrix
        self.generator = seeded_generator(random_state)
        squares, self.vectors = self._leading()
        self.leading = squares.clamp_min(0)  # (r,), squared
        self.n_others = matrix.shape[0] - len(squares)
        all_squares = matrix.square().sum()
        self.square_sum = (all_squares - squares.sum()).clamp_min(0)
        self.holds_squares = bool(self.square_sum > 1e-9 * all_squares)  # otherwise the sum is rounding
        self.probes: list[Tridiagonal] = []

    @property
    def n_probes(self) -> int:
        return sum(len(probes.mass) for probes in self.probes)

    def _product(self, block: torch.Tensor) -> torch.Tensor:  # (n, b) -> (n, b)
        """A^T A @ block, transposed: libraries multiply few rows in a third of the time."""
        return ((block.T @ self.matrix.T) @ self.matrix).T

    def _leading(self) -> tuple[torch.Tensor, torch.Tensor]:  # (r,), (n, r)
        n, device = self.matrix.shape[0], self.matrix.device
        sizes: dict[str, Any] = {"n_passes": N_PASSES, "block": BLOCK, "order": "algebraic"}
        squares, vectors = top_eigenpairs(self._product, n, N_LEADING, **sizes, device=device, generator=self.generator)
        # On the CPU: `torch.use_deterministic_algorithms` refuses a cumulative sum of real numbers on CUDA.
        residuals = (self._product(vectors) - vectors * squares).norm(dim=0).cpu()
        n_converged = int((residuals.square().cumsum(0).sqrt() <= CONVERGED * squares[0].cpu()).sum())
        return squares[:n_converged], vectors[:, :n_converged]

    def draw(self, n_probes: int) -> None:
        """Sample ``n_probes`` more random directions, with entries 1 and -1, orthogonal to the leading vectors."""
        n, device = self.matrix.shape[0], self.matrix.device
        signs = torch.randint(0, 2, (n, n_probes), generator=self.generator, dtype=torch.int8, device="cpu")
        probes = (2 * signs - 1).to(device=device, dtype=torch.float64)
        probes -= self.vectors @ (self.vectors.T @ probes)
        self.probes.append(lanczos(self._product, probes, N_STEPS, beside=self.vectors))

    def measure(self, shares: torch.Tensor, *, coarse: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """Values (q,) and, for every row of ``shares`` (g, k), counts (g, q): how many of the n values each represents.

        ``shares`` are weights of the probes that sum to 1. ``coarse`` takes three quarters of the Lanczos steps, and
        subtracts what rounding may have added to the squares: the difference between both results estimates the error.

        Where many singular values lie near 0, the sum of first powers has an error of c / m after m steps. So the
        result is twice the measure of m steps less that of m / 2 (docs/decisions.md, "First powers of singular
        values").
        """
        krylov = Tridiagonal(*(torch.cat(parts) for parts in zip(*self.probes, strict=True)))
        n_steps = krylov.diagonal.shape[1]
        n_steps = max(1, 3 * n_steps // 4) if coarse else n_steps
        nodes, weights = gauss_quadrature(krylov, n_steps)
        half_nodes, half_weights = gauss_quadrature(krylov, max(1, n_steps // 2))
        squares = torch.cat([nodes, half_nodes], 1).clamp_min(0).flatten()
        weights = shares[:, :, None] * torch.cat([2 * weights, -half_weights], 1)
        counts = self._calibrated(squares, weights.flatten(1))
        squares = torch.cat([self.leading, squares])
        if coarse:
            squares = (squares - ROUNDING * squares.max()).clamp_min(0)
        return squares.sqrt(), torch.cat([counts.new_ones(len(counts), len(self.leading)), counts], 1)

    def _calibrated(self, squares: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:  # (q,), (g, q) -> (g, q)
        """Weights times a linear function of the square that makes the number and the sum of squares exact.

        The sampling error is then that of what such a linear function does not explain of the summed function. Source:
        Deville & Sarndal, "Calibration estimators in survey sampling", 1992.
        """
        total = weights.sum(1, keepdim=True)
        weights = weights * (self.n_others / torch.where(total > 0, total, 1))
        if not self.holds_squares:
            return weights
        mean = (weights @ squares)[:, None] / self.n_others
        off = squares - mean
        spread = (weights * off.square()).sum(1, keepdim=True) / self.n_others
        flat = spread <= 1e-12 * mean.square()
        slope = torch.where(flat, 0, (self.square_sum / self.n_others - mean) / torch.where(flat, 1, spread))
        return weights * (1 + slope * off)
