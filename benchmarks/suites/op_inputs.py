"""The inputs of suite "ops"."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch

from mmphate_gpu import datasets
from mmphate_gpu.affinities.bandwidth import interslice_bandwidth
from mmphate_gpu.operators import LazyAffinity, SparseAffinity, affinity_of_points
from mmphate_gpu.ops.launch import twins
from mmphate_gpu.ops.radius_affinity import cut_distance
from mmphate_gpu.ops.tile_block import scaled_tiles
from mmphate_gpu.slices import unit_major
from mmphate_gpu.trace import normalize

TIMESTEPS = 80
COLUMNS = 110
LANDMARKS = 4000


class Data:
    """Units of the bifurcation suite, its affinity, and its landmarks, each made when it is first needed."""

    def __init__(self, device: torch.device, quick: bool) -> None:
        self.device, self.quick = device, quick
        self.n_landmark = 500 if quick else LANDMARKS

    @cached_property
    def points(self) -> torch.Tensor:  # (S, M, D)
        trace = datasets.bifurcation("hopf_pitchfork", n_epochs=20 if self.quick else 101, n_timesteps=TIMESTEPS)
        return normalize(trace).to(self.device)

    @cached_property
    def units(self) -> torch.Tensor:  # (M, S, D)
        return unit_major(self.points)

    @cached_property
    def masked_unit(self) -> torch.Tensor:  # (1, S, D)
        """A unit whose features, as samples of sequences that end, are NaN after the last half or less of the steps."""
        ends = torch.linspace(TIMESTEPS // 2, TIMESTEPS, self.units.shape[2], device=self.device).round()
        steps = torch.arange(self.units.shape[1], device=self.device) % TIMESTEPS
        return self.units[:1].masked_fill(steps[:, None] >= ends, torch.nan)

    @property
    def masked_needs(self) -> dict[str, float]:
        """The least work on all pairs of the masked unit: three operations for a feature that both points have."""
        present = self.masked_unit.isfinite().sum(1).double()
        return {"fma-float32": 1.5 * float(present.square().sum()), "bytes": 8.0 * self.masked_unit.numel()}

    @cached_property
    def bandwidth(self) -> torch.Tensor:
        return interslice_bandwidth(self.units, 25)

    @cached_property
    def reach(self) -> float:
        return float(cut_distance(self.bandwidth, decay=2, thresh=1e-4))

    @cached_property
    def sparse(self) -> SparseAffinity:
        return affinity_of_points(self.points, storage="sparse", dtype=torch.float32).operator

    @cached_property
    def lazy(self) -> LazyAffinity:
        return affinity_of_points(self.points, storage="lazy", dtype=torch.float32).operator

    @cached_property
    def block(self) -> torch.Tensor:  # (N, C) float64
        return self.random(self.points.shape[0] * self.points.shape[1], COLUMNS).double()

    @cached_property
    def features(self) -> torch.Tensor:  # (N, 100) float32
        return self.random(self.points.shape[0] * self.points.shape[1], 100)

    @cached_property
    def high(self) -> torch.Tensor:  # (L, 12) float64
        return self.random(self.n_landmark, 12).double()

    @cached_property
    def distances(self) -> torch.Tensor:  # (L, L) float64
        distances = torch.cdist(self.high, self.high)
        return ((distances + distances.T) / 2).fill_diagonal_(0)

    @cached_property
    def labels(self) -> torch.Tensor:  # (N,)
        """Landmarks of nodes like those of k-means: neighboring slices of a unit."""
        n_slices, n_units, _ = self.points.shape
        nodes, per_unit = torch.arange(n_slices * n_units, device=self.device), self.n_landmark // n_units
        return nodes % n_units * per_unit + nodes // n_units * per_unit // n_slices

    @cached_property
    def square(self) -> torch.Tensor:  # (L, L) float64, symmetric
        mixed = self.random(self.n_landmark, self.n_landmark).double()
        return (mixed + mixed.T) / 2

    @cached_property
    def halves(self) -> torch.Tensor:
        """The block in the form that the products of tiles take."""
        return scaled_tiles(self.lazy.interslice.tile_layout, self.block)[0]

    @cached_property
    def product(self) -> torch.Tensor:  # (N, C) float64, by torch
        return twins.PORTABLE["csr_matmul"](*self.sparse.csr[:3], self.block, 1)

    @property
    def stack_bytes(self) -> float:
        return 8.0 * self.units.numel()

    @property
    def unit_pairs(self) -> float:
        """Ordered pairs, each point with itself included. A twin may visit a pair once for both of its ends."""
        return float(self.units.shape[0] * self.units.shape[1] ** 2)

    @property
    def slice_pairs(self) -> float:
        return float(self.points.shape[0] * self.points.shape[1] ** 2)

    def distance_flop(self, pairs: float) -> float:
        """A difference, a product and a sum for every feature of each unordered pair."""
        return 3.0 * self.points.shape[2] * pairs / 2

    def random(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(self.device)


class Copies:
    """Copies of tensors that calls change, one for each call of a sample, so that all calls have the same inputs."""

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self.tensors = [tensor.clone() for tensor in tensors]
        self.copies: list[list[torch.Tensor]] = []
        self.used = 0

    def restore(self, n: int) -> None:
        """Make ``n`` copies of the original tensors."""
        while len(self.copies) < n:
            self.copies.append([torch.empty_like(tensor) for tensor in self.tensors])
        for copy in self.copies[:n]:
            for target, tensor in zip(copy, self.tensors, strict=True):
                target.copy_(tensor)
        self.used = 0

    def next(self) -> list[torch.Tensor]:
        self.used += 1
        return self.copies[self.used - 1]
