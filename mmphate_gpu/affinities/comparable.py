"""Which points of a masked stack can be compared: NaN is a missing sample, and two points need a common sample."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..neighbors import kth_neighbor_distance
from ..ops.chunks import chunk_elements, row_chunks
from ..ops.kth_neighbor_distance import nearest_others


def clamped_kth_distance(points: torch.Tensor, k: int, *, backend: str = "auto") -> torch.Tensor:  # (B, n, p) -> (B, n)
    """Distance to the ``k``-th nearest other point, or to the farthest if fewer than ``k`` share a sample with a point.

    A point that shares a sample with no other has 0. The fast search serves all sets in which every point with a sample
    has ``k`` comparable others.
    """
    kth = kth_neighbor_distance(points, k, backend=backend, masked=True)
    few = kth.isinf()
    sets = torch.nonzero((few & has_sample(points)).any(1)).squeeze(1)
    for part in row_chunks(len(sets), points.shape[1] * max(k, points.shape[2]), chunk_elements(points.device)):
        nearest, _ = nearest_others(points[sets[part]], k, masked=True)
        kth[sets[part]] = nearest.masked_fill_(nearest.isinf(), 0).amax(-1)
    return kth.masked_fill_(kth.isinf(), 0)


def has_sample(points: torch.Tensor) -> torch.Tensor:  # (B, n, p) -> (B, n) bool
    """Whether a point has a sample. Points without any are left out of the graph."""
    return ~points.isnan().all(-1)


def comparable_others(
    unit_points: torch.Tensor,
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:  # (M, S, D)
    """Groups of units whose slices have the same samples: units (m,), slices with a sample (s,), others (s,) int64.

    The last is the number of other slices that share a sample with a slice. Units without any sample are in no group.
    """
    present = ~unit_points.isnan()
    _, group = torch.unique(present.flatten(1), dim=0, return_inverse=True)
    for label in group.unique():
        units = torch.nonzero(group == label).squeeze(1)
        samples = present[units[0]]
        slices = torch.nonzero(samples.any(1)).squeeze(1)
        if len(slices):
            yield units, slices, _sharing(samples[slices]) - 1


def _sharing(samples: torch.Tensor) -> torch.Tensor:  # (n, p) bool -> (n,) int64
    """How many points share a sample with each point, itself included. Equal points are counted together."""
    patterns, which, counts = torch.unique(samples, dim=0, return_inverse=True, return_counts=True)
    numbers, sharing = patterns.float(), torch.empty_like(counts)
    for part in row_chunks(len(patterns), len(patterns), chunk_elements(samples.device)):
        sharing[part] = ((numbers[part] @ numbers.T > 0) * counts).sum(1)
    return sharing[which]
