"""Entropies of stacks of clouds in nats. A row of NaN is not a point of its cloud."""

from __future__ import annotations

import math

import torch

from ..errors import InputError
from ..ops.chunks import row_chunks
from ..ops.distances import distances_by_difference
from ..ops.kth_neighbor_distance import kth_neighbor_distance
from ..ops.scatter_sum import scatter_sum

# Distances and bandwidths below this are raised to it. The clouds have a scale near 1.
FLOOR = 1e-12
# The cost of the Gaussian kernel and of the eigenvalues grows with the square and the cube of the points of a cloud.
# Above this number the density is averaged over a part of them, and eigenvalues are those of a part.
MOST_POINTS = 2000
# From this number of points on, a k-d tree is faster than all distances.
TREE_POINTS = 5000
_CHUNK_ENTRIES = 2**22


def present(points: torch.Tensor) -> torch.Tensor:  # (B, n, C) -> (B, n) bool
    return ~points.isnan().any(-1)


# ---------------------------------------------------------------- histogram


def histogram_entropy(points: torch.Tensor, low: torch.Tensor, width: torch.Tensor, bins: int) -> torch.Tensor:  # (B,)
    """``log n - (1 / n) sum c log c`` over the counts c of the cells of a grid from ``low`` on, with cells ``width``.

    Only occupied cells are counted, so memory does not grow with bins^C.
    """
    cells = _cells(points, low, width, bins).sort(1).values
    is_first = torch.ones_like(cells, dtype=torch.bool)
    is_first[:, 1:] = cells[:, 1:] != cells[:, :-1]
    first = is_first.flatten().nonzero()[:, 0]
    counts = torch.diff(first, append=first.new_tensor([cells.numel()])).double()
    counts[cells.flatten()[first] < 0] = 0
    n = present(points).sum(1).double()
    weighted = scatter_sum(first // points.shape[1], torch.xlogy(counts, counts), len(points))
    return (n.log() - weighted / n).clamp_min(0)


def _cells(points: torch.Tensor, low: torch.Tensor, width: torch.Tensor, bins: int) -> torch.Tensor:  # (B, n) int64
    """The number of the cell of every point; -1 for rows of NaN."""
    n_components = points.shape[2]
    if bins**n_components >= 2**62:
        raise InputError(f"bins={bins} in {n_components} components make too many cells; accepted: fewer than 2^62")
    places = ((points - low) / width).nan_to_num(0).clamp(0, bins - 1).long()
    factors = torch.tensor([bins**c for c in range(n_components)], dtype=torch.int64, device=points.device)
    return (places * factors).sum(-1).masked_fill_(~present(points), -1)


# ---------------------------------------------------------------- Gaussian kernel


def kde_bandwidth(points: torch.Tensor) -> torch.Tensor:  # (B, n, C) -> (B,)
    """``s (4 / ((C + 2) n))^(1 / (C + 4))``, best for a round Gaussian; s^2 is the mean variance of a coordinate."""
    placed, n_components = present(points), points.shape[2]
    n = placed.sum(1).double()
    centered = points - points.nansum(1, keepdim=True) / n[:, None, None]
    variance = centered.square().nansum((1, 2)) / (n - 1) / n_components
    return variance.sqrt() * (4 / ((n_components + 2) * n)) ** (1 / (n_components + 4))


def kde_entropy(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # (B, n, C) -> (B,), (B,) int64
    """``-mean log p(x_i)``, p from the other points of the cloud; and n where the bandwidth was raised to the floor.

    Of a cloud with more than `MOST_POINTS` points the mean is over a random part of so many, each with its whole
    density.
    """
    n, n_components = present(points).sum(1).double(), points.shape[2]
    widths = kde_bandwidth(points)
    floored = (n * (widths < FLOOR)).long()
    scaled = points / widths.clamp_min(FLOOR)[:, None, None]
    mean = _mean_log_density(scaled) - (n - 1).log()
    constant = n_components * (widths.clamp_min(FLOOR).log() + math.log(2 * math.pi) / 2)
    return (constant - mean).masked_fill_(n < 2, torch.nan), floored


def _mean_log_density(points: torch.Tensor) -> torch.Tensor:  # (B, n, C) -> (B,)
    """The mean of the logarithms of sums of ``exp(-d^2 / 2)`` over the other points."""
    at = sampled_indices(points.shape[1], points.device)
    total, counted = points.new_zeros(2, len(points))
    for sets in row_chunks(len(points), len(at) * points.shape[1], _CHUNK_ENTRIES):
        for rows in row_chunks(len(at), points.shape[1], _CHUNK_ENTRIES):
            logs = _log_sums(points[sets], at[rows])
            total[sets] += logs.nansum(1)
            counted[sets] += (~logs.isnan()).sum(1)
    return total / counted


def _log_sums(points: torch.Tensor, at: torch.Tensor) -> torch.Tensor:  # (B, n, C), (r,) -> (B, r)
    exponents = distances_by_difference(points[:, at], points).square_().mul_(-0.5)
    exponents[:, torch.arange(len(at), device=at.device), at] = -torch.inf
    sums = exponents.nan_to_num_(-torch.inf, neginf=-torch.inf).logsumexp(-1)
    return sums.masked_fill_(~present(points[:, at]), torch.nan)


def sampled_indices(n: int, device: torch.device) -> torch.Tensor:
    """`MOST_POINTS` of ``n`` indices in order, the same in every call; all of fewer."""
    if n <= MOST_POINTS:
        return torch.arange(n, device=device)
    # Evenly spaced indices of nodes could all be nodes of the same unit.
    order = torch.randperm(n, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    return order[:MOST_POINTS].sort().values.to(device)


# ---------------------------------------------------------------- nearest neighbors


def knn_entropy(points: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:  # (B, n, C) -> (B,), (B,) int64
    """``psi(n) - psi(k) + log V_C + C mean log r_k`` (Kozachenko and Leonenko), and how many distances were floored.

    NaN for a cloud with at most ``k`` points.
    """
    placed, n_components = present(points), points.shape[2]
    n = placed.sum(1).double()
    if points.shape[1] <= k:
        return n.new_full(n.shape, torch.nan), n.new_zeros(n.shape, dtype=torch.int64)
    distances = _kth_distances(points, k)
    logs = distances.clamp_min(FLOOR).log().masked_fill_(~placed, 0)
    log_volume = n_components / 2 * math.log(math.pi) - math.lgamma(n_components / 2 + 1)
    psi_k = torch.special.digamma(n.new_tensor(float(k)))
    values = torch.special.digamma(n) - psi_k + log_volume + n_components * logs.sum(1) / n
    return values.masked_fill_(n <= k, torch.nan), ((distances < FLOOR) & placed).sum(1)


def _kth_distances(points: torch.Tensor, k: int) -> torch.Tensor:  # (B, n, C) -> (B, n)
    if points.shape[1] < TREE_POINTS:
        return kth_neighbor_distance(points.contiguous(), k, not bool(present(points).all()))
    return torch.stack([_by_tree(cloud, k) for cloud in points])


def _by_tree(cloud: torch.Tensor, k: int) -> torch.Tensor:  # (n, C) -> (n,)
    from scipy.spatial import cKDTree

    placed = present(cloud)
    places = cloud[placed].cpu().numpy()
    distances = cloud.new_full(placed.shape, torch.inf)
    if len(places) > k:
        nearest = cKDTree(places).query(places, k=[k + 1])[0][:, 0]  # the point itself is the first
        distances[placed] = torch.from_numpy(nearest).to(cloud)
    return distances
