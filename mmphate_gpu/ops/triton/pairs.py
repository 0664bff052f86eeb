"""Triton kernels that decide about pairs: which tiles hold a pair within reach, and the entries of these tiles.

A program decides for a tile whether it is active, or which entries it has, with the result of float64. A float32 screen
with a proven bound leaves only the pairs in doubt to float64, whose rate on workstation cards is a 64th of float32's.

If points are masked, they may lack features, which are NaN. Their squares are sums over the features that both have,
times P over the number of these.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Columns of a tile that are decided at a time: 128 x 32 distances in float64 take a quarter of the registers.
NARROW = 32
# Squares are summed in runs of this length, and then the runs are: rounding grows with the length of a run plus the
# number of runs, not with their product.
RUN = 8
# Without fused operations, as in the other twins: a fused one could decide a pair at the cut otherwise.
OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}
# The relative rounding of an operation in float32.
UNIT = tl.constexpr(2.0**-24)
# The state of a feature in a tile: 0 if no point has it, 1 if some have it, and this if all points have it. A point
# without any feature is like a place without a point.
HAVE_ALL = tl.constexpr(3)
# Entries come from float32 distances where that leaves a relative error of at most this, an eighth of the rounding to
# half precision. Other entries, and pairs in doubt, come from float64 distances.
MOST_OFF = tl.constexpr(2.0**-14)


@triton.jit
def _near(
    x_at, y_at, differ, start, reach, TILE: tl.constexpr, NARROW: tl.constexpr, P: tl.constexpr, MASKED: tl.constexpr
):
    """Distances in float64 from a tile of points to NARROW points of another, and which pairs that ``differ`` are near.

    Points are stored feature by feature. In places without a point they are NaN, which is within no reach. Neither are
    points without a common feature: 0 times infinity is NaN.
    """
    lane, column = tl.arange(0, TILE), start + tl.arange(0, NARROW)
    squared = tl.zeros((TILE, NARROW), dtype=tl.float64)
    count = tl.zeros((TILE, NARROW) if MASKED else (1, 1), dtype=tl.int32)
    for k in range(P):
        x, y = tl.load(x_at + k * TILE + lane), tl.load(y_at + k * TILE + column)
        difference = x[:, None] - y[None, :]
        if MASKED:
            common = difference == difference
            squared += tl.where(common, difference * difference, 0.0)
            count += common.to(tl.int32)
        else:
            squared += difference * difference
    if MASKED:
        squared *= P / count.to(tl.float64)
    distance = tl.sqrt(squared)
    return distance, (distance <= reach) & differ


@triton.jit
def _rough(
    rough, centers, row, column, start, TILE: tl.constexpr, NARROW: tl.constexpr, P: tl.constexpr, RUN: tl.constexpr
):
    """Squares of the same distances in float32, from offsets from the centers of the tiles and the centers."""
    lane, at = tl.arange(0, TILE), start + tl.arange(0, NARROW)
    x_at, y_at = rough + row * P * TILE + lane, rough + column * P * TILE + at
    squared = tl.zeros((TILE, NARROW), dtype=tl.float32)
    for first in range(0, P, RUN):
        run = tl.zeros((TILE, NARROW), dtype=tl.float32)
        for k in range(first, min(first + RUN, P)):
            apart = tl.load(centers + column * P + k) - tl.load(centers + row * P + k)
            x, y = tl.load(x_at + k * TILE), tl.load(y_at + k * TILE) + apart
            difference = x[:, None] - y[None, :]
            run = tl.fma(difference, difference, run)
        squared += run
    return squared


@triton.jit
def _rough_masked(
    rough,
    centers,
    states,
    row,
    column,
    start,
    TILE: tl.constexpr,
    NARROW: tl.constexpr,
    P: tl.constexpr,
    RUN: tl.constexpr,
):
    """Sums of the squares over common features, in float32, and which share of the P features is common.

    A feature that all points of both tiles have takes the operations of points without a mask, and one that no point of
    a tile has takes none.
    """
    lane, at = tl.arange(0, TILE), start + tl.arange(0, NARROW)
    x_at, y_at = rough + row * P * TILE + lane, rough + column * P * TILE + at
    squared, count = tl.zeros((TILE, NARROW), dtype=tl.float32), tl.zeros((TILE, NARROW), dtype=tl.float32)
    whole = 0.0
    for first in range(0, P, RUN):
        run = tl.zeros((TILE, NARROW), dtype=tl.float32)
        for k in range(first, min(first + RUN, P)):
            state = tl.load(states + row * P + k) & tl.load(states + column * P + k)
            whole += tl.where(state == HAVE_ALL, 1.0, 0.0)
            if state != 0:
                apart = tl.load(centers + column * P + k) - tl.load(centers + row * P + k)
                x, y = tl.load(x_at + k * TILE), tl.load(y_at + k * TILE) + apart
                difference = x[:, None] - y[None, :]
                if state == HAVE_ALL:
                    run = tl.fma(difference, difference, run)
                else:
                    common = difference == difference
                    difference = tl.where(common, difference, 0.0)
                    run = tl.fma(difference, difference, run)
                    count += tl.where(common, 1.0, 0.0)
        squared += run
    return squared, (count + whole) / P


@triton.jit
def _bounds(centers, radii, row, column, reach, P: tl.constexpr, RUN: tl.constexpr):
    """The square of `_rough` up to which a pair is surely within reach, that above which it is not, and the errors.

    With u = 2^-24: offsets x and y of at most r and s, the distance d of the centers, and y + d each have a relative
    error of u. So a distance has the error u (r + s + |d| + |y + d|) <= u (r + 2 s + 2 |d|) =: error. Its square adds
    three roundings, and the sum one for each square of a run and one for each run: relative. Rounding in these lines
    and in the float64 distances that decide is far below 1e-6, and so are squares too small for float32, since reach
    lies in 1 .. 2 here.
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
def _masked_bounds(share, reach, error, relative):
    """The two squares of `_bounds` for sums over a ``share`` of the features.

    The distance over these features is at most its bound in `_bounds`, and the reach becomes less by the root of the
    share. A root and a quotient in float32 are off by a few u; 2e-6 is 33 u.
    """
    within = reach * tl.sqrt(share)
    low = (within * (1 - 2e-6) - error) * (1 - relative)
    high = (within * (1 + 2e-6) + error) * (1 + relative)
    return tl.where(low > 0, low * low, -1.0), high * high


@triton.jit
def _any(mask):
    return tl.max(tl.max(mask.to(tl.int32), axis=1), axis=0) > 0


@triton.jit
def _differ(same_tile, start, TILE: tl.constexpr, NARROW: tl.constexpr):
    """Which pairs are of different points."""
    return (tl.arange(0, TILE)[:, None] != (start + tl.arange(0, NARROW))[None, :]) | (not same_tile)


@triton.jit
def tile_reached_kernel(
    points,
    rough,
    centers,
    radii,
    states,
    rows,
    columns,
    scale,
    out,
    TILE: tl.constexpr,
    NARROW: tl.constexpr,
    P: tl.constexpr,
    RUN: tl.constexpr,
    MASKED: tl.constexpr,
):
    t = tl.program_id(0)
    row, column = tl.load(rows + t), tl.load(columns + t)
    x_at, y_at = points + row * P * TILE, points + column * P * TILE
    reach, factor = tl.load(scale), tl.load(scale + 1)
    radius = (reach * factor).to(tl.float32)
    least, most, error, relative = _bounds(centers, radii, row, column, radius, P, RUN)
    start, reached = 0, False
    while (start < TILE) & (not reached):
        differ = _differ(row == column, start, TILE, NARROW)
        if MASKED:
            squared, share = _rough_masked(rough, centers, states, row, column, start, TILE, NARROW, P, RUN)
            low, high = _masked_bounds(share, radius, error, relative)
            differ = differ & (share > 0)
        else:
            squared, low, high = _rough(rough, centers, row, column, start, TILE, NARROW, P, RUN), least, most
        reached = _any((squared <= low) & differ)
        if (not reached) & _any((squared > low) & (squared <= high) & differ):
            reached = _any(_near(x_at, y_at, differ, start, reach, TILE, NARROW, P, MASKED)[1])
        start += NARROW
    tl.store(out + t, reached.to(tl.int8))


@triton.jit
def tile_entries_kernel(
    points,
    rough,
    centers,
    radii,
    states,
    rows,
    columns,
    scale,
    out,
    TILE: tl.constexpr,
    NARROW: tl.constexpr,
    P: tl.constexpr,
    RUN: tl.constexpr,
    MASKED: tl.constexpr,
):
    t = tl.program_id(0)
    row, column = tl.load(rows + t), tl.load(columns + t)
    x_at, y_at = points + row * P * TILE, points + column * P * TILE
    reach, factor, bandwidth = tl.load(scale), tl.load(scale + 1), tl.load(scale + 2)
    radius, width = (reach * factor).to(tl.float32), bandwidth * factor
    least, most, error, relative = _bounds(centers, radii, row, column, radius, P, RUN)
    # The error of the exponent, and so the relative error of an entry, is largest at the reach.
    per_square = (1 / (width * width)).to(tl.float32)
    most_off = 1.01 * per_square * (radius * radius * (relative + 4 * UNIT) + 2 * radius * error + error * error)
    to = out + t.to(tl.int64) * TILE * TILE + tl.arange(0, TILE)[:, None] * TILE + tl.arange(0, NARROW)[None, :]
    for start in range(0, TILE, NARROW):
        differ = _differ(row == column, start, TILE, NARROW)
        if MASKED:
            squared, share = _rough_masked(rough, centers, states, row, column, start, TILE, NARROW, P, RUN)
            low, high = _masked_bounds(share, radius, error, relative)
            differ = differ & (share > 0)
            wide = error / tl.sqrt(share)
            off = 1.01 * per_square * (radius * radius * (relative + 12 * UNIT) + 2 * radius * wide + wide * wide)
            sure = (squared <= low) & differ
            in_double = _any((squared <= high) & differ & ~(sure & (off <= MOST_OFF)))
            entries = tl.where(sure, tl.exp(-squared / share * per_square), 0.0)
        else:
            squared = _rough(rough, centers, row, column, start, TILE, NARROW, P, RUN)
            entries = tl.where((squared <= least) & differ, tl.exp(-squared * per_square), 0.0)
            doubt = (squared > least) & (squared <= most) & differ
            in_double = _any(doubt) | (not (most_off <= MOST_OFF))
        if in_double:
            distance, near = _near(x_at, y_at, differ, start, reach, TILE, NARROW, P, MASKED)
            scaled = distance / bandwidth
            entries = tl.where(near, tl.exp((-scaled * scaled).to(tl.float32)), 0.0)
        tl.store(to + start, entries.to(tl.float16))
