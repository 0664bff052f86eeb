"""Gaussian affinities times a thin dense block, tile by tile, none of them stored."""

from __future__ import annotations

import math

import torch

from .distances import distances_by_difference
from .launch.twins import triton_twin, twins
from .point_tiles import TILE
from .tile_layout import row_of_tile, sum_of_tiles

# Above this many features distances by differences cost more than those by products, on the tensor cores.
FEW_FEATURES = 16
# Features at a time in these, the least a tensor core takes.
FEATURES = 16
# Largest distance r of a tile's points from its centre for these. Split coordinates leave 2^-21 |x| |y| in a distance,
# and that share of it in an entry. Where this is a, |y| <= r + sqrt(-log2 a): the error is at most 2^-21 r (r + 0.52),
# here 2e-5, a twelfth of the rounding to half.
WIDEST = 6.2


def scaled_points(points: torch.Tensor, bandwidth: torch.Tensor) -> torch.Tensor:  # (B, n, p) float64 -> float32
    """Points z, centred by sets, whose affinity exp(-(|x_i - x_j| / bandwidth)^2) is 2^-|z_i - z_j|^2.

    Rounded to float32 after centring, which puts an entry off by at most |z| 2^-23.
    """
    return ((points - points.mean(1, keepdim=True)) * (math.sqrt(math.log2(math.e)) / bandwidth)).float()


def points_by_feature(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Tiles of points (R, TILE, p) as `gaussian_product` takes them: feature by feature, and the tiles' centres.

    One tile that is too wide for products decides for all: a branch in the kernel would hold the registers of both
    ways.
    """
    centers, n_features = points.mean(1), points.shape[2]
    if n_features <= FEW_FEATURES or float((points - centers[:, None]).norm(dim=2).max()) > WIDEST:
        return points.mT.contiguous(), None
    points, centers = (torch.nn.functional.pad(part, (0, -n_features % FEATURES)) for part in (points, centers))
    return points.mT.contiguous(), centers


def scaled_limit(reach: float, bandwidth: float) -> float:
    """The squared distance of `scaled_points` that belongs to the distance ``reach``."""
    return math.log2(math.e) * (reach / bandwidth) ** 2


@twins("(Tensor points, Tensor? centers, float limit, Tensor indptr, Tensor columns, Tensor block) -> Tensor")
def gaussian_product(
    points: torch.Tensor,  # (R, p, TILE) float32
    centers: torch.Tensor | None,  # (R, p) float32
    limit: float,
    indptr: torch.Tensor,  # (R + 1,) int64
    columns: torch.Tensor,  # (k,) int32
    block: torch.Tensor,  # (R, TILE, C) half, 0 where there is no point
) -> torch.Tensor:  # (R, TILE, C) float32
    """As `tile_matmul`, with tiles made on the fly: 2^-d for the squared distances d up to ``limit``, else 0.

    A point is no neighbour of its own. Distances in float32 by differences, or, on CUDA, by products of what is left of
    the points without ``centers``, if these are given; entries rounded to half, products of halves summed in float32,
    nothing normalised. O(k TILE^2 (p + C)) time; a chunk of tiles of memory, and on CUDA none. Deterministic.
    """

    def entries(part: slice) -> torch.Tensor:
        row, column = row_of_tile(indptr, part), columns[part].long()
        squared = distances_by_difference(points[row].mT, points[column].mT).square_()
        near = squared <= limit
        near.diagonal(dim1=1, dim2=2).masked_fill_((row == column)[:, None], False)
        return squared.neg_().exp2_().masked_fill_(~near, 0).half().float()

    return sum_of_tiles(entries, indptr, columns, block)


@triton_twin(
    gaussian_product,
    rehearse=lambda device: [_rehearsal(device, FEW_FEATURES, False), _rehearsal(device, FEATURES, True)],
)
def gaussian_product_triton(
    points: torch.Tensor,
    centers: torch.Tensor | None,
    limit: float,
    indptr: torch.Tensor,
    columns: torch.Tensor,
    block: torch.Tensor,
) -> torch.Tensor:
    from .triton.products import OPTIONS, gaussian_product_kernel, panels

    block, (padded, out), panel, grid = panels(block)
    # Without centers the kernel is compiled so that it reads none; any tensor will do in their place.
    tensors = (part.contiguous() for part in (points, points if centers is None else centers))
    indptr, columns = indptr.contiguous(), columns.contiguous()
    sizes = {"P": points.shape[1], "SPLIT": centers is not None, "TILE": TILE, "PANEL": panel, "FEATURES": FEATURES}
    with torch.cuda.device_of(block):
        gaussian_product_kernel[grid](
            *tensors, limit, indptr, columns, block, padded, block.shape[2], **sizes, **OPTIONS
        )
    return out


def _rehearsal(device: torch.device, n_features: int, split: bool) -> tuple[torch.Tensor | float | None, ...]:
    from .triton.products import WIDEST_PANEL

    points = torch.zeros(1, n_features, TILE, dtype=torch.float32, device=device)
    block = torch.zeros(1, TILE, WIDEST_PANEL, dtype=torch.float16, device=device)
    columns = torch.zeros(1, dtype=torch.int32, device=device)
    return points, points[..., 0] if split else None, 1.0, torch.arange(2, device=device), columns, block
