"""Distances between points by differences of coordinates.

A masked point holds NaN at features that it lacks. The distance of two masked points is that over the features which
both have, scaled to all features: ``sqrt(sum (x_f - y_f)^2 * (p / count))``, where ``count`` of ``p`` features are
common. The sum runs in the order of the features, and p / count is rounded before it multiplies the sum.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from .chunks import Chunk


def distances_by_difference(
    x: torch.Tensor, y: torch.Tensor, masked: bool = False, *, apart: float = math.inf
) -> torch.Tensor:  # (..., n, p), (..., k, p) -> (..., n, k)
    """Euclidean distances, each from the differences of the coordinates of its two points.

    Distances by a matrix product lose every digit of a small distance, and once training has converged, distances are
    small. ``masked`` points may lack features, and ``apart`` is the distance of two that share none. Symmetric to the
    last bit. O(n k p) time, O(n k) memory.
    """
    if masked:
        return _masked_distances(x, y, apart)
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def _masked_distances(x: torch.Tensor, y: torch.Tensor, apart: float) -> torch.Tensor:
    shape = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    square, count = x.new_zeros(2, *shape, x.shape[-2], y.shape[-2])
    for x_f, y_f in zip(x.unbind(-1), y.unbind(-1), strict=True):
        difference = x_f[..., :, None] - y_f[..., None, :]
        lacking = difference.isnan()
        square += difference.square_().masked_fill_(lacking, 0)
        count += ~lacking
    p = count.new_full((), x.shape[-1])  # a tensor, because number / tensor takes a rounded reciprocal
    return _root_(square.mul_(p / count)).masked_fill_(count == 0, apart)


def _root_(square: torch.Tensor) -> torch.Tensor:
    """The root in place, rounded correctly. On the CPU torch may take that of MKL, whose last bit is at times wrong."""
    if square.device.type != "cpu":
        return square.sqrt_()
    np.sqrt(square.numpy(), out=square.numpy())
    return square


def chunk_distances(
    points: torch.Tensor,
    chunk: Chunk,
    *,
    to_itself: float | None = None,
    masked: bool = False,
    apart: float = math.inf,
) -> torch.Tensor:  # (B, n, p) -> (sets, rows, n)
    """Distances of the points of ``chunk`` to all points of their set; ``to_itself`` replaces those of 0 to itself."""
    distances = distances_by_difference(points[chunk.sets, chunk.rows], points[chunk.sets], masked, apart=apart)
    if to_itself is not None:
        rows = torch.arange(chunk.rows.start, chunk.rows.stop, device=points.device)
        distances[:, rows - chunk.rows.start, rows] = to_itself
    return distances
