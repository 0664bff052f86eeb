"""The clouds of points whose entropy is measured: all units of a slice, all time steps of a unit, and so on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from ..linalg.random import seeded_generator
from ..linalg.safe_scale import safe_scale

# The axes that remain, by the axis that a cloud runs over.
REMAINING = {
    "units": ("epoch", "timestep"),
    "timesteps": ("epoch", "unit"),
    "epochs": ("timestep", "unit"),
    "nodes": (),
}
# The order of the axes of (E, T, M, C) that puts the axis of a cloud last but one.
_ORDER = {"units": (0, 1, 2, 3), "timesteps": (0, 2, 1, 3), "epochs": (1, 2, 0, 3), "nodes": (0, 1, 2, 3)}


class Clouds(NamedTuple):
    """B clouds of n points each, and which points of a cloud belong together."""

    points: torch.Tensor  # (B, n, C) float64; NaN for a node without a place
    members: torch.Tensor  # (n,) the unit, time step or epoch of every point
    shape: tuple[int, ...]  # of the axes that remain; their product is B

    @property
    def n_members(self) -> int:
        return int(self.members[-1]) + 1


def clouds(points: torch.Tensor, over: str) -> Clouds:  # (E, T, M, C)
    """The clouds over one axis. Over nodes the members of the only cloud are the units."""
    ordered = points.permute(*_ORDER[over])
    n_members = ordered.shape[2]
    shape = tuple(ordered.shape[:2]) if REMAINING[over] else ()
    stack = ordered.reshape(-1, n_members, points.shape[3])
    members = torch.arange(n_members, device=points.device)
    if not shape:
        members = members.repeat(len(stack))
        stack = stack.reshape(1, -1, points.shape[3])
    return Clouds(stack, members, shape)


def root_mean_square_radius(points: torch.Tensor) -> float:  # (..., C)
    """The root of the mean squared distance of the points from their mean; 1 if all are equal.

    Rows of NaN do not count.
    """
    rows = points.reshape(-1, points.shape[-1])
    rows = rows[~rows.isnan().any(1)]
    if not len(rows):
        return 1.0
    factor = safe_scale(rows)
    rows = rows * factor
    return float((rows - rows.mean(0)).square().sum(1).mean().sqrt()) / factor or 1.0


def half_samples(clouds: Clouds, n_samples: int, random_state: int | None) -> Iterator[torch.Tensor]:  # (n,) bool
    """Which points of a cloud are in each random half of its members; every cloud has the same members."""
    generator = seeded_generator(random_state)
    for _ in range(n_samples):
        order = torch.randperm(clouds.n_members, generator=generator, device="cpu").to(clouds.members.device)
        yield (order < half_size(clouds.n_members))[clouds.members]


def half_size(n_members: int) -> int:
    return (n_members + 1) // 2
