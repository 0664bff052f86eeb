"""Masks, autograd graphs and arrays of other libraries: what is hidden or missing never becomes a number."""

from __future__ import annotations

import collections
import warnings

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.masked import masked_tensor

import mmphate_gpu as mp
from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.operators import SparseAffinity, as_linear_operator
from mmphate_gpu.ops.csr import of_dense_rows
from mmphate_gpu.runtime.arrays import real_tensor, to_numpy
from mmphate_gpu.runtime.read_array import read_array

VALUES = np.random.default_rng(0).normal(size=(5, 3, 4))  # (slice, unit, sample)
HIDDEN = np.zeros(VALUES.shape, bool)
HIDDEN[1, 2, 3] = HIDDEN[4, 0, 0] = True
MASKED = np.ma.masked_array(np.where(HIDDEN, 1e20, VALUES), HIDDEN)


def quietly_masked(values: np.ndarray, hidden: np.ndarray) -> torch.Tensor:
    with warnings.catch_warnings():  # torch says that the class may change
        warnings.simplefilter("ignore")
        return masked_tensor(torch.from_numpy(np.asarray(values)), torch.from_numpy(~hidden))


# ---------------------------------------------------------------- masks of data

ITEMS = {
    "a tuple": lambda: tuple(MASKED),
    "a deque": lambda: collections.deque(MASKED),
    "lists of rows": lambda: [[row for row in epoch] for epoch in MASKED],
    "plain ones among them": lambda: [VALUES[0], MASKED[1], VALUES[2].tolist(), VALUES[3], MASKED[4]],
    "tensors among them": lambda: [torch.from_numpy(VALUES[0]), *MASKED[1:]],
    "numbers and masked": lambda: [[list(row) for row in epoch] for epoch in MASKED],
    "torch's masked tensor": lambda: quietly_masked(MASKED.data, HIDDEN),
    "torch's masked tensors": lambda: [quietly_masked(m.data, m.mask) for m in MASKED],
}  # fmt: skip


@pytest.mark.parametrize("name", ITEMS)
def test_a_list_has_the_mask_of_its_items(name):
    trace = mp.as_trace(ITEMS[name]())
    np.testing.assert_array_equal(trace.mask.numpy()[:, 0], ~HIDDEN)
    np.testing.assert_array_equal(trace.data.numpy()[:, 0][~HIDDEN], VALUES[~HIDDEN])


@pytest.mark.parametrize("make", [np.ma.masked_array, lambda v: np.ma.masked_array(v, mask=np.zeros(v.shape, bool))])
def test_a_mask_that_hides_nothing_is_none(make):
    assert mp.as_trace(make(VALUES)).mask is None and mp.as_trace(list(map(make, VALUES))).mask is None
    assert mp.as_trace(VALUES, unit=make(np.arange(3))).unit.tolist() == [0, 1, 2]


def test_a_given_mask_and_that_of_the_data_are_combined():
    early = np.arange(4) < 2
    trace = mp.as_trace(list(MASKED), mask=np.broadcast_to(early, (5, 4)))
    np.testing.assert_array_equal(trace.mask.numpy()[:, 0], ~HIDDEN & early)


def test_hidden_integers_do_not_count():
    """Numbers below a mask, which NumPy or a file fills in, do not matter."""
    whole = np.ma.masked_array(np.where(HIDDEN, 2**62, (100 * VALUES).astype(int)), HIDDEN)
    assert mp.as_trace(whole).data.dtype == torch.float32


def test_a_field_of_a_structured_array_has_its_own_mask():
    both = np.ma.masked_array(np.zeros(VALUES.shape, [("h", float), ("c", float)]))
    both["h"] = MASKED
    np.testing.assert_array_equal(mp.as_trace(both["h"]).mask.numpy()[:, 0], ~HIDDEN)
    with pytest.raises(InputTypeError, match=r"data has dtype \[\('h'"):
        mp.as_trace(both)


# ---------------------------------------------------------------- masks of everything else

SQUARE = np.ma.masked_array(np.full((4, 4), 0.25), np.eye(4, dtype=bool))
NUMBERS = np.ma.masked_array(np.arange(4.0), [False, True, False, False])
OTHERS = {
    "label": lambda: mp.as_trace(VALUES, label=NUMBERS),
    "sample": lambda: mp.as_trace(VALUES, sample=list(NUMBERS)),
    "mask": lambda: mp.as_trace(VALUES, mask=list(np.ma.masked_array(~HIDDEN, HIDDEN))),
    "samples": lambda: mp.as_trace(VALUES).subsample(samples=NUMBERS.astype(int)),
    "embedding": lambda: mp.neighborhood_preservation(VALUES, NUMBERS.reshape(2, 2)[:1].repeat(15, 0), 2),
    "landmark_op": lambda: mp.von_neumann_entropy(SQUARE),
    "potential": lambda: mp.potential_distances(list(SQUARE)),
    "distances": lambda: mp.metric_mds(SQUARE),
    "init": lambda: mp.metric_mds(1 - np.eye(4), init=SQUARE[:, :2]),
    "coordinates": lambda: mp.stress(1 - np.eye(4), SQUARE[:, :2]),
    "entropy": lambda: mp.plots.entropy(NUMBERS),
    "unit": lambda: mp.Trace(torch.zeros(2, 2, 4, 2), np.arange(2), np.arange(2), NUMBERS, np.arange(2)),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_hidden_entries_are_refused_by_name(name):
    with pytest.raises(InputError, match=f"^{name} is masked, .* of .* entries are hidden; accepted: none hidden"):
        OTHERS[name]()


# ---------------------------------------------------------------- labeled arrays in lists


def named(epoch: int, values: np.ndarray, dims: tuple[str, ...] = ("unit", "sample")):
    xarray = pytest.importorskip("xarray")
    array = xarray.DataArray(values, dims=("unit", "sample"), coords={"unit": list("abc"), "slice": 10 * epoch})
    return array.transpose(*dims)


def test_data_arrays_in_a_list_are_matched_by_name():
    orders = [("unit", "sample"), ("sample", "unit")]
    trace = mp.as_trace([named(epoch, values, orders[epoch % 2]) for epoch, values in enumerate(VALUES)])
    np.testing.assert_array_equal(trace.data.numpy()[:, 0], VALUES)
    assert trace.unit.tolist() == list("abc") and trace.epoch.tolist() == [0, 10, 20, 30, 40]


def test_masks_in_a_list_are_matched_by_name():
    masks = [named(epoch, ~hidden, ("sample", "unit")) for epoch, hidden in enumerate(HIDDEN)]
    np.testing.assert_array_equal(mp.as_trace(VALUES, mask=masks).mask.numpy()[:, 0], ~HIDDEN)


def test_data_arrays_that_do_not_fit_are_refused():
    arrays = [named(epoch, values) for epoch, values in enumerate(VALUES)]
    for wrong, message in [
        ([*arrays[:4], arrays[4].isel(unit=[2, 1, 0])], "do not fit one another"),
        ([*arrays[:4], VALUES[4]], "a list of DataArrays with dims"),
        ([array.rename(unit="neuron") for array in arrays], r"dims \('neuron', 'sample'\); accepted: all of"),
        ([arrays, arrays], "nested list of DataArrays"),
    ]:
        with pytest.raises(InputError, match=message):
            mp.as_trace(wrong)
    with pytest.raises(InputError, match="potential holds DataArrays whose axes have different names or orders"):
        mp.potential_distances([arrays[0][0], arrays[1].T[0]])


def test_a_mask_of_square_shape_is_matched_by_name():
    xarray = pytest.importorskip("xarray")
    mask = np.random.default_rng(0).random((5, 4)) < 0.5
    mask[:, 0] = True
    trace = mp.as_trace(np.zeros((5, 5, 3, 4)), mask=xarray.DataArray(mask, dims=("epoch", "sample")))
    assert np.array_equal(trace.mask, np.broadcast_to(mask[:, None, None], (5, 5, 3, 4)))
    with pytest.raises(InputError, match=r"mask has dims \('step', 'sample'\); accepted: some of"):
        mp.as_trace(np.zeros((5, 5, 3, 4)), mask=xarray.DataArray(mask, dims=("step", "sample")))


def test_data_frames_in_a_list_need_one_order():
    pandas = pytest.importorskip("pandas")
    frames = [pandas.DataFrame(values, columns=list("wxyz")) for values in VALUES]
    np.testing.assert_array_equal(mp.as_trace(frames).data.numpy()[:, 0], VALUES)
    with pytest.raises(InputError, match="data holds DataFrames whose axes have different names or orders"):
        mp.as_trace([*frames[:4], frames[4][list("zyxw")]])
    with pytest.raises(InputError, match="data holds nan at slice 4, unit 1, sample 0"):
        mp.as_trace([*frames[:4], frames[4].where(frames[4] != VALUES[4, 1, 0])])


# ---------------------------------------------------------------- tensors in lists

TENSORS = {
    "one dtype": lambda: [torch.from_numpy(v).requires_grad_() for v in VALUES],
    "nested": lambda: [[torch.from_numpy(row).requires_grad_() for row in v] for v in VALUES],
    "without axes": lambda: [[[torch.tensor(x, requires_grad=True) for x in r] for r in v] for v in VALUES.tolist()],
    "float64 among float32": lambda: [torch.from_numpy(VALUES[0]).float(), *map(torch.from_numpy, VALUES[1:])],
    "half": lambda: [torch.from_numpy(v).half() for v in VALUES],
    "parameters": lambda: [torch.nn.Parameter(torch.from_numpy(v)) for v in VALUES],
    "negated lazily": lambda: [torch.from_numpy(0j * v - 1j * v).conj().imag for v in VALUES],
}  # fmt: skip


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_in_lists(name):
    values = TENSORS[name]()
    trace = mp.as_trace(values)
    assert not trace.data.requires_grad and not trace.data.is_neg()
    # 2^-11 is what half precision leaves of a number, float32 much less.
    np.testing.assert_allclose(trace.data.double().numpy()[:, 0], VALUES, rtol=2**-11 if name == "half" else 2**-24)


def test_a_tensor_is_taken_as_its_memory_reads():
    """Kernels read the memory, which a lazy negation has not changed yet."""
    tensor = torch.from_numpy(VALUES - 1j * VALUES).conj().imag
    assert tensor.is_neg()
    np.testing.assert_array_equal(torch.from_dlpack(real_tensor("x", tensor)).numpy(), VALUES)


class Wrapped(torch.Tensor):
    """A subclass of tensors that every result would have too."""


def test_results_have_no_graph_and_no_subclass():
    rows = torch.from_numpy(VALUES[:, :, 0] ** 2)
    square = torch.cdist(rows, rows)
    for make in (torch.Tensor.requires_grad_, lambda tensor: tensor.as_subclass(Wrapped)):
        distances = mp.potential_distances(make(rows.clone()))
        placed = mp.metric_mds(make(square.clone()), init=make(rows[:, :2].clone()))
        entropy = mp.von_neumann_entropy(make(square.clone()))
        for result in (distances, placed.coordinates, entropy, mp.diffusion_potential(make(square.clone()), 2)):
            assert type(result) is torch.Tensor and not result.requires_grad
    axes = [np.arange(size) for size in (5, 3, 4, 1)]
    assert not mp.Trace(torch.zeros(5, 3, 4, 1, requires_grad=True), *axes).data.requires_grad


def test_products_with_the_affinity_have_no_graph():
    operator = SparseAffinity(of_dense_rows([torch.eye(3)], 3))
    assert not (operator @ torch.ones(3, requires_grad=True)).requires_grad
    np.testing.assert_array_equal(as_linear_operator(operator) @ np.arange(3.0), np.arange(3.0))


def inside_vmap() -> torch.Tensor:
    result = []
    torch.vmap(lambda tensor: result.append(tensor) or tensor)(torch.zeros(2, 5, 3, 4))
    return result[0]


def fake() -> torch.Tensor:
    with FakeTensorMode():
        return torch.zeros(5, 3, 4)


@pytest.mark.parametrize("make", [lambda: torch.zeros(5, 3, 4, device="meta"), fake, inside_vmap])
def test_tensors_without_values_are_refused(make):
    tensor = make()
    for call in (
        lambda: mp.as_trace(tensor),
        lambda: mp.as_trace([tensor, torch.zeros(5, 3, 4)]),
        lambda: mp.potential_distances(tensor),
        lambda: mp.as_trace(VALUES, mask=tensor),
    ):
        with pytest.raises(InputTypeError, match="is a tensor without values .*; accepted: a tensor that holds"):
            call()


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.eye(3).to_sparse(), "sparse or nested tensor"),
        (torch.eye(3, dtype=torch.complex64), "dtype torch.complex64"),
        (torch.eye(3) > 0, "dtype torch.bool"),
    ],
    ids=str,
)
def test_other_tensors_are_refused_by_name(tensor, message):
    for call in (mp.von_neumann_entropy, mp.potential_distances, lambda t: mp.as_trace([t, t], min_slices=1)):
        with pytest.raises(InputTypeError, match=message.replace("torch.", "(torch.)?")):
            call(tensor)


def test_half_precision_that_numpy_lacks():
    assert to_numpy("x", torch.tensor([1.5, -2.0], dtype=torch.bfloat16)).tolist() == [1.5, -2.0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its complex half experimental
        half = torch.zeros(2, dtype=torch.complex32)
    with pytest.raises(InputTypeError, match="x has dtype torch.complex32, which NumPy lacks"):
        to_numpy("x", half)


def test_inference_tensors_are_accepted():
    with torch.inference_mode():
        trace = torch.from_numpy(VALUES) * 1
        square = torch.cdist(trace[0], trace[0])
    assert mp.metric_mds(square).coordinates.shape == (3, 2)
    assert np.isfinite(mp.neighborhood_preservation(trace, trace.reshape(15, 4), 2)).all()


# ---------------------------------------------------------------- foreign arrays


class Foreign:
    """An array that exports by DLPack, perhaps from another device, or refuses to."""

    def __init__(self, values, device=None, refusal=None):
        self.values, self.device, self.refusal = values, device, refusal

    def __dlpack__(self, **keywords):
        if self.refusal is not None:
            raise self.refusal
        return self.values.__dlpack__(**keywords)

    def __dlpack_device__(self):
        return self.device or self.values.__dlpack_device__()


class Convertible(Foreign):
    """The same, and NumPy can convert it."""

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values)


def locked() -> np.ndarray:
    values = VALUES.copy()
    values.flags.writeable = False
    return values


CUDA, METAL = (2, 0), (8, 0)
HANDED_OVER = {
    "read-only": lambda: Convertible(locked()),
    "negative strides": lambda: Foreign(VALUES[::-1, :, ::-1].copy()[::-1, :, ::-1]),
    "a list": lambda: [Foreign(values) for values in VALUES],
    "refused, BufferError": lambda: Convertible(VALUES, refusal=BufferError("read-only")),
    "refused, RuntimeError": lambda: Convertible(VALUES, refusal=RuntimeError("unsupported dtype")),
    "on Metal": lambda: Convertible(VALUES, METAL, BufferError("no such device")),
    "a dtype that DLPack lacks": lambda: Convertible(VALUES.astype(np.longdouble)),
}


@pytest.mark.parametrize("name", HANDED_OVER)
def test_dlpack_objects(name):
    np.testing.assert_array_equal(mp.as_trace(HANDED_OVER[name]()).data.numpy()[:, 0], VALUES)


def test_dlpack_objects_in_bfloat16():
    tensor = torch.from_numpy(VALUES).bfloat16()
    assert torch.equal(mp.as_trace(Foreign(tensor)).data[:, 0], tensor.float())


@pytest.mark.parametrize("refusal", [BufferError("read-only"), RuntimeError("requires grad"), ValueError("strides")])
def test_a_refused_export_is_a_clear_error(refusal):
    for values in (Foreign(VALUES, refusal=refusal), [Foreign(VALUES[0], refusal=refusal)] * 5):
        with pytest.raises(InputTypeError, match=f"data is a Foreign that makes no array of numbers .*{refusal}"):
            mp.as_trace(values)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_an_array_on_a_device_that_torch_lacks():
    with pytest.raises(InputTypeError, match="data is a Foreign that makes no array"):
        mp.as_trace(Foreign(VALUES, CUDA))
    np.testing.assert_array_equal(mp.as_trace(Convertible(VALUES, CUDA)).data.numpy()[:, 0], VALUES)


class Stubborn:
    """Refuses an implicit conversion to NumPy, as CuPy's arrays do."""

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")


def test_objects_that_make_no_array_are_refused():
    for values in (Stubborn(), [Stubborn()] * 5):
        with pytest.raises(InputTypeError, match="data is a Stubborn that makes no array of numbers"):
            mp.as_trace(values)


class HidesSome:
    """Becomes a masked array."""

    def __array__(self, dtype=None, copy=None):
        return MASKED


def test_the_mask_of_what_becomes_a_masked_array():
    array, hidden = read_array("data", HidesSome())
    np.testing.assert_array_equal(hidden, HIDDEN)
    assert type(array) is np.ndarray


# ---------------------------------------------------------------- integers


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy, list])
def test_integers_that_float64_rounds_are_refused(dtype, make):
    counters = np.full((5, 3, 4), 2**53, dtype)
    assert mp.as_trace(make(counters)).data.dtype == torch.float64
    counters[3, 2, 1] = 2**53 + 1
    with pytest.raises(InputError, match="data contains 9007199254740993, which float64 may round; accepted: integers"):
        mp.as_trace(make(counters))
    if dtype == np.int64:
        with pytest.raises(InputError, match="data contains -9223372036854775808"):
            mp.as_trace(make(np.full((5, 3, 4), -(2**63))))
