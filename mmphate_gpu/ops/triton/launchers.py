"""The Triton twins: tiles of affinities, products with them, nearest centres; loaded at the first call of one on CUDA.

One launcher per op, with the signature of its portable version. In the products one program makes a tile's rows of a
panel of columns: it walks the active tiles of its row in order and sums in registers, so results have the same bits on
every run. The tensor cores multiply half precision and sum in float32. Every step of a distance is in float32, never in
TF32 or bfloat16. For the nearest centres one program serves a block of points and walks the centres. `pairs`
decides about pairs, and `blocks` has the passes around a product.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..gaussian_product import FEATURES, FEW_FEATURES
from ..launch.twins import PORTABLE
from ..tile_block import COLUMNS
from ..tile_entries import TILE
from .blocks import tile_block, tile_rows
from .pairs import tile_entries, tile_reached

# Said, since Triton warns where it is left to its default. What it fuses is no decision of ours.
OPTIONS = {"num_warps": 8, "enable_fp_fusion": True}
# Columns a program multiplies with, at most: sums of 128 x 128 take a quarter of the registers of eight warps.
WIDEST_PANEL = 128
# Columns of a tile that are fetched at once, and steps under way: the fetch of a block waits for that of its number, so
# five stages hold three of both (96 KiB of shared memory; 99 are there on every card since compute capability 8.0).
DEPTH = 64
STAGES = 5
# Points and centres of a block of products, and features at a time.
BLOCK = {"POINTS": 128, "CENTERS": 128, "FEATURES": 32}


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
    """The block with whole vectors of COLUMNS, its sums with and without the columns added, a panel, the grid."""
    rows, _, width = block.shape
    whole = triton.cdiv(width, COLUMNS) * COLUMNS
    panel = min(WIDEST_PANEL, triton.next_power_of_2(whole))
    block = (block if whole == width else torch.nn.functional.pad(block, (0, whole - width))).contiguous()
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
    """Compile and run every kernel on torch's current device; raises what Triton raises."""
    device = torch.device("cuda", torch.cuda.current_device())
    run_all(device)
    torch.cuda.synchronize(device)


def run_all(device: torch.device) -> None:
    """Every kernel in the largest form that a fit starts, on next to nothing."""
    indptr, zero = torch.arange(2, device=device), torch.zeros(1, dtype=torch.int64, device=device)
    columns = zero.int()
    block = torch.zeros(1, TILE, WIDEST_PANEL, dtype=torch.float16, device=device)
    tiles = torch.zeros(1, TILE, TILE, dtype=torch.float16, device=device)
    tile_matmul(tiles, columns, indptr, zero, columns, block)
    points = torch.zeros(1, TILE, FEW_FEATURES, dtype=torch.float64, device=device)
    tile_reached(points, zero, zero, 1.0)
    tile_entries(points, zero, zero, 1.0, 1.0)
    for n_features, split in ((FEW_FEATURES, False), (FEATURES, True)):
        features = torch.zeros(1, n_features, TILE, dtype=torch.float32, device=device)
        gaussian_product(features, features[..., 0] if split else None, 1.0, indptr, columns, block)
    entry = torch.zeros(1, dtype=torch.float32, device=device)
    for width, dtype in ((WIDEST_PANEL, torch.float32), (1, torch.float64)):  # of the landmarks' blocks; of row sums
        nodes, order = torch.zeros(1, width, dtype=dtype, device=device), zero[None]
        tile_rows(tile_block(nodes, nodes, order).float(), nodes, order, indptr.int(), columns, entry, nodes)
    points = torch.zeros(2, 100, dtype=torch.float32, device=device)
    assign_nearest(points, points)
