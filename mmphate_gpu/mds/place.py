"""Out-of-sample rows: new points among the fitted ones of their own unit."""

from __future__ import annotations

import math

import torch

from ..ops.chunks import row_chunks
from ..ops.distances import distances_by_difference


def place(
    points: torch.Tensor,  # (M, S_new, D) float64
    fitted: torch.Tensor,  # (M, S, D) float64
    targets: torch.Tensor,  # (M, S, C)
    bandwidth: torch.Tensor,  # ()
    *,
    thresh: float,
) -> torch.Tensor:  # (M, S_new, C)
    """Means of ``targets`` weighted by exp(-(d / bandwidth)^2), cut at ``thresh``.

    A point with no fitted one within the cut takes the weights the kernel has without it: the same ratios, whatever the
    distance. Every row depends on its own point alone, to rounding. O(M S_new S (D + C)) time, chunks of memory.
    Deterministic.
    """
    out = targets.new_empty(*points.shape[:2], targets.shape[-1])
    least = math.log(thresh) if thresh > 0 else -math.inf
    for unit in range(points.shape[0]):
        for rows in row_chunks(points.shape[1], fitted.shape[1]):
            scores = -(distances_by_difference(points[unit, rows], fitted[unit]) / bandwidth).square()
            best = scores.amax(1, keepdim=True)
            cut = (scores < least) & (best >= least)
            weights = (scores - best).exp_().masked_fill_(cut, 0)  # only their ratios count
            out[unit, rows] = (weights / weights.sum(1, keepdim=True)) @ targets[unit]
    return out
