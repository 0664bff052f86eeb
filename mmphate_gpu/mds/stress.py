"""Stress: how well coordinates reproduce distances."""

from __future__ import annotations

import torch

from ..errors import InputError
from ..linalg.safe_scale import safe_scale
from ..ops.chunks import row_chunks
from ..ops.distances import distances_by_difference
from ..runtime.arrays import takes_arrays


@takes_arrays("distances", "coordinates")
def stress(distances: torch.Tensor, coordinates: torch.Tensor) -> float:  # (L, L), (L, C)
    """Kruskal's normalized stress-1: sqrt(sum (D - d)^2 / sum D^2), or 0 if all distances are 0.

    D are the ``distances`` (L, L), and d are the distances between the rows of ``coordinates`` (L, C). O(L^2 C) time,
    chunks of memory. Deterministic.

    Raises
    ------
    InputError
        Shapes that do not fit one another, or numbers that are not finite.
    """
    n = len(coordinates) if coordinates.ndim == 2 else None
    if tuple(distances.shape) != (n, n):
        shapes = f"distances has shape {tuple(distances.shape)} and coordinates {tuple(coordinates.shape)}"
        raise InputError(f"{shapes}; accepted: (L, L) and (L, n_components)")
    for name, array in (("distances", distances), ("coordinates", coordinates)):
        if array.numel() == 0 or not bool(torch.isfinite(array).all()):
            raise InputError(f"{name} is empty or contains NaN or infinity; accepted: finite numbers")
    scale = safe_scale(distances)
    if scale == 1:
        return stress_in_range(distances, coordinates)
    return stress_in_range(distances.double() * scale, coordinates.double() * scale)


def stress_in_range(distances: torch.Tensor, coordinates: torch.Tensor) -> float:
    """`stress` of finite distances whose squares neither overflow nor vanish."""
    residual = torch.zeros((), dtype=torch.float64, device=distances.device)
    total = torch.zeros_like(residual)
    points = coordinates.double()
    for rows in row_chunks(*distances.shape):
        wanted = distances[rows].double()
        residual += (wanted - distances_by_difference(points[rows], points)).square().sum()
        total += wanted.square().sum()
    return float((residual / total).sqrt()) if float(total) > 0 else 0.0
