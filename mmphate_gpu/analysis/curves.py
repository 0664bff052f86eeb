"""Curves over epochs: an array, or a result whose axes have names, checked and brought into one form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError, InputTypeError
from ..runtime.arrays import to_numpy
from ..trace.coordinates import as_coordinate
from .means import mean_of_finite

MIN_EPOCHS = 3
LARGEST = 1e150  # the squares of larger numbers overflow
_DAY = np.timedelta64(1, "D")


@dataclass(frozen=True, eq=False)
class Curves:
    """Values over epochs in rows, and the labels of both axes."""

    values: np.ndarray  # (B, E)
    epoch: np.ndarray  # (E,)
    row: np.ndarray | None  # (B,) labels of the rows, or their numbers; None for a single curve
    rows_are: str  # the name of the axis of the rows, such as "unit", or of several axes; "" for a single curve
    resamples: np.ndarray | None = None  # (n, E): what the mean could have been, if the curve has its replicates

    @property
    def mean(self) -> np.ndarray:  # (E,)
        """The mean over the rows that have a value; NaN at epochs where none has."""
        return mean_of_finite(self.values, 0)

    @property
    def taken(self) -> np.ndarray:
        """The indices of the epochs where the mean has a value; raises `InputError` for fewer than 3."""
        taken = np.flatnonzero(np.isfinite(self.mean))
        if len(taken) < MIN_EPOCHS:
            raise InputError(f"curve has {len(taken)} epoch(s) with a value; accepted: {MIN_EPOCHS} or more")
        return taken


def as_curves(name: str, curve: Any, epoch: Any = None) -> Curves:
    """Read an (E,) or (E, B) array, or an object with ``values``, ``dims`` and ``coords`` such as an `Entropy`.

    Axes other than "epoch" become the rows, and ``replicates`` of the values become replicates of their mean.
    ``epoch`` takes the place of the labels; without labels they are 0, 1, ... Infinities and masked entries are
    refused, and NaN stays.
    """
    named = hasattr(curve, "dims") and hasattr(curve, "values")
    values, axes, row = _named(name, curve, curve.values) if named else _unnamed(name, curve)
    labels = epoch if epoch is not None else axes.get("epoch", np.arange(values.shape[1]))
    labels = as_coordinate("epoch", labels)
    if labels.shape != values.shape[1:]:
        raise InputError(f"epoch has shape {labels.shape}; accepted: ({values.shape[1]},), a label for each epoch")
    rows = axes.get(row, np.arange(len(values))) if row else None
    return Curves(values, labels, rows, row, _resamples(name, curve) if named else None)


def with_replicates(curves: Curves, replicates: Any) -> Curves:
    """``curves`` with the rows of an (r, E) array in place of its rows; None keeps these.

    Raises `InputError` unless the mean of ``replicates`` is that of ``curves``, to the rounding of float32.
    """
    if replicates is None:
        return curves
    values = _real("replicates", replicates)
    if values.ndim != 2 or values.shape[1] != len(curves.epoch):
        raise InputError(
            f"replicates has shape {values.shape}; accepted: (R, {len(curves.epoch)}), a row for each curve"
        )
    replicated = Curves(values, curves.epoch, None, "replicate")
    size = np.abs(np.nan_to_num(values)).max(initial=0)
    if not np.allclose(replicated.mean, curves.mean, rtol=1e-4, atol=1e-6 * size, equal_nan=True):
        raise InputError("replicates has another mean than curve; accepted: the curves whose mean is curve")
    return replicated


def _named(name: str, curve: Any, values: Any) -> tuple[np.ndarray, dict[str, np.ndarray], str]:
    """The rows of ``values``, whose axes are ``curve.dims``; the labels of these; and the name of the rows."""
    dims = [str(dim) for dim in curve.dims]
    if "epoch" not in dims:
        raise InputError(f"{name} has the axes {tuple(dims)}; accepted: axes of which one is 'epoch'")
    values = np.moveaxis(_real(name, values), dims.index("epoch"), -1)
    others = [dim for dim in dims if dim != "epoch"]
    axes = {dim: np.asarray(curve.coords[dim]) for dim in dims if dim in curve.coords}
    return values.reshape(-1, values.shape[-1]), axes, others[0] if len(others) == 1 else ", ".join(others)


def _resamples(name: str, curve: Any) -> np.ndarray | None:  # (n, E)
    """The mean of the rows in each replicate of ``curve``; None without replicates."""
    replicates = getattr(curve, "replicates", None)
    if replicates is None:
        return None
    return np.stack([mean_of_finite(_named(name, curve, values)[0], 0) for values in replicates])


def _unnamed(name: str, curve: Any) -> tuple[np.ndarray, dict[str, np.ndarray], str]:
    values = _real(name, curve)
    if values.ndim not in (1, 2) or 0 in values.shape:
        raise InputError(f"{name} has shape {values.shape}; accepted: (E,), or (E, T) with a column for each time step")
    if values.ndim == 1:
        return values[None], {}, ""
    return values.T, {"timestep": np.arange(values.shape[1])}, "timestep"


def _real(name: str, values: Any) -> np.ndarray:
    array = to_numpy(name, values)
    if array.dtype.kind not in "biuf":
        raise InputTypeError(f"{name} has dtype {array.dtype}; accepted: real numbers, NaN where an epoch has no value")
    if np.isinf(array).any():
        raise InputError(f"{name} holds an infinity; accepted: real numbers, NaN where an epoch has no value")
    values = array.astype(np.float64)
    if (np.abs(values) > LARGEST).any():
        raise InputError(f"{name} holds {np.nanmax(np.abs(values)):g}; accepted: numbers up to {LARGEST:g} in size")
    return values


def epoch_places(epoch: np.ndarray) -> tuple[np.ndarray, str]:  # (E,)
    """The place of every epoch on a line, and the name of its unit of length.

    Increasing numbers are their own places, dates and time spans count days, and all other labels count snapshots.
    """
    unit = "epoch"
    if epoch.dtype.kind in "mM":
        places, unit = (epoch - epoch[:1]) / _DAY, "day"
    else:
        places = epoch.astype(np.float64) if epoch.dtype.kind in "iuf" else np.zeros(len(epoch))
    increasing = np.isfinite(places).all() and (np.diff(places) > 0).all()
    return (places - places[:1], unit) if increasing else (np.arange(len(epoch), dtype=np.float64), "snapshot")
