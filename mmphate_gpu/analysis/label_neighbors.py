"""Mutual information of a number and a class, from the distances to nearest neighbors."""

from __future__ import annotations

import math

import torch

from ..ops.chunks import row_chunks
from ..trace.scale import power_of_two

# Noise that breaks ties, in deviations. scikit-learn uses the same.
_NOISE = 1e-10
# Values per chunk: 8 MiB, so that the dozen temporaries of a chunk stay below 100 MiB.
_CHUNK_VALUES = 2**20


def without_ties(values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:  # (B, P) -> (B, P)
    """Each row divided by its deviation, plus noise of 1e-10 times its size; constant rows become NaN."""
    values = values * power_of_two(values.abs().amax(1, keepdim=True))  # squares of values like 1e-200 would vanish
    deviation = values.std(1, correction=0, keepdim=True)
    constant = (values == values[:, :1]).all(1, keepdim=True)
    scaled = torch.where(constant, torch.nan, values / deviation)
    noise = torch.randn(values.shape, generator=generator, dtype=torch.float64, device="cpu").to(values.device)
    return scaled.addcmul_(noise, _NOISE * scaled.abs().mean(1, keepdim=True).clamp_min(1))


def neighbor_information(values: torch.Tensor, labelings: torch.Tensor, k: int) -> torch.Tensor:
    """Mutual information, in bits, of each row of numbers and each labeling.

    Parameters
    ----------
    values : (B, P) float64, without ties; a row of NaN has an information of 0
    labelings : (B', P) int64
        Every class has the same number of samples, at least two, in each labeling.
    k : neighbors, or all others in a class with fewer

    Returns
    -------
    (B', B) float64, which may be negative

    Notes
    -----
    ``psi(P) + <psi(k)> - <psi(n)> - <psi(m)>`` with means over the samples: n is the size of the class of a sample,
    and m the number of samples nearer than its k-th neighbor in its class, itself included. O(B' B P (k + log P)) time,
    because the neighbors of a number in sorted order are beside it. Source: Ross 2014 (PLoS ONE 9, e87357).
    """
    parts = [
        _of_chunk(values[rows], labelings, k) for rows in row_chunks(len(values), labelings.numel(), _CHUNK_VALUES)
    ]
    return torch.cat(parts, 1).masked_fill_(values[:, 0].isnan(), 0)


def _of_chunk(values: torch.Tensor, labelings: torch.Tensor, k: int) -> torch.Tensor:
    n_rows, n_samples = values.shape
    psi = torch.special.digamma(torch.arange(n_samples + 1, dtype=torch.float64, device=values.device))
    # Sorted numbers keep the layout of `values`, and a search in columns warns.
    ordered, total = values.sort(1).values.contiguous(), values.new_zeros(n_rows, len(labelings))
    for number in range(int(labelings.max()) + 1):
        members = (labelings == number).nonzero()[:, 1].view(len(labelings), -1)
        size = members.shape[1]
        near = min(k, size - 1)
        points = values[:, members].sort(-1).values  # (B, B', size)
        nearer = _counts(ordered, points.flatten(1), _distances(points, near).flatten(1))
        total += size * (psi[near] - psi[size]) - psi[nearer].view(points.shape).sum(-1)
    return (psi[n_samples] + total.T / n_samples) / math.log(2)


def _distances(points: torch.Tensor, k: int) -> torch.Tensor:  # (..., n) -> (..., n)
    """The distance of each number of rising rows to the k-th nearest other in its row.

    The k nearest and the number itself are k + 1 numbers side by side. So this is the least reach of the windows of
    k + 1 numbers that contain it.
    """
    n_windows = points.shape[-1] - k
    first, last = points[..., :n_windows], points[..., k:]
    reach = torch.full_like(points, torch.inf)
    for place in range(k + 1):
        inside = slice(place, place + n_windows)
        number = points[..., inside]
        reach[..., inside] = torch.minimum(reach[..., inside], torch.maximum(number - first, last - number))
    return reach


def _counts(ordered: torch.Tensor, points: torch.Tensor, distances: torch.Tensor) -> torch.Tensor:  # (B, n)
    """How many numbers of each row of ``ordered`` are nearer to each point than its distance, itself included."""
    # The sums below are rounded. Without this margin the neighbor at the distance itself would sometimes count.
    margin = 4 * torch.finfo(points.dtype).eps * (points.abs() + distances)
    reach = distances - margin
    upper = torch.searchsorted(ordered, points + reach, right=True)
    return upper.sub_(torch.searchsorted(ordered, points - reach)).clamp_min_(1)
