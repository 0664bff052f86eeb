"""The comparisons: one input for all peers, and a judge of their results.

picture      from a trace, a picture of its nodes
graph        from our affinity, a picture
mds          from distances of landmarks and a start, coordinates
product      our affinity times 110 columns
neighbors    the 25 nearest other slices of every slice of a unit, or the distance to the last of them

A size is a number of nodes of the bifurcation suite, with six units of ten samples; for mds it is a number of
landmarks. Every process makes its input from the same seed, and only the forms of it that the peer uses. What the judge
needs is made after the run.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from benchmarks.peers import Result
from mmphate_gpu import (
    Trace,
    datasets,
    diffusion_potential,
    landmark_diffusion,
    metric_mds,
    neighborhood_preservation,
    potential_distances,
    to_cupy,
    to_scipy,
)
from mmphate_gpu.operators import AffinityOperator, affinity_of_points
from mmphate_gpu.operators.lazy_keops import LazyKeopsAffinity
from mmphate_gpu.ops.csr import to_torch
from mmphate_gpu.slices import unit_major
from mmphate_gpu.trace import normalize

KEPT = (10, 40)  # slices of a unit
KEPT_WITHIN = 2  # units of a slice: there are six
# Trustworthiness sorts all distances at once, a second for each million pairs: too long for more nodes.
MOST_FOR_TRUST = 4_100
TRUST_NEIGHBORS = 10
COLUMNS = 110
DTYPES = {"float32": torch.float32, "float64": torch.float64}
KNN = 25
DIFFUSION_TIME = 20
# Distances that differ by less, relatively, are equal.
TIE = 1e-9


def suite_of(n_nodes: int) -> Trace:
    """The bifurcation suite with so many nodes: 12 epochs of 14 time steps (1008 nodes), which double in turn.

    >>> suite_of(4032).shape
    (24, 28, 6, 10)
    """
    doublings = int(math.log2(n_nodes / 1008))
    if 1008 * 2**doublings != n_nodes:
        raise ValueError(f"{n_nodes} nodes: must be 1008 times a power of 2")
    return datasets.bifurcation("hopf_pitchfork", 12 * 2 ** ((doublings + 1) // 2), 14 * 2 ** (doublings // 2))


class Picture:
    """Coordinates of the nodes of a trace. Most peers see the nodes as points, and no multislice graph."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.device, self.trace = device, suite_of(size).to(device)

    @cached_property
    def points(self) -> np.ndarray:  # (N, D) float32
        """The samples of each node, z-scored as in step 1 of docs/method.md: rows of features for other libraries."""
        flat = normalize(self.trace).reshape(self.trace.n_nodes, -1)
        return flat.float().cpu().numpy()

    def fields(self) -> dict[str, Any]:
        trace = self.trace
        n = {"n_slices": trace.n_slices, "n_units": trace.n_units, "n_samples": trace.n_samples}
        return {**n, "n_nodes": trace.n_nodes}

    def judge(self, result: Result) -> dict[str, Any]:
        """The shares of neighbors kept between and within slices, and the trustworthiness of the nodes as points."""
        places = np.ascontiguousarray(torch.as_tensor(result.values).cpu().numpy(), dtype=np.float64)
        within, *between = neighborhood_preservation(
            self.trace, torch.from_numpy(places).to(self.device), (KEPT_WITHIN, *KEPT)
        )
        kept = {"preservation": {str(k): inter for k, (_, inter) in zip(KEPT, between, strict=True)}}
        kept["preservation_within"] = {str(KEPT_WITHIN): within[0]}
        if self.trace.n_nodes > MOST_FOR_TRUST:
            return kept
        from sklearn.manifold import trustworthiness

        trust = trustworthiness(self.points, places, n_neighbors=TRUST_NEIGHBORS)
        return {**kept, "trustworthiness": float(trust)}


class Graph(Picture):
    """Coordinates from our multislice affinity: another method on the same graph."""

    @cached_property
    def operator(self) -> AffinityOperator:
        return affinity_of_points(normalize(self.trace), storage="sparse", dtype=torch.float32).operator

    @cached_property
    def graph(self) -> csr_matrix:  # (N, N)
        """The affinity without its diagonal, for which these methods have no use."""
        graph = to_scipy(self.operator).astype(np.float32)
        graph.setdiag(0)
        graph.eliminate_zeros()
        return graph

    @cached_property
    def start(self) -> np.ndarray:  # (N, 2)
        """The first two principal components of the points."""
        centered = self.points - self.points.mean(0)
        _, _, axes = np.linalg.svd(centered, full_matrices=False)
        return centered @ axes[:2].T


class Scaling:
    """Coordinates from distances between landmarks and a start."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.trace = suite_of(1008 * 2 ** max(0, math.ceil(math.log2(size / 400))))
        operator = affinity_of_points(normalize(self.trace.to(device)), storage="sparse", dtype=torch.float32).operator
        landmark_op = landmark_diffusion(operator, n_landmark=size, random_state=0).landmark_op
        self.distances = potential_distances(diffusion_potential(landmark_op, DIFFUSION_TIME))
        self.start = metric_mds(self.distances, 2, solver="classic", random_state=0).coordinates

    @cached_property
    def target(self) -> float:
        """The final stress of this library, from the same start."""
        return metric_mds(self.distances, 2, init=self.start).stress

    def fields(self) -> dict[str, Any]:
        return {"n_landmark": self.distances.shape[0], "stress_expected": self.target}

    def judge(self, result: Result) -> dict[str, Any]:
        from mmphate_gpu.mds.stress import stress

        places = torch.as_tensor(result.values).to(self.distances)
        return {"stress": stress(self.distances, places)}


class Product:
    """Our affinity times a block of columns."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.device, self.trace = device, suite_of(size)
        self.unit_points = normalize(self.trace).to(device)
        generator = torch.Generator().manual_seed(0)
        self.block = torch.randn(self.trace.n_nodes, COLUMNS, dtype=torch.float64, generator=generator).to(device)

    def affinity(self, storage: str, dtype: torch.dtype = torch.float32) -> AffinityOperator:
        return affinity_of_points(self.unit_points, storage=storage, dtype=dtype).operator

    @cached_property
    def sparse(self) -> AffinityOperator:
        return self.affinity("sparse")

    @cached_property
    def lazy(self) -> AffinityOperator:
        return self.affinity("lazy")

    @cached_property
    def by_keops(self) -> AffinityOperator:
        return LazyKeopsAffinity(self.lazy.intraslice, self.lazy.interslice)

    @cached_property
    def block32(self) -> torch.Tensor:  # (N, C)
        return self.block.float()

    def in_cupy(self) -> Any:
        return to_cupy(self.sparse)

    def in_scipy(self, dtype: str) -> csr_matrix:
        return to_scipy(self.sparse).astype(dtype, copy=False)

    def in_torch(self, dtype: str) -> torch.Tensor:
        csr = self.sparse.csr
        return to_torch(csr._replace(values=csr.values.to(DTYPES[dtype])))

    @cached_property
    def expected(self) -> np.ndarray:  # (N, C)
        return self.in_scipy("float64") @ self.block.cpu().numpy()

    def fields(self) -> dict[str, Any]:
        work = 2.0 * self.sparse.nnz * COLUMNS
        return {"n_nodes": self.trace.n_nodes, "n_units": self.trace.n_units, "work": work, "unit": "flop"}

    def judge(self, result: Result) -> dict[str, Any]:
        values = torch.as_tensor(result.values).double().cpu().numpy()
        return {"error": float(np.abs(values - self.expected).max() / np.abs(self.expected).max())}


class Neighbors:
    """The nearest other slices of every slice of a unit. Their distances give the interslice bandwidth."""

    k = KNN

    def __init__(self, size: int, device: torch.device) -> None:
        self.device, self.trace = device, suite_of(size)
        self.units = unit_major(normalize(self.trace)).to(device)  # (M, S, D)

    @cached_property
    def sets(self) -> np.ndarray:  # (M, S, D) float64
        return self.units.cpu().numpy()

    @cached_property
    def sets32(self) -> np.ndarray:  # (M, S, D) float32
        return self.sets.astype(np.float32)

    def others(self, places: np.ndarray) -> np.ndarray:  # (S, k + 1) -> (S, k)
        """Indices of neighbors without the point itself, or without the last if duplicates displaced the point."""
        itself = places == np.arange(len(places))[:, None]
        itself[~itself.any(1), -1] = True
        return places[~itself].reshape(len(places), self.k)

    @cached_property
    def expected(self) -> np.ndarray:  # (M, S)
        """Exact distances to the k-th others, by a kd-tree in float64."""
        return np.stack([cKDTree(points).query(points, [KNN + 1])[0][:, 0] for points in self.sets])

    def fields(self) -> dict[str, Any]:
        n_units, n_slices, n_samples = self.units.shape
        shape = {"n_slices": n_slices, "n_units": n_units, "n_samples": n_samples, "n_nodes": n_slices * n_units}
        return {**shape, "work": float(n_units * n_slices**2), "unit": "ordered pairs"}

    def judge(self, result: Result) -> dict[str, Any]:
        """The relative error of the bandwidth, from distances (M, S), medians (M,), or indices (M, S, k).

        Distances to neighbors given by index are computed from the points, and the share of true neighbors is added.
        """
        values = torch.as_tensor(result.values).cpu().numpy()
        searched = {}
        if values.ndim == 3:
            far = np.stack([named_distances(*of_unit) for of_unit in zip(self.sets, values, strict=True)])
            searched = {"recall": recall(far, self.expected)}
            values = far.max(-1)
        medians = values if values.ndim == 1 else np.median(values, axis=1)
        expected = np.median(self.expected, axis=1).mean()
        return {**searched, "error": float(abs(medians.mean() / expected - 1))}


def named_distances(points: np.ndarray, places: np.ndarray) -> np.ndarray:  # (S, D), (S, k) -> (S, k)
    """Distances to the neighbors with the indices ``places``."""
    return np.linalg.norm(points[places] - points[:, None], axis=2)


def recall(far: np.ndarray, farthest: np.ndarray) -> float:  # (..., k), (...)
    """The share of neighbors that are true: at distances ``far`` no larger than the k-th, ties included."""
    return float((far <= farthest[..., None] * (1 + TIE)).mean())


COMPARISONS = {"picture": Picture, "graph": Graph, "mds": Scaling, "product": Product, "neighbors": Neighbors}
