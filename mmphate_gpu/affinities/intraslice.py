"""Affinities between the units of one slice (step 3 of docs/method.md)."""

from __future__ import annotations

import torch

from ..ops.chunks import pair_chunks
from ..ops.csr import Csr, csr_of_counts
from ..ops.distances import chunk_distances
from ..ops.radius_affinity import radius_affinity
from ..trace.points import FLOOR
from .bandwidth import kth_unit_distance
from .comparable import has_sample
from .equal_points import merge_equal_units


def intraslice_affinity(
    points: torch.Tensor,  # (S, M, D) float64
    *,
    knn: int = 2,
    decay: float | None = 5,
    thresh: float = 1e-4,
    backend: str = "auto",
    dtype: torch.dtype = torch.float64,
    resolution: torch.Tensor | None = None,  # (S, M)
    masked: bool = False,
) -> Csr:
    """a(i, j) = exp(-(d(i, j) / sigma_i)^decay), averaged with its transpose; the diagonal is 1.

    sigma_i is the distance of unit i to its ``knn``-th nearest other unit of the slice. A one-sided affinity below
    ``thresh`` counts as 0, and an average below ``thresh`` is no entry. With ``decay=None`` a(i, j) is 1 for the
    ``knn`` nearest units and 0 for the others. Distances below the ``resolution`` of a unit are rounding: sigma_i is at
    least the resolution of unit i, and with ``decay=None`` units within the resolution are equally near.

    In ``masked`` points NaN is a missing sample. ``knn`` is clamped for every unit to the units that share a sample
    with it. A unit without any sample has no entry, not even on the diagonal.

    Returns a CSR with one row per node (N rows), whose columns are units (M columns). O(S M^2 D) time. Deterministic.
    """
    if decay is None:
        return _nearest_unit_affinity(points, knn, dtype, resolution, masked)
    kth = kth_unit_distance(points, knn, backend=backend, masked=masked)
    if resolution is None:
        bandwidth = kth.clamp_min(FLOOR)
    else:
        points, bandwidth = merge_equal_units(points, resolution, kth, masked), torch.fmax(kth, resolution)
    return radius_affinity(points, bandwidth, decay=decay, thresh=thresh, dtype=dtype, masked=masked)


def _nearest_units(
    points: torch.Tensor, knn: int, resolution: torch.Tensor | None, masked: bool
) -> torch.Tensor:  # (S, M, D) -> (S, M, knn)
    """The ``knn`` nearest other units; of units at equal distance the one of lower index. A unit that shares no sample
    has -1.

    Ties decide here which entries exist. `kneighbors` may name any of the tied units, and another one on another
    device, so this is a stable sort of the few units of a slice.
    """
    near = torch.empty(*points.shape[:2], knn, dtype=torch.int64, device=points.device)
    for chunk in pair_chunks(*points.shape[:2]):
        block = chunk_distances(
            points, chunk, to_itself=-1, masked=masked
        )  # sorts the unit itself first; column 0 is dropped
        if resolution is not None:
            block[(block >= 0) & (block <= resolution[chunk.sets, chunk.rows, None])] = 0
        distances, units = torch.sort(block, dim=-1, stable=True)
        near[chunk.sets, chunk.rows] = units.masked_fill_(distances.isinf(), -1)[..., 1 : knn + 1]
    return near


def _nearest_unit_affinity(
    points: torch.Tensor, knn: int, dtype: torch.dtype, resolution: torch.Tensor | None, masked: bool
) -> Csr:
    n_slices, n_units, _ = points.shape
    nodes = torch.arange(n_slices * n_units, device=points.device)
    diagonal = nodes[has_sample(points).flatten()] if masked else nodes
    keys = [diagonal * n_units + diagonal % n_units]
    if n_units > 1:
        near = _nearest_units(points, min(knn, n_units - 1), resolution, masked).reshape(nodes.numel(), -1)
        row, place = torch.nonzero(near >= 0, as_tuple=True)
        column, unit = near[row, place], row % n_units
        keys += [row * n_units + column, (row - unit + column) * n_units + unit]
    entry, times = torch.unique(torch.cat(keys), return_counts=True)
    row, column = entry // n_units, entry % n_units
    # A pair of units occurs twice if each is near to the other (affinity 1), else once (1/2).
    values = torch.where(column == row % n_units, 1, times.to(dtype) / 2)
    return csr_of_counts(torch.bincount(row, minlength=nodes.numel()), column, values, n_units)
