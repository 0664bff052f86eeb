"""A scale at which squares of numbers neither overflow nor vanish."""

from __future__ import annotations

import math

import torch


def safe_scale(*tensors: torch.Tensor) -> float:
    """The power of two by which to multiply ``tensors`` of finite numbers before their squares are summed.

    It brings the largest entry near 1, and rounds only entries that are negligible beside it. It is 1 if the largest
    entry is 0 or from 1e-100 to 1e100, so that numbers of ordinary size keep their bits.
    """
    largest = max(float(torch.linalg.vector_norm(tensor, ord=math.inf)) for tensor in tensors)
    if largest == 0 or 1e-100 <= largest <= 1e100:
        return 1.0
    return 2.0 ** min(1000, -math.frexp(largest)[1])  # 2 ** 1024 is no float64
