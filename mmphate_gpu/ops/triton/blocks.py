"""Triton kernels of the passes around a product with tiles: a block into tiles of halves, and sums back to nodes."""

from __future__ import annotations

import triton
import triton.language as tl

# The most columns of a program.
PANEL = 128
# Places of a tile that a program fills: 32 x 128 float64 are 64 registers for each thread of four warps.
ROWS = 32
INTO_OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}
# A program takes a row of the panel: four columns a lane.
OUT_OPTIONS = {"num_warps": 1, "enable_fp_fusion": True}


@triton.jit
def tile_block_kernel(
    block,
    scale,
    order,
    out,
    n_points,
    n_sets,
    n_places,
    width,
    whole,
    ROWS: tl.constexpr,
    PANEL: tl.constexpr,
):
    """``n_places`` is the number of places in the tiles of a set, a multiple of ROWS."""
    first = tl.program_id(0).to(tl.int64) * ROWS
    set_number = first // n_places
    place = first % n_places + tl.arange(0, ROWS)
    column = tl.program_id(1) * PANEL + tl.arange(0, PANEL)
    point = tl.load(order + set_number * n_points + place, mask=place < n_points, other=0)
    factor = tl.load(scale + set_number * width + column, mask=column < width, other=0.0)
    inside = (place < n_points)[:, None] & (column < width)[None, :]
    values = tl.load(block + (point * n_sets + set_number)[:, None] * width + column[None, :], mask=inside, other=0.0)
    # torch rounds float64 to half by way of float32.
    halves = (values * factor[None, :]).to(tl.float32).to(tl.float16)
    to = (first + tl.arange(0, ROWS))[:, None] * whole + column[None, :]
    tl.store(out + to, halves, mask=(column < whole)[None, :])


@triton.jit
def tile_rows_kernel(
    sums,
    inverse,
    places,
    indptr,
    indices,
    values,
    block,
    out,
    n_points,
    n_sets,
    n_places,
    width,
    whole,
    PANEL: tl.constexpr,
):
    """Programs take nodes in order, so that those of a slice, which share entries, run at about the same time."""
    node = tl.program_id(0).to(tl.int64)
    point, set_number = node // n_sets, node % n_sets
    column = tl.program_id(1) * PANEL + tl.arange(0, PANEL)
    inside = column < width
    total = tl.zeros((PANEL,), dtype=block.dtype.element_ty)
    for entry in range(tl.load(indptr + node), tl.load(indptr + node + 1)):
        other = point * n_sets + tl.load(indices + entry)
        value = tl.load(values + entry).to(total.dtype)
        total += value * tl.load(block + other * width + column, mask=inside, other=0.0)
    row = set_number * n_places + tl.load(places + set_number * n_points + point)
    of_tiles = tl.load(sums + row * whole + column, mask=inside, other=0.0).to(total.dtype)
    factor = tl.load(inverse + set_number * width + column, mask=inside, other=0.0)
    tl.store(out + node * width + column, of_tiles * factor + total, mask=inside)


def panel_of(width: int) -> int:
    """Columns of a program, for blocks of ``width`` columns."""
    return min(PANEL, triton.next_power_of_2(width))
