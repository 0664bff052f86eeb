"""Landmarks that lie on one place although their distance is not 0, which no minimum of the stress has."""

from __future__ import annotations

import torch

from ..linalg.random import seeded_generator
from ..ops.distances import distances_by_difference

# Shares of the largest distance. Points this close count as coincident. A wanted distance up to the second share counts
# as 0, because the sweeps in float32 do not resolve it.
TOGETHER, WANTED = 1e-8, 1e-5


def parted(
    distances: torch.Tensor, points: torch.Tensor, together: float = TOGETHER
) -> torch.Tensor | None:  # (L, L), (L, C) -> (L, C)
    """``points`` where those on one place stand apart, or None if all coincident points have distance 0.

    Points coincide whose distance is at most the share ``together`` of the largest. A sweep cannot part such points,
    because no direction is known. Here each takes a step in a fixed random direction.
    Take a pair of distance D. At a stationary point a step s changes the squared errors of all other pairs by about
    L s^2, and that of this pair falls by 2 D s. So s is D / (4 L), or the share 1e-5 of the largest distance if that is
    more. O(L log L) time where no points coincide, and O(k^2) for the k points that others are near. Deterministic.
    Source: de Leeuw, "Differentiability of Kruskal's stress at a local minimum", 1984.
    """
    largest = float(distances.max())
    crowded = _crowded(points, together * largest)
    if len(crowded) < 2:
        return None
    wanted = distances[crowded][:, crowded].double()
    close = distances_by_difference(points[crowded], points[crowded]) <= together * largest
    wanted = wanted.masked_fill_(~close | (wanted <= WANTED * largest), torch.inf).amin(1)
    step = (wanted / (4 * len(points))).clamp_min(WANTED * largest).masked_fill_(wanted == torch.inf, 0)
    if not bool(step.any()):
        return None
    return points.index_add(
        0, crowded, step[:, None] * _directions(len(points), points.shape[1], points.device)[crowded]
    )


def _crowded(points: torch.Tensor, together: float) -> torch.Tensor:  # (L, C) -> (k,) int64
    """The points whose neighbors along a line are as near as ``together``: all coincident points, and few others."""
    line = points @ _directions(points.shape[1], 1, points.device)[:, 0]
    order = line.argsort(stable=True)
    near = line[order].diff() <= 4 * together  # the direction may be longer than 1
    beside = torch.nn.functional.pad(near, (1, 0)) | torch.nn.functional.pad(near, (0, 1))
    return order[beside].sort().values


def _directions(n: int, n_components: int, device: torch.device) -> torch.Tensor:  # (n, C)
    directions = torch.randn(n, n_components, dtype=torch.float64, device="cpu", generator=seeded_generator(0))
    return directions.to(device)
