"""Islands of the diffusion graph: distances between them by their states, and a gap that keeps them apart.

Diffusion never leaves an island, so the potentials of two islands say nothing of their places. Their states do.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from ..linalg.components import Components
from ..linalg.safe_scale import safe_scale
from ..ops.chunks import chunk_elements, row_chunks
from ..ops.distances import distances_by_difference
from ..ops.scatter_sum import scatter_sum
from .metric import MDSResult
from .stress import stress_in_range

# If the distances within islands are below this share of the largest, islands are points up to rounding and give no
# scale.
POINTS = 1e-6
# The gap between islands, as a share of the distance between neighbors if the landmarks filled the picture evenly.
GAP = 0.1


def mean_states(points: torch.Tensor, clusters: torch.Tensor, n: int) -> torch.Tensor:  # (N, D), (N,) -> (n, D)
    """The mean point of the nodes of every landmark.

    NaN is a missing sample, which does not count. If all nodes of a landmark lack a sample, the mean of all landmarks
    takes its place. O(N D) time. Deterministic.
    """
    columns = []
    for column in points.unbind(1):
        missing = column.isnan()
        counts = scatter_sum(clusters, (~missing).to(points.dtype), n)
        means = scatter_sum(clusters, column.masked_fill(missing, 0), n) / counts
        columns.append(torch.where(counts > 0, means, means.nanmean().nan_to_num(0)))
    return torch.stack(columns, 1)


def distances_by_states(
    distances: torch.Tensor,  # (L, L) float64
    states: torch.Tensor,  # (L, D) float64
    groups: Components,
) -> torch.Tensor:  # (L, L) float64
    """Replace the ``distances`` between islands, in place, by those of the mean ``states`` of the landmarks.

    The distances of states are scaled by the factor that fits them to the ``distances`` within islands, in the least
    squares. Above the largest of the ``distances`` they grow as a logarithm, so that their order stays and islands far
    apart remain visible. Distances within islands do not change, and none does if all states are equal. O(L^2 D) time,
    chunks of memory. Deterministic.
    """
    states, islands = states * safe_scale(states), _island_of_landmark(groups)
    largest = float(distances.max())
    scale = _scale(distances, states, groups, largest)
    for rows in row_chunks(len(states), len(states), chunk_elements(distances.device)) if scale > 0 else ():
        wanted = distances_by_difference(states[rows], states).mul_(scale / largest)
        wanted = wanted.clamp_max(1).add_(wanted.clamp_min(1).log_()).mul_(largest)
        distances[rows] = torch.where(islands[rows, None] == islands, distances[rows], wanted)
    return distances


def _island_of_landmark(groups: Components) -> torch.Tensor:  # (L,) int64
    """The number of the island of every landmark."""
    islands = groups[0].new_empty(sum(members.numel() for members in groups))
    first = 0
    for members in groups:
        islands[members] = torch.arange(first, first + len(members), device=members.device)[:, None]
        first += len(members)
    return islands


def _scale(distances: torch.Tensor, states: torch.Tensor, groups: Components, largest: float) -> float:
    """The factor from distances of ``states`` to ``distances``; 0 if all states are equal, or all distances 0.

    It comes from the pairs within islands. If all islands are points, it keeps the mean square of the ``distances``.
    """
    sums = distances.new_zeros(3)
    for members in groups:
        for rows in row_chunks(members.shape[1], members.numel(), chunk_elements(distances.device)):
            wanted = distances[members[:, rows, None], members[:, None]]
            of_states = distances_by_difference(states[members[:, rows]], states[members])
            sums += torch.stack([(of_states * wanted).sum(), of_states.square().sum(), wanted.square().sum()])
    n_pairs = sum(members.numel() * members.shape[1] for members in groups)
    both, inner, width = sums.tolist()
    if inner > 0 and math.sqrt(width / n_pairs) > POINTS * largest:
        return both / inner
    squares = 2 * len(states) * float((states - states.mean(0)).square().sum())  # of all distances of states
    return float(distances.norm()) / math.sqrt(squares) if squares > 0 else 0.0


def with_gaps(mds: MDSResult, distances: torch.Tensor, groups: Components) -> MDSResult:
    """Islands moved so far that no landmark is nearer than a gap to one of another island.

    Islands with a gap around them stay. The others follow, those of most landmarks first, each to the nearest free
    place on the line from the middle of the largest island through theirs. An island moves as a whole. The
    ``stress`` is that of the result. O(L^2) time on the host. Deterministic.
    """
    points = mds.coordinates.to("cpu", copy=True)
    groups = [members.cpu() for members in reversed(groups)]
    gap = GAP * 2 * float(points.norm()) / math.sqrt(len(points)) * len(points) ** (-1 / points.shape[1])
    middle, crowded = points[groups[0][0]].mean(0), _crowded(points, groups, gap)
    if not crowded.any():
        return mds
    placed = ~crowded
    for members in (row for group in groups for row in group if crowded[row].any()):
        direction = _direction(points[members].mean(0) - middle)
        points[members] += direction * _nearest_free(points[members], points[placed], direction, gap)
        placed[members] = True
    coordinates = (points - points.mean(0)).to(mds.coordinates.device)
    return replace(mds, coordinates=coordinates, stress=stress_in_range(distances, coordinates))


def _crowded(points: torch.Tensor, groups: Components, gap: float) -> torch.Tensor:  # (L, C) -> (L,) bool
    """The landmarks of islands that come nearer than ``gap`` to another island."""
    islands = _island_of_landmark(groups)
    near = [
        ((distances_by_difference(points[rows], points) < gap) & (islands[rows, None] != islands)).any(1)
        for rows in row_chunks(len(points), len(points))
    ]
    return torch.isin(islands, islands[torch.cat(near)])


def _direction(vector: torch.Tensor) -> torch.Tensor:  # (C,) -> (C,)
    """``vector`` with norm 1; the first axis in place of 0."""
    norm = vector.norm()
    return vector / norm if norm > 0 else torch.eye(1, len(vector), dtype=vector.dtype, device="cpu")[0]


def _nearest_free(island: torch.Tensor, placed: torch.Tensor, direction: torch.Tensor, gap: float) -> torch.Tensor:
    """The least step along ``direction`` after which the points of ``island`` are a ``gap`` away from the ``placed``.

    (n, C), (m, C), (C,) -> (). Every pair of points forbids an interval of steps.
    """
    lows, highs = [], []
    for rows in row_chunks(len(island), len(placed)):
        along = (placed @ direction) - (island[rows] @ direction)[:, None]
        squared = distances_by_difference(island[rows], placed).square_()
        half = (gap**2 - squared + along.square()).clamp_min_(0).sqrt_()
        forbidden = half > 0
        lows.append((along - half)[forbidden])
        highs.append((along + half)[forbidden])
    low, order = torch.cat(lows).sort()
    high = torch.cat(highs)[order].cummax(0).values
    ends = low.new_tensor([-math.inf, math.inf])
    start, end = torch.cat([ends[:1], high]), torch.cat([low, ends[1:]])
    steps = torch.minimum(start.clamp_min(0), end)[start <= end]
    return steps[steps.abs().argmin()]
