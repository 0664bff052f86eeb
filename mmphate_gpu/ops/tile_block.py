"""The passes around a product with tiles: one writes the block in tiles, the other the sums in the order of nodes.

Nodes are numbered slice by slice, and tiles unit by unit. Below, a set has t tiles, so a stack has B t of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from .csr import Csr
from .csr_matmul import matmul
from .launch.kernel import blocks_of
from .launch.twins import triton_twin, twins
from .point_tiles import COLUMNS, TILE, in_tiles, n_tiles
from .tile_layout import TileLayout


def product_by_tiles(
    layout: TileLayout,
    block: torch.Tensor,  # (n B, C) float32 or float64: point i of set b is row i B + b
    intraslice: Csr,  # (n B rows, B columns)
    multiply: Callable[[torch.Tensor], torch.Tensor],  # (B t, TILE, w) half -> float32
) -> torch.Tensor:  # (n B, C)
    """The tiles times ``block``, by ``multiply``, plus ``intraslice`` times ``block``, in the dtype of the block."""
    halves, inverse = scaled_tiles(layout, block)
    return tile_rows(multiply(halves), inverse, layout.order, *intraslice[:3], block)


def scaled_tiles(
    layout: TileLayout, block: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:  # (n B, C) -> (B t, TILE, w) half, (B, C)
    """``block`` in tiles and in half precision, scaled, and the factors that undo the scale.

    Each column of a set is scaled by the power of two that brings its largest entry to 2^14 .. 2^15. So none overflows,
    and entries down to 2^-28 of the largest keep the eleven bits of half precision.
    """
    n_sets, n = layout.order.shape
    largest = torch.linalg.vector_norm(block.view(n, n_sets, -1), torch.inf, dim=0)
    exponent = 15 - torch.frexp(largest.clamp_min_(torch.finfo(block.dtype).tiny * 2**16)).exponent
    scale, inverse = (torch.ldexp(torch.ones_like(largest), power) for power in (exponent, -exponent))
    return tile_block(block, scale, layout.order), inverse


@twins("(Tensor block, Tensor scale, Tensor order) -> Tensor")
def tile_block(
    block: torch.Tensor,  # (n B, C) float32 or float64
    scale: torch.Tensor,  # (B, C), of the same dtype
    order: torch.Tensor,  # (B, n) int64
) -> torch.Tensor:  # (B t, TILE, w) half
    """Every set of ``block`` times ``scale``, in half precision and in tiles; places without a point are 0.

    w is C rounded up to a multiple of COLUMNS. Values are rounded to float32 first, as torch does. One pass reads the
    block and writes a quarter of the bytes of a float64 block. Deterministic; the versions give the same bits.
    """
    n_sets, n = order.shape
    by_set = block.view(n, n_sets, -1).transpose(0, 1)
    halves = in_tiles((by_set * scale[:, None]).half(), order, 0).flatten(0, 1)
    return torch.nn.functional.pad(halves, (0, -block.shape[1] % COLUMNS))


@twins(
    "(Tensor sums, Tensor inverse, Tensor order, Tensor indptr, Tensor indices, Tensor values, Tensor block) -> Tensor"
)
def tile_rows(
    sums: torch.Tensor,  # (B t, TILE, w) float32
    inverse: torch.Tensor,  # (B, C), of the dtype of the block
    order: torch.Tensor,  # (B, n) int64
    indptr: torch.Tensor,  # (n B + 1,)
    indices: torch.Tensor,  # (nnz,) sets; the entry is that of the point of the row in this set
    values: torch.Tensor,  # (nnz,) float32 or float64
    block: torch.Tensor,  # (n B, C) float32 or float64
) -> torch.Tensor:  # (n B, C)
    """The rows of ``sums`` in the order of nodes, times ``inverse``, plus the product of the entries with ``block``.

    One pass reads the sums and the block and writes the result. Deterministic.
    """
    n_sets, n = order.shape
    by_set = sums.view(n_sets, -1, sums.shape[2])[:, :n, : block.shape[1]]
    by_set = torch.empty_like(by_set).scatter_(1, order[..., None].expand_as(by_set), by_set)
    product = by_set.to(block.dtype).mul_(inverse[:, None]).transpose(0, 1).reshape(block.shape)
    return product.add_(matmul(in_node_order(Csr(indptr, indices, values, (n * n_sets, n_sets))), block))


def in_node_order(intraslice: Csr) -> Csr:  # (n B rows, B columns) -> (n B rows, n B columns)
    """Replace columns that are sets by nodes: that of this set and the point of the row."""
    n_nodes, n_sets = intraslice.shape
    first = torch.arange(0, n_nodes, n_sets, device=intraslice.indptr.device)
    counts = (intraslice.indptr[1:] - intraslice.indptr[:-1]).long()
    # Pass `output_size`; otherwise `repeat_interleave` reads it from the GPU and synchronizes in every product.
    shift = torch.repeat_interleave(first.repeat_interleave(n_sets), counts, output_size=intraslice.nnz)
    return intraslice._replace(
        indices=(intraslice.indices + shift).to(intraslice.indices.dtype), shape=(n_nodes, n_nodes)
    )


@triton_twin(
    tile_block,
    rehearse=lambda device: [(nodes, nodes, order) for nodes, order in _rehearsals(device)],
)
def tile_block_triton(block, scale, order):
    from .triton.blocks import INTO_OPTIONS, ROWS, panel_of, tile_block_kernel

    block, scale, order = (part.contiguous() for part in (block, scale, order))
    (n_sets, n), width = order.shape, block.shape[1]
    whole, per_set = blocks_of(width, COLUMNS) * COLUMNS, n_tiles(n)
    out = torch.empty(n_sets * per_set, TILE, whole, dtype=torch.float16, device=block.device)
    panel = panel_of(whole)
    grid = n_sets * per_set * TILE // ROWS, blocks_of(whole, panel)
    sizes = (n, n_sets, per_set * TILE, width, whole)
    with torch.cuda.device_of(block):
        tile_block_kernel[grid](block, scale, order, out, *sizes, ROWS=ROWS, PANEL=panel, **INTO_OPTIONS)
    return out


@triton_twin(
    tile_rows,
    rehearse=lambda device: [
        (tile_block(nodes, nodes, order).float(), nodes, order, *_entry(device), nodes)
        for nodes, order in _rehearsals(device)
    ],
)
def tile_rows_triton(sums, inverse, order, indptr, indices, values, block):
    from .triton.blocks import OUT_OPTIONS, panel_of, tile_rows_kernel

    sums, inverse, indptr, indices, values, block = (
        part.contiguous() for part in (sums, inverse, indptr, indices, values, block)
    )
    (n_sets, n), width, whole = order.shape, block.shape[1], sums.shape[2]
    places = torch.empty_like(order, memory_format=torch.contiguous_format)
    places.scatter_(1, order, torch.arange(n, device=order.device).expand(n_sets, n))
    out = torch.empty_like(block)
    panel = panel_of(width)
    sizes = (n, n_sets, n_tiles(n) * TILE, width, whole)
    with torch.cuda.device_of(block):
        tile_rows_kernel[block.shape[0], blocks_of(width, panel)](
            sums, inverse, places, indptr, indices, values, block, out, *sizes, PANEL=panel, **OUT_OPTIONS
        )
    return out


def _rehearsals(device: torch.device) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """A node, for the blocks of the landmarks and for those of row sums, and the order of its set."""
    from .triton.blocks import PANEL

    order = torch.zeros(1, 1, dtype=torch.int64, device=device)
    for width, dtype in ((PANEL, torch.float32), (1, torch.float64)):
        yield torch.zeros(1, width, dtype=dtype, device=device), order


def _entry(device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The indptr, indices and values of a matrix with one entry."""
    indices = torch.zeros(1, dtype=torch.int32, device=device)
    return torch.arange(2, dtype=torch.int32, device=device), indices, indices.float()
