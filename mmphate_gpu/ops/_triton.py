"""The Triton twins: tiles of affinities, products with them, nearest centres; loaded at the first call of one on CUDA.

One launcher per op, with the signature of its portable version. In the products one program makes a tile's rows of a
panel of columns: it walks the active tiles of its row in order and sums in registers, so results have the same bits on
every run. What is multiplied there, on the tensor cores, is half precision, sums are float32, and so is every step of a
distance: never TF32 or bfloat16. Whether a tile is active, and which entries a stored one has, is decided as in
float64, one program a tile: a float32 screen with a proven bound leaves it the pairs in doubt, since workstation cards
do float64 at a 64th of the rate. For the nearest centres one program serves a block of points and walks the centres.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl

from .gaussian_product import FEATURES, FEW_FEATURES
from .tile_entries import TILE
from .twins import PORTABLE

# Columns of a tile whose distances are decided at a time: 128 x 32 in float64 take a quarter of the registers.
NARROW = 32
# Squares that are summed before their sum is added to that of others: rounding grows with this number and that of the
# sums, not with their product.
RUN = 8
# Rounded after every operation, as in the other twins, or a pair at the cut could fall to another side.
EXACT_OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}
# Said, since Triton warns where it is left to its default. What it fuses is no decision of ours.
OPTIONS = {"num_warps": 8, "enable_fp_fusion": True}
# Columns a program multiplies with, at most: sums of 128 x 128 take a quarter of the registers of eight warps.
WIDEST_PANEL = 128
# Columns of a tile that are fetched at once, and steps under way: the fetch of a block waits for that of its number, so
# five stages hold three of both (96 KiB of shared memory; 99 are there on every card since compute capability 8.0).
DEPTH = 64
STAGES = 5
# What an operation in float32 rounds by, of its result.
UNIT = tl.constexpr(2.0**-24)
# Entries to be stored come from float32 distances where that puts them off by at most this of themselves, an eighth of
# the rounding to half; elsewhere, and where a pair is in doubt, from float64 ones. Bifurcation suite: none elsewhere.
MOST_OFF = tl.constexpr(2.0**-14)
# Beyond this, of a reach of 1 to 2, coordinates are cut: their squares overflow, no bound holds, float64 decides.
FARTHEST = 1e30
# Points and centres of a block of products, and features at a time.
BLOCK = {"POINTS": 128, "CENTERS": 128, "FEATURES": 32}


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
    """Which pairs are not of a point with itself."""
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


@triton.jit
def _block_rows(columns, pair, part, block, width, column, TILE: tl.constexpr, DEPTH: tl.constexpr):
    """DEPTH rows of the block, from ``part`` on, of the tile that a pair is multiplied with."""
    at = tl.load(columns + pair).to(tl.int64) * TILE + part + tl.arange(0, DEPTH)
    return tl.load(block + at[:, None] * width + column[None, :], mask=(column < width)[None, :], other=0.0)


@triton.jit
def tile_matmul_kernel(
    tiles,
    slots,
    indptr,
    diagonal,
    columns,
    block,
    out,
    width,
    TILE: tl.constexpr,
    PANEL: tl.constexpr,
    DEPTH: tl.constexpr,
    STAGES: tl.constexpr,
):
    row = tl.program_id(0)
    lane, depth = tl.arange(0, TILE), tl.arange(0, DEPTH)
    column = tl.program_id(1) * PANEL + tl.arange(0, PANEL)
    total = tl.zeros((TILE, PANEL), dtype=tl.float32)
    parts: tl.constexpr = TILE // DEPTH
    first, middle, last = tl.load(indptr + row), tl.load(diagonal + row), tl.load(indptr + row + 1)
    # Pairs below the diagonal come first, and their tiles are fetched as they lie, some whole rows of them, 16 bytes a
    # thread, and turned on the way from shared memory to the tensor cores. With swapped strides instead the loads of
    # neighbouring threads would be a row apart, of two bytes each: too short to be fetched ahead.
    for step in tl.range(first * parts, middle * parts, num_stages=STAGES):
        pair, part = step // parts, step % parts * DEPTH
        stored = tiles + tl.load(slots + pair).to(tl.int64) * TILE * TILE
        entries = tl.load(stored + (part + depth)[:, None] * TILE + lane[None, :])
        total = tl.dot(tl.trans(entries), _block_rows(columns, pair, part, block, width, column, TILE, DEPTH), total)
    for step in tl.range(middle * parts, last * parts, num_stages=STAGES):
        pair, part = step // parts, step % parts * DEPTH
        stored = tiles + tl.load(slots + pair).to(tl.int64) * TILE * TILE
        entries = tl.load(stored + lane[:, None] * TILE + part + depth[None, :])
        total = tl.dot(entries, _block_rows(columns, pair, part, block, width, column, TILE, DEPTH), total)
    to = (row.to(tl.int64) * TILE + lane)[:, None] * width + column[None, :]
    tl.store(out + to, total, mask=(column < width)[None, :])


@triton.jit
def _squared_by_difference(own, other, TILE: tl.constexpr, P: tl.constexpr):
    """Squared distances between two tiles of points, each stored feature by feature."""
    lane = tl.arange(0, TILE)
    squared = tl.zeros((TILE, TILE), dtype=tl.float32)
    for k in range(P):
        x, y = tl.load(own + k * TILE + lane), tl.load(other + k * TILE + lane)
        difference = x[:, None] - y[None, :]
        squared += difference * difference
    return squared


@triton.jit
def _squared_by_product(own, other, center, TILE: tl.constexpr, P: tl.constexpr, FEATURES: tl.constexpr):
    """The same as |x|^2 + |y|^2 - 2 x.y around the centre of the own tile; P is a multiple of FEATURES.

    Each coordinate is split into two halves: the products of [high, low, high] with [high, high, low] lack only the
    2^-22 of low times low.
    """
    lane, feature = tl.arange(0, TILE), tl.arange(0, FEATURES)
    inner = tl.zeros((TILE, TILE), dtype=tl.float32)
    own_norm, other_norm = tl.zeros((TILE,), dtype=tl.float32), tl.zeros((TILE,), dtype=tl.float32)
    for start in range(0, P, FEATURES):
        k = start + feature
        middle = tl.load(center + k)
        x = tl.load(own + k[None, :] * TILE + lane[:, None]) - middle[None, :]
        y = tl.load(other + k[:, None] * TILE + lane[None, :]) - middle[:, None]
        own_norm += tl.sum(x * x, axis=1)
        other_norm += tl.sum(y * y, axis=0)
        x_high, y_high = x.to(tl.float16), y.to(tl.float16)
        x_low, y_low = (x - x_high.to(tl.float32)).to(tl.float16), (y - y_high.to(tl.float32)).to(tl.float16)
        inner = tl.dot(x_high, y_high, inner)
        inner = tl.dot(x_low, y_high, inner)
        inner = tl.dot(x_high, y_low, inner)
    return own_norm[:, None] + other_norm[None, :] - 2 * inner


@triton.jit
def gaussian_product_kernel(
    points,
    centers,
    limit,
    indptr,
    columns,
    block,
    out,
    width,
    P: tl.constexpr,
    SPLIT: tl.constexpr,
    TILE: tl.constexpr,
    PANEL: tl.constexpr,
    FEATURES: tl.constexpr,
):
    row = tl.program_id(0)
    lane = tl.arange(0, TILE)
    column = tl.program_id(1) * PANEL + tl.arange(0, PANEL)
    inside = (column < width)[None, :]
    same = lane[:, None] == lane[None, :]
    own = points + row.to(tl.int64) * P * TILE
    total = tl.zeros((TILE, PANEL), dtype=tl.float32)
    for t in range(tl.load(indptr + row), tl.load(indptr + row + 1)):
        tile = tl.load(columns + t)
        other = points + tile.to(tl.int64) * P * TILE
        if SPLIT:
            squared = _squared_by_product(own, other, centers + row * P, TILE, P, FEATURES)
        else:
            squared = _squared_by_difference(own, other, TILE, P)
        near = (squared <= limit) & ((tile != row) | ~same)
        # Rounding may leave a product form a hair below 0, and an entry a hair above 1: as good as 1 in half precision.
        entries = tl.where(near, tl.exp2(-squared), 0.0).to(tl.float16)
        at = (tile.to(tl.int64) * TILE + lane)[:, None] * width
        values = tl.load(block + at + column[None, :], mask=inside, other=0.0)
        total = tl.dot(entries, values, total)
    to = (row.to(tl.int64) * TILE + lane)[:, None] * width + column[None, :]
    tl.store(out + to, total, mask=inside)


@triton.jit
def assign_nearest_kernel(
    points,
    centers,
    norms,
    labels,
    least,
    n,
    k,
    D: tl.constexpr,
    POINTS: tl.constexpr,
    CENTERS: tl.constexpr,
    FEATURES: tl.constexpr,
):
    one = tl.program_id(1).to(tl.int64)
    point = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    center, feature = tl.arange(0, CENTERS), tl.arange(0, FEATURES)
    own = points + one * n * D + point[:, None].to(tl.int64) * D
    best = tl.full((POINTS,), float("inf"), dtype=tl.float32)
    nearest = tl.zeros((POINTS,), dtype=tl.int32)
    for start in range(0, k, CENTERS):
        inside = start + center < k
        other = centers + one * k * D + (start + center)[None, :].to(tl.int64) * D
        inner = tl.zeros((POINTS, CENTERS), dtype=tl.float32)
        for first in range(0, D, FEATURES):
            column = first + feature
            x = tl.load(own + column[None, :], mask=(point < n)[:, None] & (column < D)[None, :], other=0.0)
            y = tl.load(other + column[:, None], mask=inside[None, :] & (column < D)[:, None], other=0.0)
            # Three products of the halves of a split: as right as float32, at tensor-core speed.
            inner = tl.dot(x, y, inner, input_precision="tf32x3")
        norm = tl.load(norms + one * k + start + center, mask=inside, other=float("inf"))
        low, at = tl.min(norm[None, :] - 2 * inner, axis=1, return_indices=True, return_indices_tie_break_left=True)
        nearest = tl.where(low < best, start + at, nearest)
        best = tl.minimum(low, best)
    tl.store(labels + one * n + point, nearest.to(tl.int64), mask=point < n)
    tl.store(least + one * n + point, best, mask=point < n)


# ---------------------------------------------------------------- launchers


def tile_reached(points: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, reach: float) -> torch.Tensor:
    reached = torch.empty(rows.shape, dtype=torch.int8, device=points.device)
    _start_for_each_tile(tile_reached_kernel, points, rows, columns, reach, (), reached)
    return reached.bool()


def tile_entries(
    points: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, bandwidth: float, reach: float
) -> torch.Tensor:
    tiles = torch.empty(rows.numel(), TILE, TILE, dtype=torch.float16, device=points.device)
    _start_for_each_tile(tile_entries_kernel, points, rows, columns, reach, (bandwidth,), tiles)
    return tiles


def _start_for_each_tile(
    kernel: Any,
    points: torch.Tensor,
    rows: torch.Tensor,
    columns: torch.Tensor,
    reach: float,
    numbers: tuple[float, ...],
    out: torch.Tensor,
) -> None:
    if rows.numel() == 0:
        return
    # A power of two, for a reach of 1 to 2.
    factor = math.ldexp(1.0, 1 - math.frexp(reach)[1])
    # By way of memory: numbers of Python arrive in a kernel as float32.
    scale = torch.tensor((reach, factor, *numbers), dtype=torch.float64, device=points.device)
    sizes = {"TILE": TILE, "NARROW": NARROW, "P": points.shape[2], "RUN": RUN}
    with torch.cuda.device_of(points):
        given = (part.contiguous() for part in (points.mT, *_offsets(points, factor), rows, columns))
        kernel[(rows.numel(),)](*given, scale, out, **sizes, **EXACT_OPTIONS)


def _offsets(points: torch.Tensor, factor: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of points times ``factor`` in float32: from the centre of their tile (R, p, TILE), centres (R, p), largest (R,).

    Centres are rounded before they are subtracted, so that offsets are off by their own rounding alone.
    """
    offsets = points * factor
    centers = offsets.nanmean(1).float().clamp_(-FARTHEST, FARTHEST)
    offsets.sub_(centers[:, None])
    lengths = torch.linalg.vector_norm(offsets, dim=2)
    largest = lengths.masked_fill_(lengths.isnan(), 0).amax(1).float()
    return offsets.mT.float().clamp_(-FARTHEST, FARTHEST), centers, largest


def tile_matmul(
    tiles: torch.Tensor,
    slots: torch.Tensor,
    indptr: torch.Tensor,
    diagonal: torch.Tensor,
    columns: torch.Tensor,
    block: torch.Tensor,
) -> torch.Tensor:
    block, out, panel, grid = _panels(block)
    given = (part.contiguous() for part in (tiles, slots, indptr, diagonal, columns))
    sizes = {"TILE": TILE, "PANEL": panel, "DEPTH": DEPTH, "STAGES": STAGES}
    with torch.cuda.device_of(block):
        tile_matmul_kernel[grid](*given, block, out[0], block.shape[2], **sizes, **OPTIONS)
    return out[1]


def gaussian_product(
    points: torch.Tensor,
    centers: torch.Tensor | None,
    limit: float,
    indptr: torch.Tensor,
    columns: torch.Tensor,
    block: torch.Tensor,
) -> torch.Tensor:
    block, out, panel, grid = _panels(block)
    split = centers is not None
    points, centers, indptr, columns = (
        part.contiguous() for part in (points, centers if split else points, indptr, columns)
    )
    sizes = {"P": points.shape[1], "SPLIT": split, "TILE": TILE, "PANEL": panel, "FEATURES": FEATURES}
    with torch.cuda.device_of(block):
        gaussian_product_kernel[grid](
            points, centers, limit, indptr, columns, block, out[0], block.shape[2], **sizes, **OPTIONS
        )
    return out[1]


def _panels(block: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor], int, tuple[int, int]]:
    """The block with whole vectors of 16 columns, its sums with and without the columns added, a panel, the grid."""
    rows, _, width = block.shape
    whole = -(-width // 16) * 16
    panel = min(WIDEST_PANEL, triton.next_power_of_2(whole))
    block = torch.nn.functional.pad(block, (0, whole - width)).contiguous()
    out = torch.empty(block.shape, dtype=torch.float32, device=block.device)
    return block, (out, out[:, :, :width]), panel, (rows, triton.cdiv(whole, panel))


def assign_nearest(points: torch.Tensor, centers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    if points.dtype != torch.float32:  # tensor cores for it are not on every card
        return PORTABLE["assign_nearest"](points, centers)
    points, centers = points.contiguous(), centers.contiguous()
    n, n_features = points.shape[-2:]
    n_centers, n_sets = centers.shape[-2], points.shape[:-2].numel()
    labels = torch.empty(points.shape[:-1], dtype=torch.int64, device=points.device)
    least = torch.empty(points.shape[:-1], dtype=points.dtype, device=points.device)
    grid = triton.cdiv(n, BLOCK["POINTS"]), n_sets
    norms = centers.square().sum(-1)
    with torch.cuda.device_of(points):
        assign_nearest_kernel[grid](
            points, centers, norms, labels, least, n, n_centers, D=n_features, **BLOCK, **OPTIONS
        )
    return labels, least.add_(points.square().sum(-1)).clamp_min_(0)


def probe() -> None:
    """Compile and run every kernel in its largest form on torch's current device; raises what Triton raises."""
    device = torch.device("cuda", torch.cuda.current_device())
    indptr, zero = torch.tensor([0, 1], device=device), torch.zeros(1, dtype=torch.int64, device=device)
    columns = zero.int()
    block = torch.zeros(1, TILE, WIDEST_PANEL, dtype=torch.float16, device=device)
    tiles = torch.zeros(1, TILE, TILE, dtype=torch.float16, device=device)
    tile_matmul(tiles, columns, indptr, zero, columns, block)
    points = torch.zeros(1, TILE, FEW_FEATURES, dtype=torch.float64, device=device)
    tile_reached(points, zero, zero, 1.0)
    tile_entries(points, zero, zero, 1.0, 1.0)
    for n_features, split in ((FEW_FEATURES, False), (FEATURES, True)):
        features = torch.zeros(1, n_features, TILE, device=device)
        gaussian_product(features, features[..., 0] if split else None, 1.0, indptr, columns, block)
    assign_nearest(torch.zeros(2, 100, device=device), torch.zeros(2, 100, device=device))
    torch.cuda.synchronize(device)
