"""The Triton twins: products with tiles of affinities on the tensor cores; loaded at the first call of one on CUDA.

One launcher per op, with the signature of its portable version. One program makes a tile's rows of a panel of columns:
it walks the active tiles of its row in order and sums in registers, so results have the same bits on every run. What is
multiplied is half precision, sums are float32, and so is every step of a distance: never TF32 or bfloat16.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .tile_layout import TILE

# Said, since Triton warns where it is left to its default. What it fuses is no decision of ours.
OPTIONS = {"num_warps": 8, "enable_fp_fusion": True}
# Columns a program multiplies with, at most: sums of 128 x 128 take a quarter of the registers of eight warps.
WIDEST_PANEL = 128
# Columns of a tile that are fetched at once, and steps under way: the fetch of a block waits for that of its number, so
# five stages hold three of both (96 KiB of shared memory; 99 are there on every card since compute capability 8.0).
DEPTH = 64
STAGES = 5
# Features at a time in the distances by matrix products, the least a tensor core takes.
FEATURES = 16
# Above this many features distances by differences cost more than those by products, if these are accurate enough.
FEW_FEATURES = 16
# Of an entry, by the rounding of split coordinates.
MOST_SPLIT_ERROR = 2e-5


@triton.jit
def tile_matmul_kernel(
    tiles,
    indptr,
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
    inside = (column < width)[None, :]
    total = tl.zeros((TILE, PANEL), dtype=tl.float32)
    parts: tl.constexpr = TILE // DEPTH
    first, last = tl.load(indptr + row) * parts, tl.load(indptr + row + 1) * parts
    for step in tl.range(first, last, num_stages=STAGES):
        tile, part = step // parts, step % parts * DEPTH
        at = tl.load(columns + tile).to(tl.int64) * TILE + part
        entries = tl.load(tiles + tile * TILE * TILE + lane[:, None] * TILE + part + depth[None, :])
        values = tl.load(block + (at + depth)[:, None] * width + column[None, :], mask=inside, other=0.0)
        total = tl.dot(entries, values, total)
    to = (row.to(tl.int64) * TILE + lane)[:, None] * width + column[None, :]
    tl.store(out + to, total, mask=inside)


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


# ---------------------------------------------------------------- launchers


def tile_matmul(tiles: torch.Tensor, indptr: torch.Tensor, columns: torch.Tensor, block: torch.Tensor) -> torch.Tensor:
    block, out, panel, grid = _panels(block)
    sizes = {"TILE": TILE, "PANEL": panel, "DEPTH": DEPTH, "STAGES": STAGES}
    with torch.cuda.device_of(block):
        tile_matmul_kernel[grid](tiles, indptr, columns, block, out[0], block.shape[2], **sizes, **OPTIONS)
    return out[1]


def gaussian_product(
    points: torch.Tensor, limit: float, indptr: torch.Tensor, columns: torch.Tensor, block: torch.Tensor
) -> torch.Tensor:
    block, out, panel, grid = _panels(block)
    features, centers, split = _by_feature(points, limit)
    sizes = {"P": features.shape[1], "SPLIT": split, "TILE": TILE, "PANEL": panel, "FEATURES": FEATURES}
    with torch.cuda.device_of(block):
        gaussian_product_kernel[grid](
            features, centers, limit, indptr, columns, block, out[0], block.shape[2], **sizes, **OPTIONS
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


def _by_feature(points: torch.Tensor, limit: float) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """Points feature by feature (R, P, TILE), the centres of the tiles (R, P), and whether products are the way."""
    n_features = points.shape[2]
    centers = points.mean(1)
    if n_features > FEW_FEATURES:
        radius = float((points - centers[:, None]).norm(dim=2).max())
        # Coordinates of a pair within reach lie within this of the centre, and their products lose 2^-21 of its square.
        if (radius + limit**0.5) ** 2 * 2.0**-21 <= MOST_SPLIT_ERROR:
            fill = -n_features % FEATURES
            points, centers = (torch.nn.functional.pad(part, (0, fill)) for part in (points, centers))
            return points.mT.contiguous(), centers.contiguous(), True
    return points.mT.contiguous(), centers, False


def probe() -> None:
    """Compile and run every kernel in its largest form on torch's current device; raises what Triton raises."""
    device = torch.device("cuda", torch.cuda.current_device())
    indptr, columns = torch.tensor([0, 1], device=device), torch.zeros(1, dtype=torch.int32, device=device)
    block = torch.zeros(1, TILE, WIDEST_PANEL, dtype=torch.float16, device=device)
    tile_matmul(torch.zeros(1, TILE, TILE, dtype=torch.float16, device=device), indptr, columns, block)
    for n_features in (FEW_FEATURES, FEW_FEATURES + 1):
        gaussian_product(torch.zeros(1, TILE, n_features, device=device), 1.0, indptr, columns, block)
    torch.cuda.synchronize(device)
