"""Products of Gaussian affinities with a thin dense block, tile by tile, without storing an affinity."""

from __future__ import annotations

import math

import torch

from .distances import distances_by_difference
from .launch.twins import triton_twin, twins
from .point_tiles import TILE
from .tile_layout import row_of_tile, sum_of_tiles

# With more features than this, distances by differences cost more than distances by products on the tensor cores.
FEW_FEATURES = 16
# Features of a product, the least that a tensor core takes.
FEATURES = 16
# The largest distance r of a point from the center of its tile for distances by products. Split coordinates leave an
# error of 2^-21 |x| |y| in a squared distance, and the same relative error in an entry. For an entry a, |y| is at most
# r + sqrt(-log2 a). So the error of the entry is at most 2^-21 r (r + 0.52): 2e-5 here, a twelfth of the rounding to
# half precision.
WIDEST = 6.2


def scaled_points(points: torch.Tensor, bandwidth: torch.Tensor) -> torch.Tensor:  # (B, n, p) float64 -> float32
    """Points z, centered set by set, with 2^-|z_i - z_j|^2 = exp(-(|x_i - x_j| / bandwidth)^2).

    They are rounded to float32 after centering, which changes an entry by at most |z| 2^-23.
    """
    return ((points - points.mean(1, keepdim=True)) * (math.sqrt(math.log2(math.e)) / bandwidth)).float()


def points_by_feature(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Tiles of points (r, TILE, p) as `gaussian_product` takes them: feature by feature, and the centers of the tiles.

    The centers are None if any tile is too wide for distances by products: a kernel that could compute distances either
    way would need the registers of both.
    """
    centers, n_features = points.mean(1), points.shape[2]
    if n_features <= FEW_FEATURES or float((points - centers[:, None]).norm(dim=2).max()) > WIDEST:
        return points.mT.contiguous(), None
    points, centers = (torch.nn.functional.pad(part, (0, -n_features % FEATURES)) for part in (points, centers))
    return points.mT.contiguous(), centers


def scaled_limit(reach: float, bandwidth: float) -> float:
    """The squared distance between `scaled_points` whose points are ``reach`` apart."""
    return math.log2(math.e) * (reach / bandwidth) ** 2


@twins("(Tensor points, Tensor? centers, float limit, Tensor indptr, Tensor columns, Tensor block) -> Tensor")
def gaussian_product(
    points: torch.Tensor,  # (r, p, TILE) float32
    centers: torch.Tensor | None,  # (r, p) float32
    limit: float,
    indptr: torch.Tensor,  # (r + 1,) int64
    columns: torch.Tensor,  # (k,) int32
    block: torch.Tensor,  # (r, TILE, C) half, 0 in places without a point
) -> torch.Tensor:  # (r, TILE, C) float32
    """`tile_matmul` with tiles made on the fly: 2^-d for squared distances d up to ``limit``, else 0.

    A point and itself have no entry. Distances are in float32 and by differences; on CUDA they are by products of the
    points less ``centers``, unless ``centers`` is None. Entries are rounded to half precision and their products summed
    in float32. O(k TILE^2 (p + C)) time; a chunk of tiles of memory, and on CUDA none. Deterministic.
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
def gaussian_product_triton(points, centers, limit, indptr, columns, block):
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
