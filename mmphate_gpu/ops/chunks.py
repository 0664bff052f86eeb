"""Row chunks of bounded size: how every quadratic stage stays within its memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

# Elements of one temporary (rows x columns). 2^21 float64 are 16 MiB: large enough to hide the interpreter, small
# enough that a handful of temporaries is noise beside the results.
CHUNK_ELEMENTS = 1 << 21
# On CUDA a temporary has 128 MiB. By its bandwidth a GPU takes some 10 us for 16 MiB, less than the interpreter needs
# to start the kernels. More than 128 MiB would be much for a card of 8 GB.
CUDA_CHUNK_ELEMENTS = 1 << 24


def chunk_elements(device: torch.device) -> int:
    """Elements of one temporary on ``device``."""
    return CUDA_CHUNK_ELEMENTS if device.type == "cuda" else CHUNK_ELEMENTS


@dataclass(frozen=True)
class Chunk:
    """Rows ``rows`` of the point sets ``sets`` in a (B, n, p) stack; one of them is always a whole range."""

    sets: slice
    rows: slice


def row_chunks(n_rows: int, n_columns: int, elements: int = CHUNK_ELEMENTS) -> Iterator[slice]:
    """Slices over ``n_rows`` with at most about ``elements`` entries of an (n_rows, n_columns) array each."""
    step = max(1, elements // max(1, n_columns))
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))


def pair_chunks(
    n_sets: int, n_points: int, elements: int = CHUNK_ELEMENTS, *, rows: slice | None = None
) -> Iterator[Chunk]:
    """Chunks that cover the ``rows`` (all) of (B, n, n) in order: many whole sets at once, or some rows of one set."""
    rows = slice(0, n_points) if rows is None else rows
    n_rows = rows.stop - rows.start
    if n_rows * n_points <= elements:
        for sets in row_chunks(n_sets, n_rows * n_points, elements):
            yield Chunk(sets, rows)
        return
    for one in range(n_sets):
        for part in row_chunks(n_rows, n_points, elements):
            yield Chunk(slice(one, one + 1), slice(rows.start + part.start, rows.start + part.stop))
