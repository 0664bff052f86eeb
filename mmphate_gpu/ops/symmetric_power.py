"""Powers of a symmetric matrix."""

from __future__ import annotations

import torch

from .symmetric_product import symmetric_product


def symmetric_power(matrix: torch.Tensor, t: int) -> torch.Tensor:  # (n, n) float64 -> (n, n)
    """``matrix^t``, t >= 1, by repeated squaring, each product at half its cost.

    For a matrix without negative entries every entry comes out to a relative error of about t n eps, the tiny ones
    too, and zeros stay zeros: a low-rank form through eigenvectors leaves 1e-16 on every entry, and a square root
    turns that into 1e-8. O(n^3 log t) time, 3 matrices of memory. Deterministic.
    """
    power, square = None, matrix
    while True:
        if t % 2:
            power = square if power is None else symmetric_product(power, square)
        t //= 2
        if t == 0:
            return power
        square = symmetric_product(square, square)
