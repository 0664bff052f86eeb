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
    distance. Every row depends on its own point alone. O(M S_new S (D + C)) time, chunks of memory. Deterministic.
    """
    out = targets.new_empty(*points.shape[:2], targets.shape[-1])
    for unit in range(points.shape[0]):
        for rows in row_chunks(points.shape[1], fitted.shape[1]):
            scores = -(distances_by_difference(points[unit, rows], fitted[unit]) / bandwidth).square()
            best = scores.amax(1, keepdim=True)
            cut = scores < (math.log(thresh) if thresh > 0 else -math.inf)
            scores = torch.where(
                best < scores.new_tensor(thresh).log(), scores - best, scores.masked_fill(cut, -math.inf)
            )
            # One row's product at a time depends on no other row, which a matrix product does not promise to the last
            # bit.
            weights = scores.exp()
            out[unit, rows] = (weights / weights.sum(1, keepdim=True)) @ targets[unit]
    return out
