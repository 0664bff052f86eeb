"""The passes around a product with tiles: one puts the block into tiles, one brings the sums back to the nodes.

Nodes are numbered slice by slice, tiles unit by unit: both passes turn one order into the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from .csr import Csr
from .csr_matmul import matmul
from .launch.pair_stack import blocks_of
from .launch.twins import triton_twin, twins
from .point_tiles import TILE, in_tiles, n_tiles
from .tile_layout import TileLayout

# Columns of a block of tiles are a multiple of this: 32 bytes, and the least that a tensor core multiplies.
COLUMNS = 16


def product_by_tiles(
    layout: TileLayout,
    block: torch.Tensor,  # (n B, C) float32 or float64: point i of set b is row i B + b
    intraslice: Csr,  # (n B rows, B columns)
    multiply: Callable[[torch.Tensor], torch.Tensor],  # (B T, TILE, W) half -> float32
) -> torch.Tensor:  # (n B, C)
    """The tiles times ``block``, by ``multiply``, plus ``intraslice`` times ``block``, in the dtype of the block."""
    halves, inverse = scaled_tiles(layout, block)
    return tile_rows(multiply(halves), inverse, layout.order, *intraslice[:3], block)


def scaled_tiles(
    layout: TileLayout, block: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:  # (n B, C) -> (B T, TILE, W) half, (B, C)
    """``block`` in half precision and in tiles, and the factors that undo its scale.

    The columns of every set are scaled by the power of two that brings the largest entry to 2^14 .. 2^15, so that none
    overflows and entries down to 2^-28 of it keep the eleven bits of half precision.
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
) -> torch.Tensor:  # (B T, TILE, W) half
    """Every set of ``block`` times ``scale`` in half precision, in the order of its tiles; gaps are 0.

    Values are rounded by way of float32, as torch does. W is C rounded up to a multiple of COLUMNS. One pass reads the
    block and writes a quarter of the bytes of a float64 block. Deterministic; the twins have the same bits.
    """
    n_sets, n = order.shape
    by_set = block.view(n, n_sets, -1).transpose(0, 1)
    halves = in_tiles((by_set * scale[:, None]).half(), order, 0).flatten(0, 1)
    return torch.nn.functional.pad(halves, (0, -block.shape[1] % COLUMNS))


@twins(
    "(Tensor sums, Tensor inverse, Tensor order, Tensor indptr, Tensor indices, Tensor values, Tensor block) -> Tensor"
)
def tile_rows(
    sums: torch.Tensor,  # (B T, TILE, W) float32
    inverse: torch.Tensor,  # (B, C), of the dtype of the block
    order: torch.Tensor,  # (B, n) int64
    indptr: torch.Tensor,  # (n B + 1,)
    indices: torch.Tensor,  # (nnz,) below B: sets, at the point of the row
    values: torch.Tensor,  # (nnz,) float32 or float64
    block: torch.Tensor,  # (n B, C) float32 or float64
) -> torch.Tensor:  # (n B, C)
    """Rows of tiles back in the order of nodes and times ``inverse``, and the product of the entries with ``block``.

    One pass reads the sums and the block and writes the result. Deterministic.
    """
    n_sets, n = order.shape
    by_set = sums.view(n_sets, -1, sums.shape[2])[:, :n, : block.shape[1]]
    by_set = torch.empty_like(by_set).scatter_(1, order[..., None].expand_as(by_set), by_set)
    product = by_set.to(block.dtype).mul_(inverse[:, None]).transpose(0, 1).reshape(block.shape)
    return product.add_(matmul(in_node_order(Csr(indptr, indices, values, (n * n_sets, n_sets))), block))


def in_node_order(intraslice: Csr) -> Csr:  # (n B rows, B columns) -> (n B rows, n B columns)
    """Replace a column that names a set by the node of that set at the point of the row."""
    n_nodes, n_sets = intraslice.shape
    first = torch.arange(0, n_nodes, n_sets, device=intraslice.indptr.device)
    counts = (intraslice.indptr[1:] - intraslice.indptr[:-1]).long()
    # Pass `output_size`; otherwise `repeat_interleave` reads it from the GPU and waits in every product.
    shift = torch.repeat_interleave(first.repeat_interleave(n_sets), counts, output_size=intraslice.nnz)
    return intraslice._replace(
        indices=(intraslice.indices + shift).to(intraslice.indices.dtype), shape=(n_nodes, n_nodes)
    )


@triton_twin(
    tile_block,
    rehearse=lambda device: [(nodes, nodes, order) for nodes, order in _rehearsals(device)],
)
def tile_block_triton(block: torch.Tensor, scale: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
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
def tile_rows_triton(
    sums: torch.Tensor,
    inverse: torch.Tensor,
    order: torch.Tensor,
    indptr: torch.Tensor,
    indices: torch.Tensor,
    values: torch.Tensor,
    block: torch.Tensor,
) -> torch.Tensor:
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
