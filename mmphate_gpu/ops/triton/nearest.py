"""The Triton kernel of the nearest centers: one program takes a block of points and walks the centers."""

from __future__ import annotations

import triton
import triton.language as tl

# Fusing is explicit, since Triton warns about the default.
OPTIONS = {"num_warps": 8, "enable_fp_fusion": True}
# Points and centers of a block of products, and features at a time.
BLOCK = {"POINTS": 128, "CENTERS": 128, "FEATURES": 32}


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
    set_number = tl.program_id(1).to(tl.int64)
    point = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    center, feature = tl.arange(0, CENTERS), tl.arange(0, FEATURES)
    x_at = points + set_number * n * D + point[:, None].to(tl.int64) * D
    best = tl.full((POINTS,), float("inf"), dtype=tl.float32)
    nearest = tl.zeros((POINTS,), dtype=tl.int32)
    for start in range(0, k, CENTERS):
        inside = start + center < k
        y_at = centers + set_number * k * D + (start + center)[None, :].to(tl.int64) * D
        inner = tl.zeros((POINTS, CENTERS), dtype=tl.float32)
        for first in range(0, D, FEATURES):
            column = first + feature
            x = tl.load(x_at + column[None, :], mask=(point < n)[:, None] & (column < D)[None, :], other=0.0)
            y = tl.load(y_at + column[:, None], mask=inside[None, :] & (column < D)[:, None], other=0.0)
            # Three products of split numbers: the accuracy of float32 at the speed of the tensor cores.
            inner = tl.dot(x, y, inner, input_precision="tf32x3")
        norm = tl.load(norms + set_number * k + start + center, mask=inside, other=float("inf"))
        low, at = tl.min(norm[None, :] - 2 * inner, axis=1, return_indices=True, return_indices_tie_break_left=True)
        nearest = tl.where(low < best, start + at, nearest)
        best = tl.minimum(low, best)
    tl.store(labels + set_number * n + point, nearest.to(tl.int64), mask=point < n)
    tl.store(least + set_number * n + point, best, mask=point < n)
