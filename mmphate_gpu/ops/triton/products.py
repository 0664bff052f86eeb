"""Triton kernels of products with tiles of affinities, stored or made on the fly.

One program computes a panel of columns for the rows of a tile. It walks the active tiles of its row in order and sums
in registers, so results have the same bits on every run. The tensor cores multiply half precision and sum in float32.
Every step of a distance is in float32, never in TF32 or bfloat16.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..point_tiles import COLUMNS

# Fusing is explicit, since Triton warns about the default. It changes no decision about a pair.
OPTIONS = {"num_warps": 8, "enable_fp_fusion": True}
# The most columns of a program: sums of 128 x 128 take a quarter of the registers of eight warps.
WIDEST_PANEL = 128
# Columns of a tile that are fetched at once, and steps under way. The fetch of a block waits for that of its number, so
# five stages hold three of both: 96 KiB of shared memory, of 99 on every card since compute capability 8.0.
DEPTH = 64
STAGES = 5


@triton.jit
def _block_rows(columns, pair, part, block, width, column, TILE: tl.constexpr, DEPTH: tl.constexpr):
    """DEPTH rows, from ``part`` on, of the tile of the block with which a pair is multiplied."""
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
    # Pairs below the diagonal come first. Their tiles are fetched as they are stored, whole rows and 16 bytes a thread,
    # and transposed between shared memory and the tensor cores. With swapped strides the loads of neighboring threads
    # would be a row apart and two bytes long: too short to be fetched ahead.
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
def _squared_by_difference(x_at, y_at, TILE: tl.constexpr, P: tl.constexpr):
    """Squared distances between two tiles of points, each stored feature by feature."""
    lane = tl.arange(0, TILE)
    squared = tl.zeros((TILE, TILE), dtype=tl.float32)
    for k in range(P):
        x, y = tl.load(x_at + k * TILE + lane), tl.load(y_at + k * TILE + lane)
        difference = x[:, None] - y[None, :]
        squared += difference * difference
    return squared


@triton.jit
def _squared_by_product(x_at, y_at, center, TILE: tl.constexpr, P: tl.constexpr, FEATURES: tl.constexpr):
    """The same as |x|^2 + |y|^2 - 2 x.y around the center of the tile of x; P is a multiple of FEATURES.

    Each coordinate is the sum of two halves. The products of [high, low, high] with [high, high, low] lack only that of
    low with low, of relative size 2^-22.
    """
    lane, feature = tl.arange(0, TILE), tl.arange(0, FEATURES)
    inner = tl.zeros((TILE, TILE), dtype=tl.float32)
    x_norm, y_norm = tl.zeros((TILE,), dtype=tl.float32), tl.zeros((TILE,), dtype=tl.float32)
    for start in range(0, P, FEATURES):
        k = start + feature
        middle = tl.load(center + k)
        x = tl.load(x_at + k[None, :] * TILE + lane[:, None]) - middle[None, :]
        y = tl.load(y_at + k[:, None] * TILE + lane[None, :]) - middle[:, None]
        x_norm += tl.sum(x * x, axis=1)
        y_norm += tl.sum(y * y, axis=0)
        x_high, y_high = x.to(tl.float16), y.to(tl.float16)
        x_low, y_low = (x - x_high.to(tl.float32)).to(tl.float16), (y - y_high.to(tl.float32)).to(tl.float16)
        inner = tl.dot(x_high, y_high, inner)
        inner = tl.dot(x_low, y_high, inner)
        inner = tl.dot(x_high, y_low, inner)
    return x_norm[:, None] + y_norm[None, :] - 2 * inner


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
    x_at = points + row.to(tl.int64) * P * TILE
    total = tl.zeros((TILE, PANEL), dtype=tl.float32)
    for t in range(tl.load(indptr + row), tl.load(indptr + row + 1)):
        tile = tl.load(columns + t)
        y_at = points + tile.to(tl.int64) * P * TILE
        if SPLIT:
            squared = _squared_by_product(x_at, y_at, centers + row * P, TILE, P, FEATURES)
        else:
            squared = _squared_by_difference(x_at, y_at, TILE, P)
        near = (squared <= limit) & ((tile != row) | ~same)
        # Rounding may leave a squared distance slightly below 0, and an entry slightly above 1: 1 in half precision.
        entries = tl.where(near, tl.exp2(-squared), 0.0).to(tl.float16)
        at = (tile.to(tl.int64) * TILE + lane)[:, None] * width
        values = tl.load(block + at + column[None, :], mask=inside, other=0.0)
        total = tl.dot(entries, values, total)
    to = (row.to(tl.int64) * TILE + lane)[:, None] * width + column[None, :]
    tl.store(out + to, total, mask=inside)


def panels(block: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor], int, tuple[int, int]]:
    """The block, padded to whole vectors of COLUMNS; room for its sums, with and without padding; a panel; the grid."""
    rows, _, width = block.shape
    whole = triton.cdiv(width, COLUMNS) * COLUMNS
    panel = min(WIDEST_PANEL, triton.next_power_of_2(whole))
    block = (block if whole == width else torch.nn.functional.pad(block, (0, whole - width))).contiguous()
    out = torch.empty(block.shape, dtype=torch.float32, device=block.device)
    return block, (out, out[:, :, :width]), panel, (rows, triton.cdiv(whole, panel))
