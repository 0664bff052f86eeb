"""k-means for many clusters, of a set of points or of a stack: seeds drawn in rounds, Lloyd steps by products."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..errors import InputError, check_number
from ..ops.assign_nearest import assign_nearest
from ..ops.csr import Csr, to_torch
from ..runtime.isolation import isolated

# Each round of the seeding, weighted by squared distances, adds this share of the centers that it has, and at least one
# center. The seeds are spread nearly as well as those of k-means++, which adds one at a time, but in a few dozen rounds
# that together cost one assignment.
SEED_GROWTH = 0.2
# Points for every cluster among which the seeds are drawn (docs/decisions.md, "How the seeds of k-means are drawn").
SEED_SAMPLE = 3


@isolated()
def kmeans(
    points: torch.Tensor,  # (n, p) or (B, n, p)
    n_clusters: int,
    *,
    max_iter: int = 10,
    tol: float = 1e-3,
    generator: torch.Generator | None = None,
) -> torch.Tensor:  # (n,) or (B, n) int64
    """Cluster labels 0 .. k - 1 with k at most ``n_clusters``; empty clusters are dropped.

    Each set of a stack is clustered into ``n_clusters`` by itself, and no two sets share a label. The iteration stops
    after ``max_iter`` Lloyd steps, or when fewer than ``tol`` of the points change their cluster. O(B n k p) time a
    step; memory O(B (n + k) p), bounded chunks, and 8 bytes for every set, point of the sample (three for a cluster)
    and round of the seeding (45 for 4000 clusters). On CUDA the host waits once in the seeding, once a step for the
    number of changes, and once at the end. Deterministic for a generator state. Source of the seeding: Bahmani et al.,
    "Scalable k-means++", 2012 (here without oversampling).
    """
    check_number("n_clusters", n_clusters, low=1, integer=True)
    if points.ndim not in (2, 3) or points.shape[-2] == 0 or points.shape[0] == 0:
        accepted = "two axes (point, feature) or three (set, point, feature), not empty"
        raise InputError(f"points has shape {tuple(points.shape)}; accepted: {accepted}")
    # Centered and scaled, so that squares of tiny features stay normal numbers, and distances by products lose no
    # digits to an offset.
    points = points - points.mean(-2, keepdim=True)
    points = points / points.abs().amax((-2, -1), keepdim=True).clamp_min(torch.finfo(points.dtype).tiny)
    centers = _seeds(points, min(n_clusters, points.shape[-2]), generator)
    labels, _ = assign_nearest(points, centers)
    for _ in range(max_iter):
        centers = _means(points, labels, centers)
        previous, (labels, _) = labels, assign_nearest(points, centers)
        if int((labels != previous).sum()) < tol * labels.numel():
            break
    return torch.unique(_labels_of_all(labels, centers.shape[-2]), return_inverse=True)[1]


def _labels_of_all(labels: torch.Tensor, k: int) -> torch.Tensor:
    """Labels 0 .. k - 1 of every set, made distinct between the sets."""
    if labels.ndim == 1:
        return labels
    return labels + k * torch.arange(labels.shape[0], device=labels.device)[:, None]


def _seeds(points: torch.Tensor, n_clusters: int, generator: torch.Generator | None) -> torch.Tensor:  # (..., k, p)
    """Well spread points of a random sample: among all points most seeds would be outliers."""
    n_points, n_sampled = points.shape[-2], min(points.shape[-2], SEED_SAMPLE * n_clusters)
    first, *shares = _shares(n_clusters)
    whole = [n_points] * (n_sampled < n_points)
    clocks = _clocks(points, [*whole, n_sampled, *[n_sampled] * len(shares)], generator)
    if whole:
        points = _take(points, _weighted_draw(points.new_ones(points.shape[:-1]), n_sampled, next(clocks)))
    chosen = _weighted_draw(points.new_ones(points.shape[:-1]), first, next(clocks))
    _, squared = assign_nearest(points, _take(points, chosen))
    for share in shares:
        # Chosen points, and their duplicates, have weight 0 and are drawn only when no others are left.
        squared.scatter_(-1, chosen, 0)
        new = _weighted_draw(squared, share, next(clocks))
        chosen = torch.cat([chosen, new], -1)
        squared = torch.minimum(squared, assign_nearest(points, _take(points, new))[1])
    return _take(points, chosen)


def _shares(n_clusters: int) -> list[int]:
    """The number of centers that each round of the seeding adds.

    >>> _shares(12)
    [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2]
    """
    shares = [1]
    while (missing := n_clusters - sum(shares)) > 0:
        shares.append(min(missing, max(1, int(SEED_GROWTH * sum(shares)))))
    return shares


def _clocks(points: torch.Tensor, sizes: list[int], generator: torch.Generator | None) -> Iterator[torch.Tensor]:
    """For every draw an exponential variate for every set and index, (..., size) float64, on the device of ``points``.

    They come from a single draw on the CPU, with the numbers of separate draws, and a single copy.
    """
    sets = points.shape[:-2]
    totals = [sets.numel() * size for size in sizes]
    clocks = torch.empty(sum(totals), dtype=torch.float64, device="cpu").exponential_(generator=generator)
    clocks = clocks.to(points.device)
    for part, size in zip(clocks.split(totals), sizes, strict=True):
        yield part.view(*sets, size)


def _take(points: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:  # (..., n, p), (..., k) -> (..., k, p)
    return points.gather(-2, chosen[..., None].expand(*chosen.shape, points.shape[-1]))


def _weighted_draw(weights: torch.Tensor, k: int, clocks: torch.Tensor) -> torch.Tensor:
    """``k`` distinct indices (..., k), drawn in proportion to ``weights`` (..., n): the first of exponential clocks."""
    return torch.topk(weights.double() / clocks, k).indices


def _means(points: torch.Tensor, labels: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:  # (..., k, p)
    """Means of the clusters, by a sparse product, which sums in a fixed order; an empty cluster keeps its center."""
    n_centers = centers.shape[:-1].numel()
    labels = _labels_of_all(labels, centers.shape[-2]).flatten()
    labels, order = torch.sort(labels, stable=True)
    indptr = torch.searchsorted(labels, torch.arange(n_centers + 1, device=points.device))
    members = Csr(indptr, order, points.new_ones(order.numel()), (n_centers, order.numel()))
    sums = to_torch(members) @ points.reshape(-1, points.shape[-1])
    counts = indptr.diff()[:, None]
    means = torch.where(counts > 0, sums / counts.clamp_min(1), centers.reshape(n_centers, -1))
    return means.view(centers.shape)
