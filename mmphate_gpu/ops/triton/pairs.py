"""Triton twins that decide about pairs: which tiles hold a pair within reach, and the entries of these tiles.

One program a tile decides, as float64 does, whether the tile is active and which entries it has. A float32 screen with
a proven bound leaves only the pairs in doubt to float64, since workstation cards do float64 at a 64th of the rate.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Columns of a tile whose distances are decided at a time: 128 x 32 in float64 take a quarter of the registers.
NARROW = 32
# Squares of a run, which is summed by itself before it is added to the others: rounding grows with the length of a run
# plus the number of runs, not with their product.
RUN = 8
# Every operation is rounded, as in the other twins; otherwise a pair at the cut could fall to another side.
OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}
# The relative rounding of an operation in float32.
UNIT = tl.constexpr(2.0**-24)
# Stored entries come from float32 distances where their relative error is then at most this, an eighth of the rounding
# to half. Others, and pairs in doubt, come from float64 distances. On the bifurcation suite only pairs in doubt do.
MOST_OFF = tl.constexpr(2.0**-14)


@triton.jit
def _near(own, other, differ, start, reach, TILE: tl.constexpr, NARROW: tl.constexpr, P: tl.constexpr):
    """Distances in float64 from a tile of points to NARROW points of another, and which that ``differ`` are near.

    Both are stored feature by feature; where there is no point, NaN is within no reach.
    """
    lane, column = tl.arange(0, TILE), start + tl.arange(0, NARROW)
    squared = tl.zeros((TILE, NARROW), dtype=tl.float64)
    for k in range(P):
        x, y = tl.load(own + k * TILE + lane), tl.load(other + k * TILE + column)
        difference = x[:, None] - y[None, :]
        squared += difference * difference
    distance = tl.sqrt(squared)
    return distance, (distance <= reach) & differ


@triton.jit
def _rough(
    rough, centers, row, column, start, TILE: tl.constexpr, NARROW: tl.constexpr, P: tl.constexpr, RUN: tl.constexpr
):
    """Squares of the same distances in float32, from offsets from the tiles' centres and how far these are apart."""
    lane, at = tl.arange(0, TILE), start + tl.arange(0, NARROW)
    own, other = rough + row * P * TILE + lane, rough + column * P * TILE + at
    squared = tl.zeros((TILE, NARROW), dtype=tl.float32)
    for first in range(0, P, RUN):
        run = tl.zeros((TILE, NARROW), dtype=tl.float32)
        for k in range(first, min(first + RUN, P)):
            apart = tl.load(centers + column * P + k) - tl.load(centers + row * P + k)
            x, y = tl.load(own + k * TILE), tl.load(other + k * TILE) + apart
            difference = x[:, None] - y[None, :]
            run = tl.fma(difference, difference, run)
        squared += run
    return squared


@triton.jit
def _bounds(centers, radii, row, column, reach, P: tl.constexpr, RUN: tl.constexpr):
    """Up to which square of `_rough` a pair is surely within reach, above which it is surely not, and its errors.

    With u = 2^-24: offsets x, y of at most r and s, centres d apart, and y + d are off by u of themselves each, so that
    a distance is by u (r + s + |d| + |y + d|) <= u (r + 2 s + 2 |d|) =: error. Its square adds three roundings, and the
    sum, run by run, one for each of a run and of the runs: relative. Rounding in these lines and in the float64
    distances that decide is below 1e-6 by far, as are squares too small for float32: reach lies in 1 .. 2 here.
    """
    square = 0.0
    for k in range(P):
        apart = tl.load(centers + column * P + k) - tl.load(centers + row * P + k)
        square += apart * apart
    error = 1.01 * UNIT * (tl.load(radii + row) + 2 * tl.load(radii + column) + 2 * tl.sqrt(square))
    relative: tl.constexpr = (min(P, RUN) + (P + RUN - 1) // RUN + 2) * UNIT
    low = (reach * (1 - 1e-6) - error) * (1 - relative)
    high = (reach * (1 + 1e-6) + error) * (1 + relative)
    return tl.where(low > 0, low * low, -1.0), high * high, error, relative


@triton.jit
def _any(mask):
    return tl.max(tl.max(mask.to(tl.int32), axis=1), axis=0) > 0


@triton.jit
def _differ(same_tile, start, TILE: tl.constexpr, NARROW: tl.constexpr):
    """Which pairs are of two different points."""
    return (tl.arange(0, TILE)[:, None] != (start + tl.arange(0, NARROW))[None, :]) | (not same_tile)


@triton.jit
def tile_reached_kernel(
    points,
    rough,
    centers,
    radii,
    rows,
    columns,
    scale,
    out,
    TILE: tl.constexpr,
    NARROW: tl.constexpr,
    P: tl.constexpr,
    RUN: tl.constexpr,
):
    t = tl.program_id(0)
    row, column = tl.load(rows + t), tl.load(columns + t)
    own, other = points + row * P * TILE, points + column * P * TILE
    reach, factor = tl.load(scale), tl.load(scale + 1)
    least, most, _, _ = _bounds(centers, radii, row, column, (reach * factor).to(tl.float32), P, RUN)
    start, found = 0, False
    while (start < TILE) & (not found):
        squared = _rough(rough, centers, row, column, start, TILE, NARROW, P, RUN)
        differ = _differ(row == column, start, TILE, NARROW)
        found = _any((squared <= least) & differ)
        if (not found) & _any((squared > least) & (squared <= most) & differ):
            found = _any(_near(own, other, differ, start, reach, TILE, NARROW, P)[1])
        start += NARROW
    tl.store(out + t, found.to(tl.int8))


@triton.jit
def tile_entries_kernel(
    points,
    rough,
    centers,
    radii,
    rows,
    columns,
    scale,
    out,
    TILE: tl.constexpr,
    NARROW: tl.constexpr,
    P: tl.constexpr,
    RUN: tl.constexpr,
):
    t = tl.program_id(0)
    row, column = tl.load(rows + t), tl.load(columns + t)
    own, other = points + row * P * TILE, points + column * P * TILE
    reach, factor, bandwidth = tl.load(scale), tl.load(scale + 1), tl.load(scale + 2)
    radius, width = (reach * factor).to(tl.float32), bandwidth * factor
    least, most, error, relative = _bounds(centers, radii, row, column, radius, P, RUN)
    # Of the exponent, and so of an entry, where it is largest: at the reach.
    per_square = (1 / (width * width)).to(tl.float32)
    off = 1.01 * per_square * (radius * radius * (relative + 4 * UNIT) + 2 * radius * error + error * error)
    to = out + t.to(tl.int64) * TILE * TILE + tl.arange(0, TILE)[:, None] * TILE + tl.arange(0, NARROW)[None, :]
    for start in range(0, TILE, NARROW):
        squared = _rough(rough, centers, row, column, start, TILE, NARROW, P, RUN)
        differ = _differ(row == column, start, TILE, NARROW)
        entries = tl.where((squared <= least) & differ, tl.exp(-squared * per_square), 0.0)
        doubt = (squared > least) & (squared <= most) & differ
        if _any(doubt) | (not (off <= MOST_OFF)):
            distance, near = _near(own, other, differ, start, reach, TILE, NARROW, P)
            scaled = distance / bandwidth
            entries = tl.where(near, tl.exp((-scaled * scaled).to(tl.float32)), 0.0)
        tl.store(to + start, entries.to(tl.float16))
