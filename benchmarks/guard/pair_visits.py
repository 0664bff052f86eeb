"""Tiles of pairs that the kernels over pairs visit on the bifurcation suite, counted without running them.

A tile is visited if its box lies within reach of the box of the rows (csrc/cuda/pair_tiles.h). Without boxes every tile
would be visited. For `kth_neighbor_distance` only the rows in the bracket around the median count, a fifth of all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mmphate_gpu.affinities.bandwidth import interslice_bandwidth
from mmphate_gpu.datasets import bifurcation
from mmphate_gpu.ops.kth_neighbor_distance import SAMPLED, kth_neighbor_distance
from mmphate_gpu.ops.launch.kernel import blocks_of
from mmphate_gpu.ops.pair_stack import TILE
from mmphate_gpu.ops.point_tiles import kd_order
from mmphate_gpu.ops.radius_affinity import cut_distance
from mmphate_gpu.slices import unit_major
from mmphate_gpu.trace import normalize

KNN = 25
SCENARIOS = ("hopf", "hopf_pitchfork")


@dataclass(frozen=True)
class Visits:
    """The shares of all tiles of pairs that a kernel visits in a scenario."""

    scenario: str
    kernel: str
    in_order_of_time: float | None  # boxes in reach, with the points in their order of time
    in_reach: float  # the same with the points in the order of a kd-tree
    visited: float  # those of them that are visited: on the diagonal or above if the kernel uses the symmetry


def visits(n_epochs: int = 101, n_timesteps: int = 80) -> list[Visits]:
    return [row for scenario in SCENARIOS for row in _of_scenario(scenario, n_epochs, n_timesteps)]


def _of_scenario(scenario: str, n_epochs: int, n_timesteps: int) -> list[Visits]:
    points = unit_major(normalize(bifurcation(scenario, n_epochs=n_epochs, n_timesteps=n_timesteps))).contiguous()
    ordered = torch.take_along_dim(points, kd_order(points)[..., None], 1)
    reach = cut_distance(interslice_bandwidth(points, KNN), decay=2, thresh=1e-4).expand(points.shape[0])
    n = points.shape[1]
    kth = kth_neighbor_distance(ordered, KNN)
    sample = ((2 * torch.arange(SAMPLED) + 1) * n // (2 * SAMPLED)).clamp_max(n - 1)
    sampled, spread = kth[:, sample].sort(1).values, int(1.5 * SAMPLED**0.5) + 1
    low, high = sampled[:, SAMPLED // 2 - spread], sampled[:, SAMPLED // 2 + spread]
    between = (kth >= low[:, None]) & (kth <= high[:, None])
    shares = [
        _share(_near(of_set[rows][None], of_set[None], far[None]))
        for of_set, rows, far in zip(ordered, between, high, strict=True)
    ]
    of_bracket = sum(shares) / len(shares)

    def counted(kernel: str, radius: torch.Tensor) -> Visits:
        by_time, near = _near(points, points, radius), _near(ordered, ordered, radius)
        return Visits(scenario, kernel, _share(by_time), _share(near), _share(near.triu()))

    return [
        counted("radius_count", reach),
        counted("bracket_count", high),
        Visits(scenario, "kth_neighbor_distance", None, of_bracket, of_bracket),
    ]


def _share(marks: torch.Tensor) -> float:
    return float(marks.double().mean())


def _near(rows: torch.Tensor, columns: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:  # (B, tiles, tiles) bool
    """Which boxes of tiles of ``rows`` and ``columns`` (B, n, p) lie within ``radius`` (B,)."""
    (low, high), (low_2, high_2) = _boxes(rows), _boxes(columns)
    gaps = torch.maximum(low[:, :, None] - high_2[:, None], low_2[:, None] - high[:, :, None]).clamp_min_(0)
    return gaps.square_().sum(-1) <= radius[:, None, None] ** 2


def _boxes(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # (B, n, p) -> 2 x (B, tiles, p)
    n = points.shape[1]
    last = points[:, -1:].expand(-1, blocks_of(n, TILE) * TILE - n, -1)
    tiles = torch.cat([points, last], 1).view(points.shape[0], -1, TILE, points.shape[2])
    return tiles.amin(2), tiles.amax(2)
