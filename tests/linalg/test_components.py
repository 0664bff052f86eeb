"""Connected components by hand and of random blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmphate_gpu.linalg.components import components, diagonal_blocks


def of_edges(n: int, *edges: tuple[int, int]) -> torch.Tensor:
    matrix = torch.zeros(n, n, dtype=torch.float64)
    for i, j in edges:
        matrix[i, j] = 1
    return matrix


def test_components_by_hand(device):
    """The components are 0-3-5, by edges of a single direction, then 1-4, and 2 and 6 alone."""
    matrix = of_edges(7, (3, 0), (3, 5), (4, 1), (2, 2)).to(device)
    groups = {group.shape[1]: group.tolist() for group in components(matrix)}
    assert groups == {1: [[2], [6]], 2: [[1, 4]], 3: [[0, 3, 5]]}


@pytest.mark.parametrize("n", [1, 2, 50])
def test_components_of_one_piece(n, device):
    for matrix in (torch.ones(n, n), of_edges(n, *((i, i + 1) for i in range(n - 1)))):
        (members,) = components(matrix.to(device))
        assert members.tolist() == [list(range(n))]


def test_components_of_a_one_way_star():
    """Two steps along the rows do not lead from the first to all: the quick check must not decide here."""
    (members,) = components(of_edges(5, (1, 0), (2, 0), (3, 0), (4, 0)))
    assert members.tolist() == [[0, 1, 2, 3, 4]]


def test_components_without_entries():
    (members,) = components(torch.zeros(4, 4))
    assert members.tolist() == [[0], [1], [2], [3]]


def test_components_of_random_blocks_and_their_blocks(device):
    """The components of shuffled blocks are these blocks, and the diagonal blocks together are the matrix."""
    rng = np.random.default_rng(0)
    sizes = [3, 5, 5, 1, 8, 3, 1]
    order = torch.from_numpy(rng.permutation(sum(sizes)))
    matrix = torch.block_diag(*(torch.from_numpy(rng.random((size, size))) for size in sizes))[order][:, order]
    on_device = matrix.to(device)
    groups = components(on_device)
    assert sorted((len(group), group.shape[1]) for group in groups) == [(1, 8), (2, 1), (2, 3), (2, 5)]
    assert sorted(torch.cat([group.flatten() for group in groups]).tolist()) == list(range(sum(sizes)))
    again = torch.zeros_like(on_device)
    for members in groups:
        assert bool((members.diff(dim=1) > 0).all())
        again[members[:, :, None], members[:, None, :]] = diagonal_blocks(on_device, members)
    assert torch.equal(again, on_device)


def test_diagonal_block_of_one_piece_is_the_matrix():
    matrix = torch.ones(4, 4)
    assert diagonal_blocks(matrix, components(matrix)[0]).data_ptr() == matrix.data_ptr()
