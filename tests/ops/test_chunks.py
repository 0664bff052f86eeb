"""Chunks cover every row once."""

from __future__ import annotations

import pytest

from mmphate_gpu.ops.chunks import pair_chunks, row_chunks


@pytest.mark.parametrize(
    ("n_rows", "n_columns", "elements"), [(10, 3, 7), (10, 30, 7), (1, 1, 1), (7, 0, 3), (0, 5, 9)]
)
def test_row_chunks_cover_every_row_once(n_rows, n_columns, elements):
    chunks = list(row_chunks(n_rows, n_columns, elements))
    assert [row for chunk in chunks for row in range(chunk.start, chunk.stop)] == list(range(n_rows))
    assert all(chunk.stop - chunk.start == 1 or (chunk.stop - chunk.start) * n_columns <= elements for chunk in chunks)


@pytest.mark.parametrize(
    ("n_sets", "n_points", "elements"), [(5, 3, 20), (5, 3, 8), (5, 3, 1), (1, 7, 49), (3, 4, 10**6)]
)
def test_pair_chunks_cover_every_row_once_and_in_order(n_sets, n_points, elements):
    chunks = list(pair_chunks(n_sets, n_points, elements))
    rows = [
        (b, row)
        for chunk in chunks
        for b in range(chunk.sets.start, chunk.sets.stop)
        for row in range(chunk.rows.start, chunk.rows.stop)
    ]
    assert rows == [(b, row) for b in range(n_sets) for row in range(n_points)]
    for chunk in chunks:
        n_rows = (chunk.sets.stop - chunk.sets.start) * (chunk.rows.stop - chunk.rows.start)
        assert n_rows == 1 or n_rows * n_points <= elements
        assert chunk.sets.stop - chunk.sets.start == 1 or chunk.rows == slice(0, n_points)
