"""k-means for many clusters: seeds drawn in rounds, Lloyd steps by matrix products."""

from __future__ import annotations

import torch

from ..params import InputError, check_number
from .chunks import row_chunks
from .csr import Csr, to_torch

# Every round of D^2-weighted seeding adds this share of the centres there are already (at least one): nearly as well
# spread as one at a time (k-means++), in a few dozen rounds that together cost one assignment. Seeds drawn evenly
# leave up to twice the inertia, and with it another diffusion time.
SEED_GROWTH = 0.2
# Points per cluster among which the seeds are drawn. On the bifurcation suite (48,480 nodes, 4000 clusters) 3 gave
# inter-slice neighbourhood preservations of 0.142 / 0.254 and 0.219 / 0.401, all points 0.069 / 0.121 (Hopf and
# pitchfork).
SEED_SAMPLE = 3


def kmeans(
    points: torch.Tensor,  # (N, D)
    n_clusters: int,
    *,
    max_iter: int = 10,
    tol: float = 1e-3,
    generator: torch.Generator | None = None,
) -> torch.Tensor:  # (N,) int64
    """Cluster labels 0 .. k-1 with k at most ``n_clusters``; empty clusters are dropped.

    Stops after ``max_iter`` Lloyd steps or when fewer than ``tol`` of the points change their cluster. O(N k D) time
    a step, O((N + k) D) memory and bounded chunks. Deterministic for one generator state. Source of the seeding:
    Bahmani et al., "Scalable k-means++", 2012 (here without oversampling).
    """
    check_number("n_clusters", n_clusters, low=1, integer=True)
    if points.ndim != 2 or points.shape[0] == 0:
        raise InputError(f"points has shape {tuple(points.shape)}; accepted: two axes (point, feature), not empty")
    # Centred and scaled: squares of tiny features stay normal numbers, and the product form loses no digits to an
    # offset.
    points = points - points.mean(0)
    points = points / points.abs().max().clamp_min(torch.finfo(points.dtype).tiny)
    centers = _seeds(points, min(n_clusters, points.shape[0]), generator)
    labels, _ = assign_nearest(points, centers)
    for _ in range(max_iter):
        centers = _means(points, labels, centers)
        previous, (labels, _) = labels, assign_nearest(points, centers)
        if int((labels != previous).sum()) < tol * labels.numel():
            break
    return torch.unique(labels, return_inverse=True)[1]


def assign_nearest(points: torch.Tensor, centers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Label of the nearest centre and squared distance to it: (N, D), (k, D) -> (N,) int64, (N,)."""
    labels = torch.empty(points.shape[0], dtype=torch.int64, device=points.device)
    squared = torch.empty(points.shape[0], dtype=points.dtype, device=points.device)
    center_norms = centers.square().sum(1)
    for rows in row_chunks(points.shape[0], centers.shape[0]):
        block = points[rows]
        least, labels[rows] = torch.addmm(center_norms[None], block, centers.T, alpha=-2).min(1)
        squared[rows] = (least + block.square().sum(1)).clamp_min(0)
    return labels, squared


def _seeds(points: torch.Tensor, n_clusters: int, generator: torch.Generator | None) -> torch.Tensor:  # (k, D)
    """Well spread points of a random sample: all points would give the outliers every seed, and the bulk none."""
    if points.shape[0] > SEED_SAMPLE * n_clusters:
        even = _weighted_draw(points.new_ones(points.shape[0]), SEED_SAMPLE * n_clusters, generator)
        points = points[even]
    chosen = [_weighted_draw(points.new_ones(points.shape[0]), 1, generator)]
    _, squared = assign_nearest(points, points[chosen[0]])
    while (missing := n_clusters - sum(map(len, chosen))) > 0:
        # Points already chosen, and duplicates of them, have weight 0 and are drawn only when nothing else is left.
        squared[torch.cat(chosen)] = 0
        share = max(1, int(SEED_GROWTH * (n_clusters - missing)))
        new = _weighted_draw(squared, min(missing, share), generator)
        chosen.append(new)
        squared = torch.minimum(squared, assign_nearest(points, points[new])[1])
    return points[torch.cat(chosen)]


def _weighted_draw(weights: torch.Tensor, k: int, generator: torch.Generator | None) -> torch.Tensor:  # (n,) -> (k,)
    """``k`` distinct indices with probability proportional to ``weights`` (exponential races)."""
    clocks = torch.empty(weights.numel(), dtype=torch.float64).exponential_(generator=generator)
    return torch.topk(weights.double() / clocks.to(weights.device), k).indices


def _means(points: torch.Tensor, labels: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:  # (k, D)
    """Means of the clusters; an empty one keeps its centre. A sparse product, so that the order of summing is fixed."""
    counts = torch.bincount(labels, minlength=centers.shape[0])
    order = torch.argsort(labels, stable=True)
    indptr = torch.zeros(centers.shape[0] + 1, dtype=torch.int64, device=points.device)
    torch.cumsum(counts, 0, out=indptr[1:])
    members = Csr(indptr, order, points.new_ones(order.numel()), (centers.shape[0], points.shape[0]))
    sums = to_torch(members) @ points
    return torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], centers)
