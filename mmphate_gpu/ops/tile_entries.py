"""The entries of pairs of tiles: which pairs have any, and their values."""

from __future__ import annotations

import math
from typing import Any

import torch

from .chunks import row_chunks
from .distances import distances_by_difference
from .launch.twins import triton_twin, twins
from .point_tiles import TILE
from .radius_affinity import kernel

# The Triton twins clip coordinates here, with a reach of 1 to 2: the squares of larger ones overflow, no bound holds,
# and float64 decides.
FARTHEST = 1e30


@twins("(Tensor points, Tensor rows, Tensor columns, float reach, bool masked=False) -> Tensor")
def tile_reached(
    points: torch.Tensor,  # (r, TILE, p) float64, NaN in places without a point
    rows: torch.Tensor,  # (k,) int64
    columns: torch.Tensor,  # (k,) int64
    reach: float,
    masked: bool = False,
) -> torch.Tensor:  # (k,) bool
    """Whether a point of tile ``rows[i]`` lies within ``reach`` of another point, of tile ``columns[i]``.

    ``masked`` points may lack features, which are NaN (`distances_by_difference`). A place without a point lacks all.
    O(k TILE^2 p) time. Deterministic; the versions differ at most in the last bit of a distance.
    """
    reached = torch.empty(rows.shape, dtype=torch.bool, device=points.device)
    for part in row_chunks(rows.numel(), TILE * TILE):
        reached[part] = (_distances(points, rows[part], columns[part], masked) <= reach).flatten(1).any(1)
    return reached


@twins("(Tensor points, Tensor rows, Tensor columns, float bandwidth, float reach, bool masked=False) -> Tensor")
def tile_entries(
    points: torch.Tensor,  # (r, TILE, p) float64, NaN in places without a point
    rows: torch.Tensor,  # (k,) int64
    columns: torch.Tensor,  # (k,) int64
    bandwidth: float,
    reach: float,
    masked: bool = False,
) -> torch.Tensor:  # (k, TILE, TILE) half
    """exp(-(d / bandwidth)^2) for pairs of different points within ``reach``, else 0.

    ``masked`` points may lack features, as in `tile_reached`.
    The exponent is in float64, the exponential in float32, and the result rounded to half precision. O(k TILE^2 p)
    time; the result and a chunk of tiles of memory.
    """
    tiles = torch.empty(rows.numel(), TILE, TILE, dtype=torch.float16, device=points.device)
    width = torch.tensor(bandwidth, dtype=torch.float64, device=points.device)
    for part in row_chunks(rows.numel(), TILE * TILE):
        distances = _distances(points, rows[part], columns[part], masked)
        entries = kernel(distances, width, decay=2, dtype=torch.float32)
        tiles[part] = entries.masked_fill_(~(distances <= reach), 0)
    return tiles


def _distances(
    points: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, masked: bool
) -> torch.Tensor:  # (k, TILE, TILE)
    """Distances of the pairs; from a point to itself NaN, which is within no reach."""
    distances = distances_by_difference(points[rows], points[columns], masked, apart=math.nan)
    distances.diagonal(dim1=1, dim2=2).masked_fill_((rows == columns)[:, None], torch.nan)
    return distances


@triton_twin(tile_reached, rehearse=lambda device: [(*_rehearsal(device), 1.0, masked) for masked in (False, True)])
def tile_reached_triton(points, rows, columns, reach, masked=False):
    from .triton.pairs import tile_reached_kernel

    reached = torch.empty(rows.shape, dtype=torch.int8, device=points.device)
    _start_for_each_tile(tile_reached_kernel, points, rows, columns, reach, (), reached, masked)
    return reached.bool()


@triton_twin(
    tile_entries, rehearse=lambda device: [(*_rehearsal(device), 1.0, 1.0, masked) for masked in (False, True)]
)
def tile_entries_triton(points, rows, columns, bandwidth, reach, masked=False):
    from .triton.pairs import tile_entries_kernel

    tiles = torch.empty(rows.numel(), TILE, TILE, dtype=torch.float16, device=points.device)
    _start_for_each_tile(tile_entries_kernel, points, rows, columns, reach, (bandwidth,), tiles, masked)
    return tiles


def _rehearsal(device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A tile of points, and the pair of it with itself."""
    tile = torch.zeros(1, dtype=torch.int64, device=device)
    return torch.zeros(1, TILE, 16, dtype=torch.float64, device=device), tile, tile


def _start_for_each_tile(
    kernel: Any,
    points: torch.Tensor,
    rows: torch.Tensor,
    columns: torch.Tensor,
    reach: float,
    numbers: tuple[float, ...],
    out: torch.Tensor,
    masked: bool,
) -> None:
    from .triton.pairs import NARROW, OPTIONS, RUN

    if rows.numel() == 0:
        return
    # The power of two that brings the reach into 1 .. 2.
    factor = math.ldexp(1.0, 1 - math.frexp(reach)[1])
    # A tensor, because a Python number arrives in a kernel as float32.
    scale = torch.tensor((reach, factor, *numbers), dtype=torch.float64, device=points.device)
    sizes = {"TILE": TILE, "NARROW": NARROW, "P": points.shape[2], "RUN": RUN, "MASKED": masked}
    offsets = _offsets(points, factor, masked)
    # A kernel for points that have all features reads no states; any tensor will do in their place.
    states = _states(points) if masked else offsets[0]
    with torch.cuda.device_of(points):
        tensors = (part.contiguous() for part in (points.mT, *offsets, states, rows, columns))
        kernel[(rows.numel(),)](*tensors, scale, out, **sizes, **OPTIONS)


def _offsets(
    points: torch.Tensor, factor: float, masked: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # (r, p, TILE), (r, p), (r,) float32
    """Offsets of the points times ``factor`` from the center of their tile, the centers, and the largest offsets.

    Centers are rounded before they are subtracted, so that offsets are off by their own rounding alone. Features that
    all points of a tile lack have the center 0, and lengths are those over the features that there are.
    """
    offsets = points * factor
    centers = offsets.nanmean(1).nan_to_num_(0).float().clamp_(-FARTHEST, FARTHEST)
    offsets.sub_(centers[:, None])
    lengths = torch.linalg.vector_norm(offsets.nan_to_num(0, math.inf, -math.inf) if masked else offsets, dim=2)
    largest = lengths.masked_fill_(lengths.isnan(), 0).amax(1).float()
    return offsets.mT.float().clamp_(-FARTHEST, FARTHEST), centers, largest


def _states(points: torch.Tensor) -> torch.Tensor:  # (r, TILE, p) float64 -> (r, p) int8
    """Which features some points of a tile have, and which ones all points with any feature have: `HAVE_ALL`."""
    present = ~points.isnan()
    every = (present | ~present.any(2, keepdim=True)).all(1)
    some = present.any(1)
    return some.to(torch.int8) + 2 * (some & every)
