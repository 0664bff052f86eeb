"""The node order: ``node = (epoch * n_timesteps + timestep) * n_units + unit``."""

from __future__ import annotations

import dataclasses
from itertools import product

import numpy as np
import pytest
import torch

from mmphate_gpu.errors import InputError
from mmphate_gpu.slices import SliceLayout, unit_major, whole_slices

SHAPES = [(3, 4, 5), (1, 7, 2), (6, 1, 1), (1, 1, 1)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sizes_are_those_of_the_shape(shape):
    layout = SliceLayout.of_shape(*shape)
    assert layout.shape == (layout.n_epochs, layout.n_timesteps, layout.n_units) == shape
    assert layout.n_slices == shape[0] * shape[1] and layout.n_nodes == shape[0] * shape[1] * shape[2]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_nodes_count_up_in_order(shape):
    layout = SliceLayout.of_shape(*shape)
    nodes = [layout.node(*triple) for triple in product(*map(range, shape))]
    assert nodes == list(range(layout.n_nodes))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_indices_undo_node(shape):
    layout = SliceLayout.of_shape(*shape)
    triples = list(zip(*layout.indices(), strict=True))
    assert [layout.node(*map(int, triple)) for triple in triples] == list(range(layout.n_nodes))


def test_indices_of_some_nodes_are_theirs():
    layout = SliceLayout.of_shape(3, 4, 5)
    epoch, timestep, unit = layout.indices([0, 23, 59])
    assert (epoch.tolist(), timestep.tolist(), unit.tolist()) == ([0, 1, 2], [0, 0, 3], [0, 3, 4])


def test_order_is_that_of_a_flattened_tensor():
    """Flattened arrays (S, M) and (E, T, M) have the order of the nodes."""
    layout = SliceLayout.of_shape(3, 4, 5)
    tensor = np.arange(60).reshape(3, 4, 5)
    assert all(tensor[layout.indices([node])] == node for node in range(60))


def test_labels_are_coordinates():
    layout = SliceLayout(np.array([0.5, 10.0]), np.array(["a", "b", "c"]), np.array([7, 3]))
    assert layout.labels("epoch").tolist() == [0.5] * 6 + [10.0] * 6
    assert layout.labels("timestep").tolist() == ["a", "a", "b", "b", "c", "c"] * 2
    assert layout.labels("unit").tolist() == [7, 3] * 6


def test_labels_of_an_unknown_axis_are_refused():
    with pytest.raises(InputError, match="axis='slice' is unknown; accepted: 'epoch', 'timestep', 'unit'"):
        SliceLayout.of_shape(2, 2, 2).labels("slice")


@pytest.mark.parametrize(
    ("triple", "message"),
    [
        ((3, 0, 0), "epoch index 3 is out of range; accepted: 0 to 2"),
        ((0, 4, 0), "timestep index 4 is out of range; accepted: 0 to 3"),
        ((0, 0, 5), "unit index 5 is out of range; accepted: 0 to 4"),
        ((-1, 0, 0), "epoch index -1 is out of range"),
    ],
)
def test_indices_out_of_range_are_refused(triple, message):
    with pytest.raises(InputError, match=message):
        SliceLayout.of_shape(3, 4, 5).node(*triple)


def test_a_layout_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SliceLayout.of_shape(1, 2, 3).unit = np.arange(4)


def test_unit_major_is_a_contiguous_stack_by_unit():
    points = torch.arange(24.0).view(4, 3, 2)  # (S, M, D)
    stack = unit_major(points)
    assert stack.shape == (3, 4, 2) and stack.is_contiguous()
    assert all(torch.equal(stack[m, s], points[s, m]) for m in range(3) for s in range(4))


@pytest.mark.parametrize("shape", [(9, 9, 2), (127, 128, 30), (1, 50, 3), (50, 1, 3), (2, 300, 7), (300, 2, 7)])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.1, 0.01])
def test_whole_slices_fit_and_keep_both_ends(shape, share):
    layout = SliceLayout.of_shape(*shape)
    most = max(int(share * layout.n_nodes), shape[2])
    epochs, timesteps = whole_slices(layout, most)
    assert len(epochs) * len(timesteps) * shape[2] <= most
    for axis, index in zip(shape[:2], (epochs, timesteps), strict=True):
        assert index[-1] == axis - 1 and (len(index) == 1 or index[0] == 0)
        assert len(np.unique(np.diff(index))) <= 2  # evenly spaced, up to rounding
    if share == 1:
        assert (len(epochs), len(timesteps)) == shape[:2]
    elif most >= 8 * shape[2]:
        assert len(epochs) * len(timesteps) * shape[2] > 0.5 * most


def test_a_slice_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match="max_nodes=4 is less than a slice has; accepted: at least 5"):
        whole_slices(SliceLayout.of_shape(2, 2, 5), 4)
