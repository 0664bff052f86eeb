"""How far the diffusion time of step 9 of docs/method.md moves with other landmarks."""

from __future__ import annotations

import torch

from ..linalg.random import seeded_generator
from .knee import KNEE_TIE, knee_errors

# Resampled curves. The root mean square of so many deviations is known to within an eighth.
N_RESAMPLED = 32
# The bar has to hold the time of another fit, whose deviation is as large. The deviation of a difference is sqrt(2)
# larger, and two of them hold 95 % of the differences.
N_DEVIATIONS = 2 * 2**0.5
# Breaks whose two lines fit worse than the best by at most this share fit as well. With eigenvalues, which are not
# resampled, the times of other seeds were within such breaks (docs/decisions.md, "An error bar of t").
NEARLY = 0.01
# Points of a resampled curve. Of a longer curve every k-th point is taken, because the time of the breaks grows with
# the square of the number of points.
MOST_POINTS = 128
# Singular values that should be 1 are larger by rounding, at most by this share.
ABOVE_ROUNDING = 1e-9


def time_range(
    t: int,
    entropy: torch.Tensor,  # (t_max,)
    values: torch.Tensor,  # (n,) the singular values, in any order
    counts: torch.Tensor,  # (n,) how often each occurs
    largest: torch.Tensor,  # () the largest eigenvalue
) -> tuple[int, int]:
    """The times from low to high that other landmarks of the same nodes could give in place of the knee ``t``.

    Singular values above the largest eigenvalue measure how uneven the landmarks are, and change with them. They are
    resampled as if they were independent: each occurs as often as a Poisson number says. The range holds the breaks
    that fit nearly as well as the best (`NEARLY`), and the times within 2.8 root mean square deviations of the knees
    of the resampled curves. O(N_RESAMPLED MOST_POINTS^2 + MOST_POINTS n) time. Deterministic.
    """
    stride = -(-len(entropy) // MOST_POINTS)
    curve = entropy[::stride].double().cpu()[None]
    powers = 1 + torch.arange(0, len(entropy), stride, device="cpu")
    # The values are sorted, and equal ones by how often they occur. So each gets the same random numbers whatever
    # their order: an SVD gives the largest first, a Gram matrix the smallest.
    counts, order = counts.cpu().sort(descending=True)
    values, stable = values.cpu()[order].sort(descending=True, stable=True)
    curves = torch.cat([curve, _resampled(powers, values, counts[stable], float(largest))])
    errors = knee_errors(curves / curve.abs().max().clamp_min(torch.finfo(torch.float64).tiny))
    knees = 1 + errors.argmin(-1).double()
    away = N_DEVIATIONS * float((knees - knees[0]).square().sum().div(N_RESAMPLED).sqrt())
    near = 1 + torch.nonzero(errors[0] <= errors[0].min() * (1 + NEARLY) + KNEE_TIE).flatten()
    low, high = stride * min(int(near[0]), float(knees[0]) - away), stride * max(int(near[-1]), float(knees[0]) + away)
    return min(t, max(1, round(low))), max(t, min(len(entropy) - 2, round(high)))


def _resampled(powers: torch.Tensor, values: torch.Tensor, counts: torch.Tensor, largest: float) -> torch.Tensor:
    """Entropies of the ``powers`` (m,) with other numbers of the values above ``largest``: (N_RESAMPLED, m).

    If no value is above, nothing is resampled: (0, m).
    """
    above = values > largest * (1 + ABOVE_ROUNDING)
    rates = counts[above].clamp_min(0).expand(N_RESAMPLED if bool(above.any()) else 0, -1)
    changes = torch.poisson(rates, generator=seeded_generator(0)) - rates
    logs = powers[:, None] * (values / values.max()).clamp_min(torch.finfo(torch.float64).tiny).log()
    sums = []
    for terms in (logs.exp(), logs.exp() * logs):  # H = ln Z - (sum of s ln s) / Z, with Z the sum of s
        sums.append(terms @ counts + changes @ terms[:, above].T)
    return sums[0].log() - sums[1] / sums[0]
