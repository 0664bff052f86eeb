"""Blocks of the affinity: every cell is the mean of the entries of K between its bins, whatever the form of K."""

from importlib import import_module

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

import mmphate_gpu as mp
from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.operators.sparse import SparseAffinity
from mmphate_gpu.ops.csr import Csr
from mmphate_gpu.plots import affinity_blocks
from mmphate_gpu.slices import SliceLayout

from .results import assert_legible, axes_of, tick_names

SHAPE = (5, 4, 3)  # epochs, time steps, units
TRACE = np.random.default_rng(0).normal(size=(*SHAPE, 6)).cumsum(0)
MODULE = import_module("mmphate_gpu.plots.affinity_blocks")  # the name in `plots` is the function
LAYOUT = SliceLayout.of_shape(*SHAPE)


def cells(figure, name):
    return np.ma.filled(axes_of(figure, name).images[0].get_array(), np.nan)


def drawn(values):
    """Zero is drawn below the least value, and so in white."""
    return np.where(values > 0, values, np.nan)


def shown(figure, name):
    image = axes_of(figure, name).images[0]
    values = cells(figure, name)
    return np.where(values < image.norm.vmin, np.nan, values)


def identity(n):
    offsets = torch.arange(n + 1, dtype=torch.int32)
    return SparseAffinity(Csr(offsets, offsets[:-1], torch.ones(n, dtype=torch.float64), (n, n)), interleave=1)


@pytest.fixture(scope="module")
def operator():
    return mp.multislice_affinity(TRACE, storage="sparse", interslice_knn=5, device="cpu")


def test_every_cell_is_a_mean_of_entries(operator):
    dense = operator.to_dense().numpy().reshape(20, 3, 20, 3)
    figure = affinity_blocks(operator, LAYOUT, epoch=2, timestep=1, unit=-1)
    np.testing.assert_allclose(shown(figure, "slices"), drawn(dense.mean((1, 3))), rtol=1e-13)
    np.testing.assert_allclose(shown(figure, "slice"), drawn(dense[9, :, 9, :]), rtol=1e-13)
    np.testing.assert_allclose(shown(figure, "unit"), drawn(dense[:, 2, :, 2]), rtol=1e-13)
    notes = [text.get_text() for text in figure.texts]
    assert {"Slice: epoch 2, time step 1", "Unit: 2"} <= set(notes)


def test_bins_are_means_over_all_of_their_pairs(operator, monkeypatch):
    monkeypatch.setattr(MODULE, "MOST_BINS", 5)
    dense = operator.to_dense().numpy().reshape(5, 12, 5, 12)
    figure = affinity_blocks(operator, LAYOUT, unit=1)
    np.testing.assert_allclose(shown(figure, "slices"), drawn(dense.mean((1, 3))), rtol=1e-13)
    of_unit = dense.reshape(5, 4, 3, 5, 4, 3)[:, :, 1, :, :, 1]
    np.testing.assert_allclose(shown(figure, "unit"), drawn(of_unit.mean((1, 3))), rtol=1e-13)


def test_units_are_binned(monkeypatch):
    """The last bin has a single unit, and ends beyond the axis."""
    monkeypatch.setattr(MODULE, "MOST_BINS", 3)
    trace = np.random.default_rng(1).normal(size=(3, 1, 5, 6)).cumsum(0)
    operator = mp.multislice_affinity(trace, device="cpu", interslice_knn=1)
    figure = affinity_blocks(operator, SliceLayout.of_shape(3, 1, 5))
    dense = operator.to_dense().numpy()[-5:, -5:]
    parts = [slice(0, 2), slice(2, 4), slice(4, 5)]
    expected = np.array([[dense[row, column].mean() for column in parts] for row in parts])
    np.testing.assert_allclose(shown(figure, "slice"), drawn(expected), rtol=1e-13)
    axes = axes_of(figure, "slice")
    assert list(axes.images[0].get_extent()) == [-0.5, 5.5, -0.5, 5.5] and axes.get_xlim() == (-0.5, 4.5)


@pytest.mark.parametrize("storage", ["tiles", "lazy"])
def test_all_forms_give_the_same_picture(operator, storage):
    other = mp.multislice_affinity(TRACE, storage=storage, interslice_knn=5, device="cpu")
    assert other.storage == storage
    first, second = (affinity_blocks(form, LAYOUT) for form in (operator, other))
    for name in ("slices", "slice", "unit"):
        np.testing.assert_array_equal(cells(first, name), cells(second, name))


@pytest.mark.parametrize("storage", ["sparse", "lazy"])
def test_an_estimator_has_its_layout_and_its_nodes(storage):
    mask = np.ones(TRACE.shape, bool)
    mask[1] = False  # an epoch without samples
    trace = mp.as_trace(TRACE, mask=mask, epoch=[f"day {i}" for i in range(5)])
    with pytest.warns(UserWarning, match="12 of 60 nodes"):
        op = mp.MMPHATE(n_landmark=None, interslice_knn=5, random_state=0, device="cpu", storage=storage).fit(trace)
    figure = affinity_blocks(op)
    dense = op.affinity_.to_dense().numpy().reshape(16, 3, 16, 3).mean((1, 3))
    kept = np.r_[0:4, 8:20]
    values = shown(figure, "slices")
    np.testing.assert_allclose(values[np.ix_(kept, kept)], drawn(dense), rtol=1e-13)
    assert np.isnan(values[4:8]).all() and axes_of(figure, "slices").patch.get_hatch() == "////"
    assert "no node" in [text.get_text() for text in figure.texts]
    assert tick_names(axes_of(figure, "slices"), "y") == [f"day {i}" for i in range(5)]
    assert_legible(figure)


def test_a_single_epoch_has_time_steps_on_its_axes():
    operator = mp.multislice_affinity(TRACE[:1], device="cpu", interslice_knn=2)
    axes = axes_of(affinity_blocks(operator, SliceLayout.of_shape(1, 4, 3)), "slices")
    assert axes.get_xlabel() == "Time step" and tick_names(axes, "x") == ["0", "1", "2", "3"]


def test_the_notes_name_the_slice_and_the_unit_as_the_axes_do():
    names = np.array([f"encoder.layers.{i}.attention.self" for i in (0, 400, 800)])
    texts = [text.get_text() for text in affinity_blocks(identity(27), SliceLayout(names, names, names)).texts]
    assert "Slice: epoch ….800.att…, time step ….800.att…" in texts and "Unit: ….0.atten…" in texts


@pytest.mark.parametrize(
    "n_outer, n_inner, size",
    [
        (16, 10, 1),  # as many slices as bins
        (17, 10, 2),  # half of the epochs would be cut by bins of three
        (127, 128, 128),  # an epoch
        (127, 1, 1),
        (3, 997, 19),  # a prime number of time steps
        (400, 30, 90),  # three epochs
        (161, 1, 2),
    ],
)
def test_bins_fit_into_epochs(n_outer, n_inner, size):
    assert MODULE._bin_size(n_outer, n_inner) == size
    assert -(-n_outer * n_inner // size) <= 160


@pytest.mark.parametrize("figsize", [None, (3.35, 4.8), (7.2, 4.2)])
@pytest.mark.parametrize("shape", [SHAPE, (170, 2, 2), (2, 1, 300), (1, 1, 2)])
def test_texts_do_not_touch(shape, figsize):
    n = int(np.prod(shape))
    operator = identity(n)
    assert_legible(affinity_blocks(operator, SliceLayout.of_shape(*shape), figsize=figsize))


def test_bad_arguments_are_refused(operator, tmp_path):
    with pytest.raises(InputTypeError, match="operator_or_estimator is a ndarray; accepted: an AffinityOperator or"):
        affinity_blocks(np.eye(3))
    with pytest.raises(InputTypeError, match="layout is a NoneType; accepted: the SliceLayout of the operator"):
        affinity_blocks(operator)
    with pytest.raises(InputError, match="layout has 8 nodes; accepted: 60, those of the operator"):
        affinity_blocks(operator, SliceLayout.of_shape(2, 2, 2))
    for name, size in zip(("epoch", "timestep", "unit"), SHAPE, strict=True):
        with pytest.raises(InputError, match=f"{name}={size} "):
            affinity_blocks(operator, LAYOUT, **{name: size})
    with pytest.raises(InputError, match="figsize=.* has no room for the blocks"):
        affinity_blocks(operator, LAYOUT, figsize=(2.5, 2.5))
    with pytest.raises(InputError, match="path"):
        affinity_blocks(operator, LAYOUT, path=tmp_path / "picture.gif")
    with pytest.raises(NotFittedError, match="not fitted"):
        affinity_blocks(mp.MMPHATE())
    op = mp.MMPHATE(n_landmark=None, interslice_knn=5, random_state=0, device="cpu").fit(TRACE)
    with pytest.raises(InputError, match="layout is passed with an estimator"):
        affinity_blocks(op, LAYOUT)


def test_a_file_is_written(operator, tmp_path):
    affinity_blocks(operator, LAYOUT, path=tmp_path / "blocks.png")
    assert (tmp_path / "blocks.png").read_bytes().startswith(b"\x89PNG")
