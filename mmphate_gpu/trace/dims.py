"""The axes of a trace: their names in files and xarray objects, and the sizes of the arrays along them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from ..errors import InputError, InputTypeError

AXES = ("epoch", "timestep", "unit", "sample")
SLICE_AXES = ("slice", "unit", "sample")
# Labels with one value per sample, and layers with one value per unit.
BESIDE_AXES = {"label": "sample", "unit_layer": "unit"}
METRICS = "metrics_"  # in files the array of a metric has this before its name
# In a .npz the name of the time zone of a coordinate. Other files have an attribute "time_zone" at the coordinate.
ZONES = {axis: f"time_zone_{axis}" for axis in AXES}
Dims = Sequence[Any]
Shape = tuple[int, ...]
# No name is longer. Without a limit, a few bytes of a compressed file could expand to text of any length.
LONGEST_TEXT = 2**16  # bytes

# The axis of slices may be named after what distinguishes the slices.
_SLICE_NAMES = ("slice", "epoch", "timestep")
# xarray, h5netcdf and netCDF4 make up such names for dimensions that have none.
_MADE_UP = re.compile(r"(phony_)?dim_(\d+)")


class SizesByName(Protocol):
    """Names of the sizes of what has a ``shape`` (epoch, timestep, unit, ...)."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def n_epochs(self) -> int:
        return self.shape[0]

    @property
    def n_timesteps(self) -> int:
        return self.shape[1]

    @property
    def n_units(self) -> int:
        return self.shape[2]

    @property
    def n_slices(self) -> int:
        return self.n_epochs * self.n_timesteps

    @property
    def n_nodes(self) -> int:
        return self.n_slices * self.n_units


def axes_of(n_axes: int) -> tuple[str, ...]:
    """The names of the axes of data that has ``n_axes`` axes."""
    return SLICE_AXES if n_axes == 3 else AXES


def plain_name(name: Any) -> str | None:
    """``name`` in lower case; None if it is empty or made up."""
    text = "" if name is None else str(name).strip().lower()
    return None if not text or _MADE_UP.fullmatch(text) else text


def common_name(candidates: Iterable[Any]) -> Any:
    """One name of a dimension from several sources; if they name two axes, both names joined, which no axis has."""
    names = sorted(filter(None, candidates), key=lambda name: plain_name(name) is None)  # made-up names come last
    known = dict.fromkeys(name for name in map(plain_name, names) if name in {*AXES, "slice"})
    return " or ".join(known) if known else next(iter(names), None)


def stored_order(dims: Dims) -> tuple[int, ...]:
    """The position in ``dims`` of every axis of a trace.

    Dimensions without names are in the order of the axes. If the names are permuted, a single dimension without a name
    is found by elimination. `InputError` refuses names that are unknown or repeated, or that leave the order open.
    """
    axes = axes_of(len(dims))
    names = _axis_names(dims, axes)
    if not any(names) and not _permuted(dims):
        return tuple(range(len(dims)))
    missing = [axis for axis in axes if axis not in names]
    # If as many axes are missing as dimensions have no name, then each name is that of an axis and occurs once.
    if len(names) == len(axes) and len(missing) == names.count(None) and not _permuted(dims):
        if all(name in (None, axis) for name, axis in zip(names, axes, strict=True)):
            return tuple(range(len(dims)))
        if len(missing) < 2:
            return tuple(names.index(axis if axis in names else None) for axis in axes)
    raise InputError(
        f"data has dims {shown(dims)}; accepted: {AXES} or {SLICE_AXES}, in any order; rename the dimensions, or store "
        "the data in one of these two orders without names"
    )


def with_axes(dims: Dims, axes: Any) -> Dims:
    """The names in the entry ``axes`` of a file, which must agree with ``dims``; ``dims`` if ``axes`` is None."""
    if axes is None:
        return dims
    names = [str(name) for name in np.atleast_1d(axes).tolist()]
    pairs = zip(map(plain_name, names), map(plain_name, dims), strict=False)
    if len(names) != len(dims) or any(name != dim for name, dim in pairs if dim):
        raise InputError(f"axes is {names}; accepted: the names of the axes of data, whose dims are {shown(dims)}")
    return names


def mask_order(dims: Dims, data_dims: Dims) -> tuple[tuple[int, ...], Any]:
    """(order, index) such that ``mask.transpose(order)[index]`` has the axes of a trace in order, for `spread_mask`.

    A mask whose dimensions have no names has the order of the data, or is (timestep, sample). `InputError` refuses
    names that are unknown or repeated or that only some dimensions have, and no names while those of data are permuted.
    """
    data_order, axes = stored_order(data_dims), axes_of(len(data_dims))
    names = _axis_names(dims, axes)
    if not any(names):
        if len(names) == len(data_order):
            return data_order, ...
        if data_order == tuple(range(len(data_order))):
            return tuple(range(len(names))), ...
        raise InputError(f"mask has dims {shown(dims)}, and those of data are permuted; accepted: some of {axes}")
    along, data_along = ({"epoch", "timestep"}.intersection(map(plain_name, each)) for each in (dims, data_dims))
    same_slices = len(axes) == 4 or not data_along or along <= data_along
    if len(set(names)) < len(names) or not set(names) <= set(axes) or not same_slices:
        raise InputError(f"mask has dims {shown(dims)}; accepted: some of {shown(data_dims)}, in any order")
    order = sorted(range(len(names)), key=lambda place: axes.index(names[place]))
    return tuple(order), tuple(slice(None) if axis in names else None for axis in axes)


def spread_mask(mask: Any, order: tuple[int, ...], index: Any, shape: tuple[int, ...]) -> Any:
    """``mask`` (an array) in the order of the axes of data with ``shape``, repeated along those that it lacks."""
    mask = mask.transpose(order)[index]
    if index is ...:
        return mask
    parts = zip(index, mask.shape, shape, strict=True)
    return np.broadcast_to(mask, tuple(whole if part is None else size for part, size, whole in parts))


def coordinate_names(dims: Dims, names: Collection[str]) -> dict[str, str]:
    """{field: name} of those arrays of a file or Dataset that belong to the axes of data with ``dims``."""
    fields = {name: name for name in (*AXES, *BESIDE_AXES) if name in names}
    fields |= {name: name for name in names if is_metric(name)}
    if len(dims) == 3:
        slices = plain_name(dims[stored_order(dims)[0]])
        if slices == "timestep":  # the single epoch and its metrics are none of the slices
            fields = {name: name for name in fields if name not in ("epoch", "timestep") and not is_metric(name)}
        coordinate = next((name for name in ("slice", slices) if name in names), None)
        fields |= {} if coordinate is None else {"epoch": coordinate}
    return fields


def is_metric(name: str) -> bool:
    """Whether an array of this name holds a metric."""
    return name.startswith(METRICS) and name.removeprefix(METRICS).isidentifier()


def with_metrics(fields: dict[str, Any]) -> dict[str, Any]:
    """``fields`` with the arrays of metrics gathered in one entry "metrics", if there are any."""
    metrics = {name.removeprefix(METRICS): values for name, values in fields.items() if is_metric(name)}
    others = {name: values for name, values in fields.items() if not is_metric(name)}
    return others | ({"metrics": metrics} if metrics else {})


def data_key(holder: str, names: list[str]) -> str:
    """The name of the array that holds the trace, "data" or "trace"; ``holder`` precedes the names in an error."""
    keys = [key for key in ("data", "trace") if key in names]
    if len(keys) != 1:
        shown = sorted(name[:100] for name in names)[:20]
        raise InputError(f"{holder} {shown}; accepted: the trace as either 'data' or 'trace'")
    return keys[0]


def is_meant(field: str, shape: tuple[int, ...], data_shape: tuple[int, ...]) -> bool:
    """Whether an array of ``shape`` can be ``field`` beside the data, where its name has other capitals than the field.

    A mask has several axes, "axes" an entry for each axis of the data, and others as many entries as one of these axes.
    """
    if field == "mask":
        return len(shape) > 1
    return len(shape) == 1 and shape[0] in ((len(data_shape),) if field == "axes" else data_shape)


def check_axis(field: str, dims: Dims, n_axes: int) -> str:
    """The axis of ``field``; raises `InputError` if ``dims``, those of a coordinate or label, name another axis."""
    axes = axes_of(n_axes)
    axis = axes[0] if field == "epoch" or is_metric(field) else BESIDE_AXES.get(field, field)
    names = _axis_names(dims, axes) if axis == axes[0] else [plain_name(name) for name in dims]
    if any(name not in (None, axis) for name in names):
        raise InputError(f"{field} has dims {shown(dims)}; accepted: one value per {axis}")
    return axis


def shown(dims: Dims) -> tuple[str | None, ...]:
    """``dims`` for a message."""
    return tuple(None if name is None else str(name) for name in dims)


def _permuted(dims: Dims) -> bool:
    """Whether dimensions that xarray numbered (dim_0, dim_1) have been reordered since."""
    numbers = [int(match[2]) for match in map(_MADE_UP.fullmatch, map(str, dims)) if match and not match[1]]
    return numbers != sorted(numbers)


def _axis_names(dims: Dims, axes: tuple[str, ...]) -> list[str | None]:
    names = [plain_name(name) for name in dims]
    return ["slice" if axes == SLICE_AXES and name in _SLICE_NAMES else name for name in names]


# ---------------------------------------------------------------- sizes and dtypes


def check_data_shape(shape: Shape) -> None:
    """Raise `InputError` unless ``shape`` is (epoch, timestep, unit, sample) or (slice, unit, sample), none empty."""
    if len(shape) not in (3, 4):
        raise InputError(
            f"data has {len(shape)} axes, shape {shape}; "
            "accepted: 4 axes (epoch, timestep, unit, sample) or 3 axes (slice, unit, sample)"
        )
    for axis, size in zip(axes_of(len(shape)), shape, strict=True):
        if size == 0:
            raise InputError(f"data has an empty axis {axis}, shape {shape}; accepted: at least 1 entry in every axis")


def check_length(name: str, shape: Shape, size: int, axis: str) -> None:
    """Raise `InputError` unless the array ``name`` has one value for each of the ``size`` entries of ``axis``."""
    if shape != (size,):
        raise InputError(f"{name} has shape {shape}; accepted: ({size},), one value per {axis}")


def check_mask_shape(shape: Shape, data_shape: Shape) -> None:
    """Raise `InputError` unless a mask has the shape of the data, or (timestep, sample) or (slice, sample)."""
    short = (data_shape[-3], data_shape[-1])
    if shape not in (data_shape, short):
        names = f"({axes_of(len(data_shape))[-3]}, sample)"
        raise InputError(f"mask has shape {shape}; accepted: {data_shape} or {names} = {short}")


def check_boolean(dtype: Any) -> None:
    """Raise `InputTypeError` unless ``dtype``, that of a mask, is boolean."""
    if str(dtype).removeprefix("torch.") != "bool":
        raise InputTypeError(f"mask has dtype {dtype}; accepted: booleans, True where a value is present")


def check_text(name: str, dtype: np.dtype) -> None:
    """Raise `InputError` if an entry of the array ``name`` has more than `LONGEST_TEXT` bytes."""
    if dtype.itemsize > LONGEST_TEXT:
        raise InputError(f"{name} has entries of {dtype.itemsize} bytes; accepted: at most {LONGEST_TEXT}")
