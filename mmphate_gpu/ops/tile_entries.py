"""The entries of tiles: which pairs of tiles have any, and what they are."""

from __future__ import annotations

import torch

from .chunks import row_chunks
from .distances import distances_by_difference
from .launch.twins import TRITON, twins
from .radius_affinity import kernel

# Points of a tile: two tensor-core operands of 128 x 128 in half precision, and the sums, fit one multiprocessor.
TILE = 128


@twins("(Tensor points, Tensor rows, Tensor columns, float reach) -> Tensor", cuda=TRITON)
def tile_reached(
    points: torch.Tensor,  # (R, TILE, p) float64, NaN where there is no point
    rows: torch.Tensor,  # (k,) int64
    columns: torch.Tensor,  # (k,) int64
    reach: float,
) -> torch.Tensor:  # (k,) bool
    """Whether some point of tile ``rows[t]`` lies within ``reach`` of a point of tile ``columns[t]`` other than itself.

    O(k TILE^2 p) time. Deterministic; the twins decide every pair alike but for the last bit of its distance.
    """
    reached = torch.empty(rows.shape, dtype=torch.bool, device=points.device)
    for part in row_chunks(rows.numel(), TILE * TILE):
        reached[part] = (_distances(points, rows[part], columns[part]) <= reach).flatten(1).any(1)
    return reached


@twins("(Tensor points, Tensor rows, Tensor columns, float bandwidth, float reach) -> Tensor", cuda=TRITON)
def tile_entries(
    points: torch.Tensor,  # (R, TILE, p) float64, NaN where there is no point
    rows: torch.Tensor,  # (k,) int64
    columns: torch.Tensor,  # (k,) int64
    bandwidth: float,
    reach: float,
) -> torch.Tensor:  # (k, TILE, TILE) half
    """exp(-(d / bandwidth)^2) for the pairs within ``reach``, else 0; a point is no neighbour of its own.

    The exponent in float64, the exponential in float32, rounded to half. O(k TILE^2 p) time; memory is the result,
    allocated once, and a chunk of tiles.
    """
    tiles = torch.empty(rows.numel(), TILE, TILE, dtype=torch.float16, device=points.device)
    width = torch.tensor(bandwidth, dtype=torch.float64, device=points.device)
    for part in row_chunks(rows.numel(), TILE * TILE):
        distances = _distances(points, rows[part], columns[part])
        entries = kernel(distances, width, decay=2, dtype=torch.float32)
        tiles[part] = entries.masked_fill_(~(distances <= reach), 0)
    return tiles


def _distances(points: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:  # (k, TILE, TILE)
    """NaN, which is within no reach, from every point to itself."""
    distances = distances_by_difference(points[rows], points[columns])
    distances.diagonal(dim1=1, dim2=2).masked_fill_((rows == columns)[:, None], torch.nan)
    return distances
