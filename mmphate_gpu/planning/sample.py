"""How many entries an affinity will have, from a sample of its rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ..affinities.bandwidth import unit_floor
from ..affinities.intraslice import intraslice_affinity
from ..ops.chunks import row_chunks
from ..ops.csr import Csr
from ..ops.distances import distances_by_difference
from ..ops.kth_neighbor_distance import median
from ..ops.radius_affinity import cut_distance
from ..ops.tile_entries import TILE
from ..ops.tile_layout import SAMPLED_ROWS, active_share
from ..params import Params
from ..slices import unit_major
from ..trace import Trace, trace_points
from ..trace.pca import reduce
from .costs import Entries

# Differences of coordinates in one pass over the sampled rows: about a second on one core.
WORK = 5e8
# With fewer rows a unit's share is a guess: where that many of all units are too much work, some units are left out.
LEAST_ROWS = 64
# The same of the rows of tiles of a unit.
LEAST_TILE_ROWS = 4
# Distances at a time: in blocks of 16 MiB the C allocator kept 60 MB more in the end.
AT_ONCE = 2**18
# Nodes, and numbers, of the slices whose intraslice entries are counted.
SLICE_NODES, SLICE_ELEMENTS = 20_000, 2**24


def sampled_entries(trace: Trace, p: Params, tiles: bool = False) -> Entries:
    """Entries that the affinity of ``trace`` will have, estimated from evenly spaced rows against all slices.

    The bandwidth is that of the sampled rows, each unit with rows of its own. Deterministic. About 1e9 operations: two
    or three seconds on one core; beside the points of the sampled units (8 N D bytes if all are) a few chunks of
    memory. With ``tiles``, which only a plan that may choose the tiled form needs, their active share is estimated
    too: about 5e8 operations more at most.
    """
    n_units = max(1, min(trace.n_units, int(WORK / (LEAST_ROWS * trace.n_slices * trace.n_samples))))
    # A selection of a trace that is read by parts is taken into memory.
    some = trace if n_units == trace.n_units else trace.subsample(units=_spread(trace.n_units, n_units))
    points, resolution = _points(some, p)
    n_slices, _, n_features = points.shape
    n_rows = max(min(n_slices, LEAST_ROWS), min(n_slices, int(WORK / (points.numel() or 1))))
    unit_points = unit_major(points)
    share, alone, reach = _interslice(unit_points, resolution.T, n_rows, p)
    slices = max(2, min(SLICE_NODES, SLICE_ELEMENTS // trace.n_samples) // trace.n_units)
    epochs = _spread(trace.n_epochs, slices)
    steps = _spread(trace.n_timesteps, max(1, slices // len(epochs)))
    chosen = (epochs[:, None] * trace.n_timesteps + steps).flatten()
    intraslice = _intraslice(*_points(trace.subsample(epochs=epochs, timesteps=steps), p), p)
    entries = Entries(share, intraslice.nnz / intraslice.shape[0], alone)
    if alone:  # else no piece of a slice is
        some = _spread(len(chosen), n_rows)
        units = _spread(trace.n_units, n_units)
        entries = entries._replace(
            loose=_loose_pieces(unit_points, chosen[some], _pieces(intraslice)[some][:, units], reach)
        )
    return entries._replace(tiles=_active_share(unit_points, reach)) if tiles else entries


def _points(trace: Trace, p: Params) -> tuple[torch.Tensor, torch.Tensor]:  # (S, M, min(D, n_pca)), (S, M) float64
    points, resolution = trace_points(trace, normalize=p.normalize, n_pca=p.n_pca)
    return reduce(points, p.n_pca), resolution


def _spread(n: int, k: int, shift: float = 0.0) -> np.ndarray:  # (min(n, k),)
    """``k`` of 0 .. n - 1 at even distances; ``shift`` from 0 to 1 moves them by that share of a distance."""
    k = min(n, k)
    return ((np.arange(k) + shift) * (n / k)).astype(int)


def _active_share(unit_points: torch.Tensor, reach: float) -> float:
    """Share of the tiles with a pair within ``reach``, from some units where rows of tiles of all are too much work."""
    n_units, n_slices, n_features = unit_points.shape
    row_work = 2 * TILE * n_slices * max(1, n_features)  # in two orders
    units = _spread(n_units, max(1, min(n_units, int(WORK / (LEAST_TILE_ROWS * row_work)))))
    n_rows = max(LEAST_TILE_ROWS, min(SAMPLED_ROWS, int(WORK / (len(units) * row_work))))
    return active_share(unit_points[torch.from_numpy(units).to(unit_points.device)], reach, n_rows)


def _interslice(
    unit_points: torch.Tensor, resolution: torch.Tensor, n_rows: int, p: Params
) -> tuple[float, float, float]:
    """Share of the pairs of slices within the cut of the bandwidth, share of the rows without any, and the cut."""
    n_units, n_slices, _ = unit_points.shape
    knn = min(p.interslice_knn, n_slices - 1)
    rows = [torch.from_numpy(_spread(n_slices, n_rows, unit / n_units)) for unit in range(n_units)]
    nearest = [
        torch.cat([torch.topk(block, knn + 1, dim=1, largest=False).values[:, -1] for block in _blocks(points, own)])
        for points, own in zip(unit_points, rows, strict=True)
    ]
    medians = median(torch.stack(nearest))
    bandwidth = torch.maximum(medians, unit_floor(medians, resolution)).mean()
    reach = float(cut_distance(bandwidth, decay=2, thresh=p.thresh))
    counts = [
        torch.cat([(block <= reach).sum(1) - 1 for block in _blocks(points, own)])  # but for the slice itself
        for points, own in zip(unit_points, rows, strict=True)
    ]
    found = torch.cat(counts)
    return float(found.sum()) / (len(found) * (n_slices - 1)), float((found == 0).double().mean()), reach


def _blocks(points: torch.Tensor, rows: torch.Tensor) -> Iterator[torch.Tensor]:  # (S, D), (r,) -> (r_b, S)
    """Distances of the ``rows`` to all points, a chunk of rows at a time."""
    for part in row_chunks(len(rows), len(points), AT_ONCE):
        yield distances_by_difference(points[rows[part].to(points.device)], points)


def _intraslice(points: torch.Tensor, resolution: torch.Tensor, p: Params) -> Csr:
    """Entries between the units of a slice, the diagonal included."""
    return intraslice_affinity(
        points,
        knn=p.intraslice_knn,
        decay=p.decay,
        thresh=p.thresh,
        backend=p.knn_backend,
        dtype=points.dtype,
        resolution=resolution,
    )


def _pieces(intraslice: Csr) -> np.ndarray:  # (S M, M) -> (S, M)
    """The pieces into which the slices fall, numbered over all of them: what hangs together within one."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n_nodes, n_units = intraslice.shape
    row = intraslice.row_of_entry()
    column = row - row % n_units + intraslice.indices
    pattern = coo_matrix((np.ones(intraslice.nnz), (row.cpu().numpy(), column.cpu().numpy())), (n_nodes, n_nodes))
    return connected_components(pattern, directed=False)[1].reshape(-1, n_units)


def _loose_pieces(unit_points: torch.Tensor, slices: np.ndarray, pieces: np.ndarray, reach: float) -> float:
    """Pieces (r, M) of the ``slices`` (r,) without a node that has another slice within ``reach``, for each slice.

    A piece is done with at the first such node, so that only loose ones are looked for in all units.
    """
    linked = np.zeros(pieces.max() + 1, bool)
    for points, piece in zip(unit_points, pieces.T, strict=True):
        open_ = ~linked[piece]
        counts = [(block <= reach).sum(1) for block in _blocks(points, torch.from_numpy(slices[open_]))]
        linked[piece[open_]] |= (torch.cat(counts).cpu().numpy() > 1) if counts else False
    return float((~linked[np.unique(pieces)]).sum()) / len(slices)
