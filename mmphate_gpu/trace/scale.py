"""The arithmetic of step 1 of docs/method.md on a block of slices: tensor in, tensor out."""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import numpy as np
import torch

# Points that are nearer than this many roundings of their coordinates may differ by rounding only (docs/decisions.md).
ROUNDINGS = 4


class Scale(NamedTuple):
    """What standardizes the samples of every (slice, unit), in the dtype of the values."""

    factor: torch.Tensor  # (B, M, 1) power of two that brings the largest sample near 1
    mean: torch.Tensor  # (B, M, 1) of the samples times ``factor``
    std: torch.Tensor  # (B, M, 1) of the samples times ``factor``; 1 where it would be 0
    constant: torch.Tensor  # (B, M, 1) bool: all present samples are the same number

    def part(self, slices: slice, units: slice) -> Scale:
        return Scale(*(field[slices, units] for field in self))

    def resolution(self, rounding: torch.finfo) -> torch.Tensor:  # (B, M, 1)
        """`ROUNDINGS` roundings of a z-score, as root mean square over the samples, and at most 1."""
        # A sample is rounded in proportion to its size, whose mean square is mean^2 + std^2; then std divides it. Below
        # the normal numbers a sample is rounded to a multiple of eps * tiny, which ``factor`` scales too.
        size = torch.maximum(torch.hypot(self.mean, self.std), rounding.tiny * self.factor)
        return (ROUNDINGS * rounding.eps * size / self.std).clamp_max_(1).masked_fill_(self.constant, 0)


def scale_of(values: torch.Tensor, present: torch.Tensor | None) -> Scale:
    """Mean and population deviation (ddof 0) over the present samples of ``values`` (B, M, P).

    z-scores do not depend on the unit of measurement, but the squares of large or small samples would overflow or
    vanish. Scaled by a power of two, which rounds nothing, samples of every size give the same bits.
    """
    low, high = _range(values, present)
    factor = power_of_two(torch.maximum(low.abs(), high.abs()))
    scaled = values * factor
    mean = present_mean(scaled, present)
    centered = _centered(scaled, present, mean)
    # The mean of the centered values is what rounding has left of the mean.
    variance = present_mean(_centered(centered, present, present_mean(centered, present)).square_(), present)
    # torch's float32 root is not always the nearest number; the float64 root, rounded, is, on every device.
    std = variance.double().sqrt().to(values.dtype)
    # The mean of equal numbers is rounded (0.1, three times), and would leave a deviation of 1e-17.
    constant = low == high
    return Scale(factor, mean, std.masked_fill(constant | (std == 0), 1), constant)


def power_of_two(largest: torch.Tensor) -> torch.Tensor:
    """The power of two that brings ``largest`` >= 0 into [0.5, 1), or as near to it as the dtype allows; 1 for 0."""
    # The quotient is exact. Beyond the limits, the factor or its inverse would not be a normal number.
    limit = 2.0 ** (126 if largest.dtype == torch.float32 else 1022)
    factor = (torch.frexp(largest).mantissa / largest).clamp_(1 / limit, limit)
    return factor.masked_fill_(largest == 0, 1)


def standardized(values: torch.Tensor, scale: Scale) -> torch.Tensor:  # (B, M, P)
    """``(values - mean) / std``; 0 where constant. Entries are independent, so samples may come in blocks."""
    return (values * scale.factor).sub_(scale.mean).div_(scale.std).masked_fill_(scale.constant, 0)


def present_mean(values: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:  # (B, M, 1)
    if present is None:
        # A tensor, since CUDA divides by a Python number through its reciprocal, which is one rounding more.
        return pairwise_sum(values) / values.new_full((1,), values.shape[-1])
    return pairwise_sum(values.masked_fill(~present, 0)) / present.sum(-1, keepdim=True)


def _centered(values: torch.Tensor, present: torch.Tensor | None, mean: torch.Tensor) -> torch.Tensor:
    return _hidden_as_zero(values - mean, present)


def _hidden_as_zero(values: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    return values if present is None else values.masked_fill_(~present, 0)


def _range(values: torch.Tensor, present: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:  # 2 x (B, M, 1)
    """Least and largest present sample."""
    if present is None:
        return torch.aminmax(values, dim=-1, keepdim=True)
    low = values.masked_fill(~present, torch.inf).amin(-1, keepdim=True)
    return low, values.masked_fill(~present, -torch.inf).amax(-1, keepdim=True)


def pairwise_sum(values: torch.Tensor) -> torch.Tensor:  # (..., n) -> (..., 1)
    """Sum over the last axis in the order of NumPy's ``sum``: eight running sums up to 128 terms, halves beyond.

    Its rounding error grows with log n, and its bits are the same on every device. Runs of equal length are summed side
    by side, since a loop over thousands of short runs is slow (docs/decisions.md).
    """
    levels = _halves(values.shape[-1])
    lengths = np.array(levels[-1])
    starts = np.cumsum(lengths) - lengths
    sums = values.new_empty((*values.shape[:-1], len(lengths)))
    for length in np.unique(lengths):
        which = torch.as_tensor(np.flatnonzero(lengths == length), device=values.device)
        first = torch.as_tensor(starts[lengths == length], device=values.device)
        runs = values if len(lengths) == 1 else values[..., first[:, None] + torch.arange(length, device=values.device)]
        sums[..., which] = _short_sum(runs).reshape(*values.shape[:-1], len(which))
    for above in reversed(levels[:-1]):
        sums = _joined(sums, torch.as_tensor(np.array(above) > 128, device=values.device))
    return sums


@functools.lru_cache
def _halves(n: int) -> tuple[tuple[int, ...], ...]:
    """Lengths of the parts after each halving, down to at most 128 terms."""
    levels: list[tuple[int, ...]] = [(n,)]
    while max(levels[-1]) > 128:
        parts = [(size // 2 // 8 * 8, size - size // 2 // 8 * 8) if size > 128 else (size,) for size in levels[-1]]
        levels.append(tuple(itertools.chain.from_iterable(parts)))
    return tuple(levels)


def _joined(sums: torch.Tensor, halved: torch.Tensor) -> torch.Tensor:
    """The sums of the level above: of two parts where a sum was ``halved``, else the sum itself."""
    if bool(halved.all()):
        return sums[..., 0::2] + sums[..., 1::2]
    first = torch.cumsum(1 + halved.long(), 0) - 1 - halved.long()
    joined = sums[..., first]
    joined[..., halved] += sums[..., first[halved] + 1]
    return joined


def _short_sum(values: torch.Tensor) -> torch.Tensor:  # (..., n <= 128) -> (..., 1)
    n = values.shape[-1]
    whole = n - n % 8
    total = values.new_zeros((*values.shape[:-1], 1))
    if whole:
        runs = values[..., :8].clone()
        for start in range(8, whole, 8):
            runs += values[..., start : start + 8]
        while runs.shape[-1] > 1:  # ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7))
            runs = runs[..., 0::2] + runs[..., 1::2]
        total = runs
    for last in range(whole, n):
        total = total + values[..., last : last + 1]
    return total
