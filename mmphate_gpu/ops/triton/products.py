"""Triton kernels of products with tiles of affinities, stored or made on the fly.

One program computes a panel of columns for the rows of a tile. It walks the active tiles of its row in order and sums
in registers, so results have the same bits on every run. The tensor cores multiply half precision and sum in float32.
Every step of a distance is in float32, never in TF32 or bfloat16.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..tile_block import COLUMNS

# Fusing is explicit, since Triton warns about the default. It changes no decision about a pair.
OPTIONS = {"num_warps": 8, "enable_fp_fusion": True}
# Columns a program multiplies with, at most: sums of 128 x 128 take a quarter of the registers of eight warps.
WIDEST_PANEL = 128
# Columns of a tile that are fetched at once, and steps under way: the fetch of a block waits for that of its number, so
# five stages hold three of both (96 KiB of shared memory; 99 are there on every card since compute capability 8.0).
DEPTH = 64
STAGES = 5


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


def panels(block: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor], int, tuple[int, int]]:
    """The block with whole vectors of COLUMNS, its sums with and without the columns added, a panel, the grid."""
    rows, _, width = block.shape
    whole = triton.cdiv(width, COLUMNS) * COLUMNS
    panel = min(WIDEST_PANEL, triton.next_power_of_2(whole))
    block = (block if whole == width else torch.nn.functional.pad(block, (0, whole - width))).contiguous()
    out = torch.empty(block.shape, dtype=torch.float32, device=block.device)
    return block, (out, out[:, :, :width]), panel, (rows, triton.cdiv(whole, panel))
