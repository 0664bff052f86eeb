"""The accuracy of a run, against the dense reference if that fits, else on a sample of nodes; statistics of its input.

All of it is computed after the clock has stopped.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from benchmarks.cases import Case
from mmphate_gpu import (
    MMPHATE,
    Trace,
    as_trace,
    diffusion_potential,
    landmark_diffusion,
    metric_mds,
    neighborhood_preservation,
    optimal_t,
    potential_distances,
    reference,
    to_scipy,
)
from mmphate_gpu.ops.radius_affinity import cut_distance
from mmphate_gpu.ops.tile_layout import SAMPLED_ROWS, active_share

SAMPLED_NODES = 64
COUNTED_NODES = 1024
# Pairs of slices whose neighbors are looked up, about 20 s on two cores. Above it only some units are looked at.
MOST_PAIRS = 1.2e9
TILED_UNITS = 4
# Operations of the search for exact bandwidths, a few minutes. Above it the bandwidth of the run is used, as the row
# says.
MOST_FOR_BANDWIDTH = 2e12
INTERSLICE_KNN, INTRASLICE_KNN, DECAY, THRESH = 25, 2, 5, 1e-4


def accuracy(case: Case, op: MMPHATE, trace: Trace) -> dict[str, Any]:
    """Fields of the row of a total: its accuracy, and ``statistics`` of the input."""
    fields: dict[str, Any] = {"t": op.t_, "stress": op.stress_, **preserved(op.result_, trace, case.preservation)}
    nodes = SampledNodes(trace, op.bandwidth_)
    if case.oracle == "reference":
        fields |= against_reference(op, trace)
    elif case.oracle is not None:
        fields |= against_golden(op, Path(case.oracle))
    else:
        fields |= nodes.errors(op.affinity_)
    statistics = nodes.statistics() | {"islands": islands(op.landmark_op_), **fields.pop("statistics", {})}
    return {**fields, "statistics": statistics}


# ---------------------------------------------------------------- neighbors


def preserved(embedding: Any, trace: Trace, ks: tuple[int, ...]) -> dict[str, Any]:
    """Share of the k nearest slices of a unit that ``embedding`` keeps, for as many units as `MOST_PAIRS` allows.

    The units are spread evenly over all of them. O(m S^2 (D + C)) time for m units.
    """
    ks = tuple(k for k in ks if k < trace.n_slices)
    if not ks:
        return {}
    chosen = units_for(trace, MOST_PAIRS)
    whole = embedding.coordinates
    places = whole.reshape(trace.n_slices, trace.n_units, -1)[:, chosen].reshape(-1, whole.shape[1])
    shares = neighborhood_preservation(part_of(trace, chosen), places, ks)
    kept = {"preservation": {str(k): inter for k, (_, inter) in zip(ks, shares, strict=True)}}
    return kept | ({"statistics": {"preservation_units": len(chosen)}} if len(chosen) < trace.n_units else {})


def units_for(trace: Trace, most_pairs: float) -> list[int]:
    """Units, evenly spread, whose pairs of slices are at most ``most_pairs``; one at least."""
    return spread(trace.n_units, max(1, int(most_pairs / trace.n_slices**2)))


def spread(n: int, most: int) -> list[int]:
    """``most`` of 0 .. n-1, evenly spread, or all of them.

    >>> spread(10, 4), spread(3, 4)
    ([1, 3, 6, 8], [0, 1, 2])
    """
    return list(range(n)) if n <= most else [int((i + 0.5) * n / most) for i in range(most)]


def part_of(trace: Trace, units: list[int]) -> Trace:
    """Some units of a trace."""
    return trace if len(units) == trace.n_units else as_trace(trace.data[:, :, units])


# ---------------------------------------------------------------- the whole affinity


def against_reference(op: MMPHATE, trace: Trace) -> dict[str, Any]:
    """Errors against the dense float64 affinity, and t of its landmark operator for the same clusters."""
    expected = reference.multislice_affinity(trace.data.cpu().numpy())
    clusters = op.clusters_.cpu().numpy()
    landmark_op = reference.landmark_diffusion(expected, clusters=clusters)[0]
    return {**affinity_errors(op.affinity_, expected), "t_expected": reference.optimal_t(landmark_op)}


def against_golden(op: MMPHATE, file: Path) -> dict[str, Any]:
    """Errors against the published affinity; t and stress of this library for the published clusters."""
    with np.load(file) as archive:
        golden = dict(archive)
    n_nodes = len(golden["indptr"]) - 1
    matrix = csr_matrix((golden["values"], golden["indices"], golden["indptr"]), (n_nodes, n_nodes))
    landmark_op = landmark_diffusion(op.affinity_, clusters=torch.from_numpy(golden["clusters"]).long()).landmark_op
    t = optimal_t(landmark_op)
    mds = metric_mds(potential_distances(diffusion_potential(landmark_op, t)), 2, random_state=0)
    return {
        **affinity_errors(op.affinity_, matrix.toarray()),
        "t": t,
        "t_expected": int(golden["t"]),
        "stress": mds.stress,
        "stress_expected": float(golden["stress"]),
    }


def affinity_errors(operator: Any, expected: np.ndarray) -> dict[str, Any]:
    """Absolute errors over the entries of either side, and the number of entries that only one side has."""
    return entry_errors(to_scipy(operator).toarray(), expected)


def entry_errors(entries: np.ndarray, expected: np.ndarray) -> dict[str, Any]:
    either = (entries != 0) | (expected != 0)
    errors = np.abs(entries - expected)[either]
    return {
        "affinity_error_p99": float(np.percentile(errors, 99)),
        "affinity_error_max": float(errors.max()),
        "pattern_differences": int(((entries != 0) != (expected != 0)).sum()),
    }


# ---------------------------------------------------------------- a sample of its rows


class SampledNodes:
    """Rows of the affinity at some nodes, in float64 by the formulas of the reference.

    The bandwidths are exact. The reference gives the bandwidth of a slice; a kd-tree gives the k-th distances for the
    bandwidth of all units, in O(N log S) time for points of few dimensions and O(M S^2 D) for many. Above
    `MOST_FOR_BANDWIDTH` operations the bandwidth of the run is used.
    """

    def __init__(self, trace: Trace, bandwidth: float) -> None:
        self.trace = trace
        points = reference.normalize(trace.data.cpu().numpy())
        self.points = reference.reduce(points)  # (S, M, D)
        n_slices, n_units, n_features = self.points.shape
        self.exact = n_slices**2 * n_units * n_features <= MOST_FOR_BANDWIDTH
        self.bandwidth = exact_bandwidth(self.points, INTERSLICE_KNN) if self.exact else bandwidth
        self.nodes = spread(trace.n_nodes, SAMPLED_NODES)

    def row(self, node: int) -> np.ndarray:  # (N,) float64
        """Row ``node`` of the affinity; O(S D + M^2 D) time."""
        slice_id, unit = divmod(node, self.trace.n_units)
        row = np.zeros((self.trace.n_slices, self.trace.n_units))
        row[:, unit] = self.interslice(slice_id, unit)
        in_slice = reference.intraslice_affinity(
            self.points[slice_id : slice_id + 1], knn=INTRASLICE_KNN, decay=DECAY, thresh=THRESH
        )
        row[slice_id] += in_slice[0, unit]
        row[row < THRESH] = 0
        return row.ravel()

    def interslice(self, slice_id: int, unit: int) -> np.ndarray:  # (S,) float64
        """Affinities of a node to its unit at the other slices."""
        squared = ((self.points[:, unit] - self.points[slice_id, unit]) ** 2).sum(1)
        affinity = np.exp(-squared / self.bandwidth**2)
        affinity[affinity < THRESH] = 0
        affinity[slice_id] = 0
        return affinity

    def errors(self, operator: Any) -> dict[str, Any]:
        """Errors of the sampled columns as ``operator`` applies them, in any form: by a product with unit vectors.

        A product in half precision leaves exact zeros where there is no entry, so ``pattern_differences`` is right for
        every form.
        """
        basis = torch.zeros(self.trace.n_nodes, len(self.nodes), dtype=torch.float32)
        basis[self.nodes, range(len(self.nodes))] = 1
        columns = (operator @ basis).double().cpu().numpy()
        expected = np.stack([self.row(node) for node in self.nodes], axis=1)
        sample = {"affinity_nodes": len(self.nodes), **({} if self.exact else {"bandwidth": "the run's own"})}
        return {**entry_errors(columns, expected), "statistics": sample}

    def statistics(self) -> dict[str, Any]:
        """What decides the work: the share of pairs of slices above the cut, nodes without any, active tiles."""
        counted = spread(self.trace.n_nodes, COUNTED_NODES)
        counts = np.array([(self.interslice(*divmod(node, self.trace.n_units)) > 0).sum() for node in counted])
        units = spread(self.trace.n_units, TILED_UNITS)
        stack = torch.from_numpy(np.ascontiguousarray(self.points[:, units].transpose(1, 0, 2)))
        reach = float(cut_distance(torch.tensor(self.bandwidth, dtype=torch.float64), decay=2, thresh=THRESH))
        return {
            "interslice_share": float(counts.mean() / (self.trace.n_slices - 1)),
            "without_interslice": float((counts == 0).mean()),
            "active_tiles": active_share(stack, reach, SAMPLED_ROWS),
            "counted_nodes": len(counted),
            "tiled_units": len(units),
        }


def exact_bandwidth(points: np.ndarray, knn: int) -> float:  # (S, M, D) float64
    """`reference.interslice_bandwidth` without its dense distances."""
    n_slices, n_units, _ = points.shape
    knn = min(knn, n_slices - 1)
    eps = np.finfo(np.float64).eps
    units = (np.ascontiguousarray(points[:, unit]) for unit in range(n_units))
    # The first of the knn + 1 nearest is the point itself, or a duplicate of it.
    radii = [cKDTree(unit).query(unit, k=knn + 1)[0][:, -1] for unit in units]
    return math.fsum(max(float(np.median(radius)), eps) for radius in radii) / n_units


def islands(landmark_op: torch.Tensor) -> int:
    """The number of connected components of the landmark operator."""
    return int(connected_components(csr_matrix(landmark_op.cpu().numpy()), directed=False)[0])
