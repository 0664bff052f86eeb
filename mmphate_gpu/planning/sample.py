"""How many entries an affinity will have: from a sample of its rows, or by formula from the shape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from ..affinities.bandwidth import unit_floor
from ..affinities.intraslice import intraslice_affinity
from ..ops.chunks import row_chunks
from ..ops.csr import Csr
from ..ops.distances import distances_by_difference
from ..ops.kth_neighbor_distance import median
from ..ops.point_tiles import TILE
from ..ops.radius_affinity import cut_distance, cut_radius
from ..ops.tile_layout import SAMPLED_ROWS, active_share
from ..params import Params
from ..slices import unit_major
from ..trace import Trace, trace_points
from ..trace.pca import reduce

# Differences of coordinates in one pass over the sampled rows: about a second on one core.
WORK = 5e8
# Fewer rows per unit give a poor estimate. If `LEAST_ROWS` of every unit are too much work, leave out units.
LEAST_ROWS = 64
LEAST_TILE_ROWS = 4  # the same for rows of tiles
# Distances at a time. With blocks of 16 MiB the C allocator kept 60 MB more in the end.
BLOCK_DISTANCES = 2**18
# The intraslice entries are counted in slices with at most so many nodes, and so many numbers.
SLICE_NODES, SLICE_ELEMENTS = 20_000, 2**24


class Entries(NamedTuple):
    """What the data decides about the size of an affinity. The defaults are upper ends of what was measured."""

    # Share of the interslice pairs at or above thresh: 0.02 to 0.03 (Hopf units), up to 0.27 (pitchfork units).
    interslice: float = 0.27
    # Intraslice entries of a node, the diagonal included. None: `intraslice_entries`.
    intraslice: float | None = None
    alone: float = 0.0  # share of the nodes without any interslice entry
    # Share of the tiles of 128 x 128 slices that have an entry; 0.38 to 0.51 in time order.
    tiles: float = 0.51
    # Loose pieces per slice: connected pieces of a slice of which every node is alone.
    loose: float = 0.0


def intraslice_entries(n_units: int, n_features: int, p: Params) -> float:
    """Intraslice entries of a node, the diagonal included, if units are independent.

    Normalized points lie on a sphere. A cap around a unit holds its knn nearest units, and a wider cap those within its
    cutoff radius. If these are few, a quarter as many again have this unit in their own radius only. Measured, with 30
    to 4000 units of 6 to 100 samples: 0.9 to 1.25 of the entries.
    """
    from scipy.special import betainc, betaincinv

    if p.decay is None:
        return min(n_units, 1 + 2 * p.intraslice_knn)
    if n_features < 3:
        return n_units  # normalized points of one sample are all equal, and of two samples there are two
    nearest, half = min(0.5, p.intraslice_knn / n_units), (n_features - 2) / 2
    # The cosines at the edges of the two caps; 1 - cosine grows as the squared distance.
    wider = cut_radius(p.decay, p.thresh) ** 2
    cosine = 1 - min(2.0, wider * (1 - (1 - betaincinv(half, 0.5, 2 * nearest)) ** 0.5))
    beyond = float(betainc(half, 0.5, 1 - cosine**2)) / 2
    share = beyond if cosine >= 0 else 1 - beyond
    return min(n_units, 1 + n_units * share * (1.25 - 0.25 * share))


def sampled_entries(trace: Trace, p: Params, tiles: bool = False) -> Entries:
    """Entries that the affinity of ``trace`` will have, estimated from evenly spaced rows against all slices.

    The bandwidth is that of the sampled rows, and each unit has rows of its own. Deterministic. About 1e9 operations:
    two or three seconds on one core. Memory: the points of the sampled units (8 N D bytes for all units) and a few
    chunks. ``tiles`` asks for the share of active tiles too, which only a plan that may choose the tiled form needs:
    about 5e8 operations more at most.
    """
    n_units = max(1, min(trace.n_units, int(WORK / (LEAST_ROWS * trace.n_slices * trace.n_samples))))
    # `subsample` reads the selected part of a stored trace into memory.
    sampled = trace if n_units == trace.n_units else trace.subsample(units=_spread(trace.n_units, n_units))
    points, resolution = _points(sampled, p)
    n_slices, _, n_features = points.shape
    n_rows = max(min(n_slices, LEAST_ROWS), min(n_slices, int(WORK / (points.numel() or 1))))
    unit_points = unit_major(points)
    share, alone, reach = _interslice(unit_points, resolution.T, n_rows, p)
    slices = max(2, min(SLICE_NODES, SLICE_ELEMENTS // trace.n_samples) // trace.n_units)
    epochs = _spread(trace.n_epochs, slices)
    steps = _spread(trace.n_timesteps, max(1, slices // len(epochs)))
    chosen = (epochs[:, None] * trace.n_timesteps + steps).flatten()
    points, resolution = _points(trace.subsample(epochs=epochs, timesteps=steps), p)
    options: dict[str, Any] = {"decay": p.decay, "thresh": p.thresh, "backend": p.knn_backend, "dtype": points.dtype}
    masked = trace.mask is not None
    intraslice = intraslice_affinity(points, knn=p.intraslice_knn, resolution=resolution, masked=masked, **options)
    entries = Entries(share, intraslice.nnz / intraslice.shape[0], alone)
    if alone:  # else no piece is loose
        rows, units = _spread(len(chosen), n_rows), _spread(trace.n_units, n_units)
        pieces = _pieces(intraslice)[rows][:, units]
        entries = entries._replace(loose=_loose_pieces(unit_points, chosen[rows], pieces, reach))
    return entries._replace(tiles=_active_share(unit_points, reach, masked)) if tiles else entries


def _points(trace: Trace, p: Params) -> tuple[torch.Tensor, torch.Tensor]:  # (S, M, min(D, n_pca)), (S, M) float64
    points, resolution = trace_points(trace, normalize=p.normalize, n_pca=p.n_pca)
    return reduce(points, p.n_pca), resolution


def _spread(n: int, k: int, shift: float = 0.0) -> np.ndarray:  # (min(n, k),)
    """``k`` of 0 .. n - 1, evenly spaced; ``shift`` from 0 to 1 moves them by that share of the spacing."""
    k = min(n, k)
    return ((np.arange(k) + shift) * (n / k)).astype(int)


def _active_share(unit_points: torch.Tensor, reach: float, masked: bool) -> float:  # (M, S, D)
    """Share of the tiles with a pair within ``reach``; from some units, if rows of tiles of all are too much work."""
    n_units, n_slices, n_features = unit_points.shape
    row_work = 2 * TILE * n_slices * max(1, n_features)  # in two orders
    units = _spread(n_units, max(1, min(n_units, int(WORK / (LEAST_TILE_ROWS * row_work)))))
    n_rows = max(LEAST_TILE_ROWS, min(SAMPLED_ROWS, int(WORK / (len(units) * row_work))))
    return active_share(unit_points[torch.from_numpy(units).to(unit_points.device)], reach, n_rows, masked)


def _interslice(
    unit_points: torch.Tensor, resolution: torch.Tensor, n_rows: int, p: Params
) -> tuple[float, float, float]:  # (M, S, D), (M, S)
    """Share of the pairs of slices within the cut of the bandwidth, share of the rows without any, and the cut."""
    n_units, n_slices, _ = unit_points.shape
    knn = min(p.interslice_knn, n_slices - 1)
    rows = [torch.from_numpy(_spread(n_slices, n_rows, unit / n_units)) for unit in range(n_units)]
    of_units = list(zip(unit_points, rows, strict=True))
    nearest = [torch.cat([_kth(block, knn) for block in _blocks(*unit)]) for unit in of_units]
    rounding = torch.stack([floor[chosen.to(floor.device)] for floor, chosen in zip(resolution, rows, strict=True)])
    bandwidth = _bandwidth(torch.stack(nearest), resolution, rounding)
    reach = float(cut_distance(bandwidth, decay=2, thresh=p.thresh))
    counts = torch.cat([_neighbors(*unit, reach) for unit in of_units])
    return float(counts.sum()) / (len(counts) * (n_slices - 1)), float((counts == 0).double().mean()), reach


def _kth(block: torch.Tensor, knn: int) -> torch.Tensor:  # (r, S) -> (r,)
    """The distance to the ``knn``-th nearest other point, or to the farthest of fewer; NaN for no point at all."""
    nearest = torch.topk(block, knn + 1, dim=1, largest=False).values
    return nearest.masked_fill_(nearest.isinf(), -1).amax(1).masked_fill_(nearest[:, 0] < 0, torch.nan)


def _bandwidth(nearest: torch.Tensor, resolution: torch.Tensor, of_rows: torch.Tensor) -> torch.Tensor:
    """`interslice_bandwidth` from sampled rows: ``nearest`` (M, r), and ``resolution`` (M, S), also of these rows."""
    if not bool(resolution.isnan().any()):
        medians = median(nearest)
        return torch.maximum(medians, unit_floor(medians, resolution)).mean()
    medians, floors = (values.nanquantile(0.5, dim=1) for values in (nearest, of_rows))
    return torch.maximum(medians, floors).nanmean()


def _neighbors(points: torch.Tensor, rows: torch.Tensor, reach: float) -> torch.Tensor:  # (S, D), (r,) -> (r,)
    """How many other points lie within ``reach`` of each row. A point without samples is not even near itself."""
    counts = [(block <= reach).sum(1).sub_(1).clamp_min_(0) for block in _blocks(points, rows)]
    return torch.cat(counts) if counts else rows.new_zeros(0)


def _blocks(points: torch.Tensor, rows: torch.Tensor) -> Iterator[torch.Tensor]:  # (S, D), (r,) -> (r_b, S)
    """Distances of the ``rows`` to all points, some rows at a time."""
    masked = bool(points.isnan().any())
    for part in row_chunks(len(rows), len(points), BLOCK_DISTANCES):
        yield distances_by_difference(points[rows[part].to(points.device)], points, masked)


def _pieces(intraslice: Csr) -> np.ndarray:  # (S M, M) -> (S, M)
    """The connected pieces of every slice, numbered through all slices."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n_nodes, n_units = intraslice.shape
    row = intraslice.row_of_entry()
    column = row - row % n_units + intraslice.indices
    pattern = coo_matrix((np.ones(intraslice.nnz), (row.cpu().numpy(), column.cpu().numpy())), (n_nodes, n_nodes))
    return connected_components(pattern, directed=False)[1].reshape(-1, n_units)


def _loose_pieces(unit_points: torch.Tensor, slices: np.ndarray, pieces: np.ndarray, reach: float) -> float:
    """Loose pieces per slice: those in ``pieces`` (r, M) of the ``slices`` (r,) without a linked node.

    A node is linked if another slice lies within ``reach``. After its first linked node a piece is not searched again.
    A node that is left out of the graph is no piece.
    """
    linked = np.zeros(pieces.max() + 1, bool)
    linked[pieces[unit_points.isnan().all(2).T.cpu().numpy()[slices]]] = True
    for points, piece in zip(unit_points, pieces.T, strict=True):
        unlinked = ~linked[piece]
        counts = _neighbors(points, torch.from_numpy(slices[unlinked]), reach)
        linked[piece[unlinked]] |= counts.cpu().numpy() > 0
    return float((~linked[np.unique(pieces)]).sum()) / len(slices)
