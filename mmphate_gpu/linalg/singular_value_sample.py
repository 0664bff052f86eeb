"""The singular values of a large matrix: the leading ones, and a sample that stands for all others."""

from __future__ import annotations

from typing import Any

import torch

from .lanczos import Tridiagonal, gauss_quadrature, lanczos
from .random import seeded_generator
from .top_eigenpairs import top_eigenpairs

# Leading singular values sought one by one, in passes of as many columns as make them converge on landmark operators:
# of 200, 181 and 200 did on walks of 4000 landmarks. Sums over powers rest on them from about the tenth power on.
N_LEADING = 200
BLOCK = 100
N_PASSES = 10
# Residual of all leading pairs together, relative to the largest eigenvalue of A^T A, up to which they count as found.
# It enters sums of functions of the eigenvalues squared: below 1e-6 of the sum of 100th powers.
CONVERGED = 1e-5
# Error allowed for in eigenvalues of A^T A, relative to the largest: that of the float64 Gram matrix (`diffusion`).
ROUNDING = 1e-13
# Lanczos steps of every probe. Squares and higher powers of singular values are then right to 1e-5; see `measure` for
# the first power.
N_STEPS = 64


class SingularValueSample:
    """Singular values of a square matrix A (n, n) float64, without a decomposition of it.

    The leading ones are found by block Krylov; those beside them are seen by random probes, through Lanczos on A^T A.
    What is known of all of them without sampling, their number and the sum of their squares, is held.

    Notes
    -----
    About 2200 products with a vector at first, then 128 for every probe drawn: O(n^2) each. O(n (1000 + 64 P)) memory
    beside A for P probes at a time. Deterministic for one ``random_state``, device, dtype and thread count.
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
        self.holds_squares = bool(self.square_sum > 1e-9 * all_squares)  # else it is rounding
        self.probes: list[Tridiagonal] = []

    @property
    def n_probes(self) -> int:
        return sum(len(probes.mass) for probes in self.probes)

    def _product(self, block: torch.Tensor) -> torch.Tensor:  # (n, c) -> (n, c)
        """A^T A @ block. Few columns as rows: libraries take a third of the time that way."""
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
        """Look at ``n_probes`` more random directions (of entries 1 and -1, without the leading vectors)."""
        n, device = self.matrix.shape[0], self.matrix.device
        signs = torch.randint(0, 2, (n, n_probes), generator=self.generator, dtype=torch.int8, device="cpu")
        probes = (2 * signs - 1).to(device=device, dtype=torch.float64)
        probes -= self.vectors @ (self.vectors.T @ probes)
        self.probes.append(lanczos(self._product, probes, N_STEPS, beside=self.vectors))

    def measure(self, shares: torch.Tensor, *, coarse: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """Values (Q,) and, for every row of ``shares`` (G, P), counts (G, Q) with which they stand for all n.

        ``shares`` weigh the probes and sum to 1. ``coarse`` takes three quarters of the Lanczos steps, and from the
        squares what rounding may have added: how far that is off tells how far the other is.

        Where many singular values lie near 0, the sum of first powers misses c / m after m steps (measured: 1/m from 30
        to 120 steps on four landmark operators, 1e-2 of the sum at 64). So twice the measure of m steps less that of
        m / 2 is used, which leaves 1e-3.
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

    def _calibrated(self, squares: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:  # (Q,), (G, Q) -> (G, Q)
        """Weights times a linear function of the square, so that number and sum of squares are the true ones.

        The sampling error is then that of what such a function leaves of the summed one. Source: Deville & Sarndal,
        "Calibration estimators in survey sampling", 1992.
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
