"""Join what several layers and batches return to the values of one snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError, InputTypeError
from .layers import Call, Layer, States
from .lengths import Presence

DTYPES = ("float16", "float32", "float64")


class Values(NamedTuple):
    """The values of a snapshot before any is left out."""

    values: np.ndarray  # (T, M, P)
    present: np.ndarray | None  # (T, P); None if all are present
    unit_layer: np.ndarray  # (M,) text


def joined(layers: Sequence[Layer], batches: Sequence[Sequence[Sequence[Call]]], presence: Presence) -> Values:
    """The states of ``layers`` side by side, of all batches one after the other, with 0 where nothing is present."""
    states = [[layer.states(calls) for layer, calls in zip(layers, batch, strict=True)] for batch in batches]
    units = [np.asarray(layer.units(part.values.shape[1])) for layer, part in zip(layers, states[0], strict=True)]
    whole = _one_after_the_other([_side_by_side(layers, parts) for parts in states], presence.is_known)
    present = _presence(whole, presence)
    return Values(_without_absent(whole.values, present), present, np.concatenate(units))


def _without_absent(values: np.ndarray, present: np.ndarray | None) -> np.ndarray:
    """The values (T, M, P), 0 where ``present`` (T, P) is False."""
    return values if present is None else np.where(present[:, None, :], values, values.dtype.type(0))


def _side_by_side(layers: Sequence[Layer], parts: Sequence[States]) -> States:
    """The units of the layers in one array; (T, P) must agree."""
    sizes = [(part.values.shape[0], part.values.shape[2]) for part in parts]
    for layer, size in zip(layers, sizes, strict=True):
        if size != sizes[0]:
            raise InputError(
                f"layer {layer.name!r} returns {size[0]} time steps of {size[1]} samples, {layers[0].name!r} returns "
                f"{sizes[0][0]} of {sizes[0][1]}; accepted: layers of the same time steps and samples in one recorder"
            )
    masks = [part.present for part in parts if part.present is not None]
    present = np.logical_and.reduce(masks) if masks else None
    return States(np.concatenate([part.values for part in parts], axis=1), present)


def _one_after_the_other(batches: Sequence[States], may_pad: bool) -> States:
    """The samples of all batches in one array, absent beyond the time steps of a shorter batch."""
    lengths = [len(batch.values) for batch in batches]
    widths = {batch.values.shape[1] for batch in batches}
    ragged = len(set(lengths)) > 1
    if len(widths) > 1 or ragged and not (may_pad or all(batch.present is not None for batch in batches)):
        raise InputError(
            f"the layers return {sorted(set(lengths))} time steps of {sorted(widths)} units for the batches of the "
            "probe; accepted: the same in all batches, or shorter ones with lengths=, mask= or padding_mask="
        )
    if len(batches) == 1:
        return batches[0]
    values = np.concatenate([_padded(batch.values, max(lengths)) for batch in batches], axis=2)
    if not ragged and all(batch.present is None for batch in batches):
        return States(values, None)
    return States(values, np.concatenate([_padded(_all_or(batch), max(lengths)) for batch in batches], axis=1))


def _all_or(batch: States) -> np.ndarray:
    n_timesteps, _, n_samples = batch.values.shape
    return np.ones((n_timesteps, n_samples), bool) if batch.present is None else batch.present


def _padded(array: np.ndarray, length: int) -> np.ndarray:
    """The array with zeros, or False, up to ``length`` time steps."""
    return np.pad(array, [(0, length - len(array)), *[(0, 0)] * (array.ndim - 1)])


def _presence(states: States, presence: Presence) -> np.ndarray | None:
    if not presence.is_known:
        return states.present
    present = presence.present(states.values.shape[0], states.values.shape[2])
    return present if states.present is None else present & states.present


def as_dtype(dtype: Any) -> np.dtype[Any] | None:
    """The dtype of stored values; None keeps that of the layers."""
    if dtype is None:
        return None
    name = str(dtype).removeprefix("torch.")
    if name in DTYPES:
        return np.dtype(name)
    try:
        known = np.dtype(dtype)
    except TypeError:
        known = None
    if known is None or known.name not in DTYPES:
        raise InputTypeError(f"dtype={dtype!r} is unknown; accepted: {', '.join(map(repr, DTYPES))}, or None")
    return known


def rounded(values: np.ndarray, dtype: np.dtype[Any] | None, unit_layer: np.ndarray) -> np.ndarray:
    """The values (T, M, P) in ``dtype``; `InputError` names the first that is not finite in it."""
    with np.errstate(over="ignore"):
        result = values if dtype is None else values.astype(dtype, copy=False)
    bad = np.argwhere(~np.isfinite(result))
    if bad.size:
        value = values[tuple(bad[0])]
        raise InputError(
            f"layer {str(unit_layer[bad[0][1]])!r} returns {value:g} at time step {bad[0][0]}, unit "
            f"{bad[0][1]}, sample {bad[0][2]}; "
            + (
                f"accepted: a dtype with a wider range than {result.dtype.name}"
                if np.isfinite(value)
                else "the training has diverged, or the probe holds such a value"
            )
        )
    return result
