"""What a trace holds beside its values: metrics of the epochs, and layers of the units."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest
import torch

from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.trace import as_trace, load_trace, save_trace
from mmphate_gpu.trace.dims import AXES

from .traces import SHAPE, same, streams, values

LOSS = [0.5, float("nan"), 0.25, 0.125]
LAYERS = ["encoder", "encoder", "décodeur", "décodeur", "décodeur"]


def rich(three=False):
    shape = (4, 5, 7) if three else SHAPE
    metrics = {"loss": LOSS, "valAccuracy": [1, 2, 3, 4]}
    return as_trace(values(shape), metrics=metrics, unit_layer=LAYERS, label=np.arange(7))


def test_metrics_are_float64_by_name_and_layers_text():
    trace = rich()
    assert list(trace.metrics) == ["loss", "valAccuracy"] and trace.metrics["valAccuracy"].dtype == np.float64
    assert np.array_equal(trace.metrics["loss"], LOSS, equal_nan=True) and trace.unit_layer.tolist() == LAYERS
    assert repr(trace).endswith("float64 on cpu, metrics loss, valAccuracy)")
    plain = as_trace(values())
    assert plain.metrics == {} and plain.unit_layer is None


def test_a_caller_who_writes_into_a_metric_changes_no_trace():
    loss = np.array(LOSS)
    trace = as_trace(values(), metrics={"loss": loss})
    loss[0] = 9
    assert trace.metrics["loss"][0] == 0.5


def test_metrics_and_layers_follow_every_view_of_a_trace():
    trace = rich()
    part = trace.subsample(epochs=[3, 0], units=slice(1, 3))
    assert part.metrics["loss"].tolist() == [0.125, 0.5] and part.unit_layer.tolist() == ["encoder", "décodeur"]
    for copy in (
        trace.to(torch.device("meta")),
        pickle.loads(pickle.dumps(trace)),
        as_trace(trace, epoch=[4, 5, 6, 7]),
    ):
        assert copy.unit_layer.tolist() == LAYERS and np.array_equal(copy.metrics["loss"], LOSS, equal_nan=True)
    assert as_trace(trace, metrics={"accuracy": [1, 2, 3, 4]}).metrics["accuracy"].tolist() == [1, 2, 3, 4]


@streams
@pytest.mark.parametrize("three", [False, True])
@pytest.mark.parametrize("ending", [".npz", ".zarr", ".h5"])
def test_files_hold_metrics_and_layers(tmp_path, ending, three, stream):
    path = tmp_path / f"run{ending}"
    save_trace(path, rich(three))
    same(load_trace(path, stream=stream), rich(three))


def test_a_npy_holds_neither(tmp_path):
    for fields in ({"metrics": {"loss": LOSS}}, {"unit_layer": LAYERS}):
        with pytest.raises(InputError, match=r"\.npy holds no mask, label, layers, metrics or coordinates; accepted"):
            save_trace(tmp_path / "run.npy", as_trace(values(), **fields))


def test_xarray_reads_what_is_saved(tmp_path):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("zarr")
    save_trace(tmp_path / "run.zarr", rich())
    dataset = xarray.open_zarr(tmp_path / "run.zarr", consolidated=False)
    assert dataset["data"].coords["metrics_loss"].dims == ("epoch",)
    same(as_trace(dataset), rich())


def test_xarray_objects_bring_both():
    xarray = pytest.importorskip("xarray")
    coords = {
        "metrics_loss": ("epoch", LOSS),
        "unit_layer": ("unit", LAYERS),
        "metrics_valAccuracy": ("epoch", range(1, 5)),
    }
    array = xarray.DataArray(values(), dims=AXES, coords=coords).transpose(*AXES[::-1])
    trace = as_trace(array, label=np.arange(7))
    same(trace, rich())
    one_timestep = as_trace(array.isel(timestep=0))
    assert np.array_equal(one_timestep.metrics["loss"], LOSS, equal_nan=True)
    one_epoch = as_trace(array.isel(epoch=0))  # its slices are time steps, which the metrics do not describe
    assert one_epoch.metrics == {} and one_epoch.unit_layer.tolist() == LAYERS


@pytest.mark.parametrize(
    ("fields", "error", "sentence"),
    [
        ({"metrics": [1, 2]}, InputTypeError, "metrics is a list; accepted: a mapping from names to numbers"),
        ({"metrics": {"1st": LOSS}}, InputError, "metrics has the name '1st'; accepted: names like those of variables"),
        (
            {"metrics": {"loss": [1, 2]}},
            InputError,
            r"metrics['loss'] has shape (2,); accepted: (4,), one value per epoch",
        ),
        (
            {"metrics": {"loss": list("abcd")}},
            InputTypeError,
            "metrics['loss'] has dtype <U1; accepted: real numbers, NaN",
        ),
        (
            {"metrics": {"loss": np.ones(4) * 1j}},
            InputTypeError,
            "metrics['loss'] has dtype complex128; accepted: real",
        ),
        ({"unit_layer": ["a"]}, InputError, "unit_layer has shape (1,); accepted: (5,), one value per unit"),
        (
            {"unit_layer": np.arange(5)},
            InputTypeError,
            "unit_layer has dtype int64; accepted: text, the name of the layer",
        ),
    ],
)
def test_what_is_refused(fields, error, sentence):
    with pytest.raises(error, match=re.escape(sentence)):
        as_trace(values(), **fields)


def test_a_file_with_a_metric_of_another_length_is_refused(tmp_path):
    np.savez(tmp_path / "run.npz", data=values(), metrics_loss=np.zeros(3), metrics_1=np.zeros(9))
    with pytest.raises(
        InputError, match=r"run.npz: metrics_loss has shape \(3,\); accepted: \(4,\), one value per epoch"
    ):
        load_trace(tmp_path / "run.npz")


def test_a_metric_along_another_axis_is_refused(tmp_path):
    """Also where the lengths of the axes are equal."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "run.h5", "w") as file:
        file["data"], file["metrics_loss"] = values((4, 4, 4, 4)), np.zeros(4)
        file["metrics_loss"].dims[0].label = "unit"
    with pytest.raises(InputError, match=r"metrics_loss has dims \('unit',\); accepted: one value per epoch"):
        load_trace(tmp_path / "run.h5")
