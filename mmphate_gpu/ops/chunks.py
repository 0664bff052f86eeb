"""Chunks of rows of bounded size, by which every quadratic stage bounds its memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

# Elements of a temporary (rows x columns). 2^21 float64 are 16 MiB: with so many the interpreter takes little of the
# time, and a few temporaries are small beside the results.
CHUNK_ELEMENTS = 1 << 21
# On CUDA a temporary has 128 MiB. A GPU reads 16 MiB in about 10 us, less than the interpreter needs to start the
# kernels, and more than 128 MiB would be much for a card of 8 GB.
CUDA_CHUNK_ELEMENTS = 1 << 24


def chunk_elements(device: torch.device) -> int:
    """Elements of a temporary on ``device``."""
    return CUDA_CHUNK_ELEMENTS if device.type == "cuda" else CHUNK_ELEMENTS


@dataclass(frozen=True)
class Chunk:
    """Some rows of one point set, or whole point sets, of a stack (B, n, p)."""

    sets: slice
    rows: slice


def row_chunks(n_rows: int, n_columns: int, elements: int = CHUNK_ELEMENTS) -> Iterator[slice]:
    """Slices of ``n_rows`` rows, each with at most ``elements`` entries of ``n_columns`` columns or of a single row."""
    step = max(1, elements // max(1, n_columns))
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))


def pair_chunks(
    n_sets: int, n_points: int, elements: int = CHUNK_ELEMENTS, *, rows: slice | None = None
) -> Iterator[Chunk]:
    """Chunks that cover ``rows`` (default: all) of every set in order, each of up to ``elements`` pairs or of a row."""
    rows = slice(0, n_points) if rows is None else rows
    n_rows = rows.stop - rows.start
    if n_rows * n_points <= elements:
        for sets in row_chunks(n_sets, n_rows * n_points, elements):
            yield Chunk(sets, rows)
        return
    for b in range(n_sets):
        for part in row_chunks(n_rows, n_points, elements):
            yield Chunk(slice(b, b + 1), slice(rows.start + part.start, rows.start + part.stop))
