"""Where the sequences of the probe end: lengths, masks and padding masks as one boolean array."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InputError, InputTypeError
from ..runtime.arrays import to_numpy
from .probe import Probe


class Presence:
    """Which time steps of each sample are present, by the arguments of the user."""

    def __init__(self, probe: Probe, *, lengths: Any, mask: Any, padding_mask: str | None) -> None:
        self._lengths = None if lengths is None else _checked_lengths(lengths)
        self._masks: dict[str, np.ndarray] = {}  # (P, T), by the name of the argument
        if mask is not None:
            self._masks["mask"] = _flags("mask", mask, "0 or False where the sequence has ended")
        if padding_mask is not None:
            self._masks["padding_mask"] = ~_padded(padding_mask, probe.keyword(padding_mask))

    @property
    def is_known(self) -> bool:
        """Whether the user gave any of the arguments."""
        return self._lengths is not None or bool(self._masks)

    def present(self, n_timesteps: int, n_samples: int) -> np.ndarray:
        """(T, P), True where a time step of a sample is present; of all arguments together."""
        present = np.ones((n_timesteps, n_samples), bool)
        if self._lengths is not None:
            _check_lengths(self._lengths, n_timesteps, n_samples)
            present &= np.arange(n_timesteps)[:, None] < self._lengths
        for name, mask in self._masks.items():
            present &= _fitted(name, mask, n_timesteps, n_samples).T
        return present


def _checked_lengths(lengths: Any) -> np.ndarray:
    array = to_numpy("lengths", lengths)
    if array.ndim != 1 or array.dtype.kind not in "iu" or (array.size and array.min() < 0):
        raise InputError(
            f"lengths has shape {array.shape} and dtype {array.dtype}; accepted: one whole number of time steps for "
            "each sample of the probe"
        )
    return array


def _check_lengths(lengths: np.ndarray, n_timesteps: int, n_samples: int) -> None:
    if lengths.shape != (n_samples,) or lengths.max() > n_timesteps:
        raise InputError(
            f"lengths has shape {lengths.shape} and goes up to {lengths.max(initial=0)}; accepted: a length of 0 to "
            f"{n_timesteps} for each of the {n_samples} samples"
        )


def _flags(name: str, values: Any, meaning: str) -> np.ndarray:
    array = to_numpy(name, values)
    whole = array.dtype.kind in "iuf" and np.isin(array, (0, 1)).all()
    if array.ndim != 2 or not (array.dtype.kind == "b" or whole):
        raise InputTypeError(
            f"{name} has shape {array.shape} and dtype {array.dtype}; accepted: booleans or 0 and 1 of shape (sample, "
            f"timestep), {meaning}"
        )
    return array.astype(bool)


def _padded(name: str, masks: list[Any]) -> np.ndarray:
    """(P, T), True where padded; shorter batches are padded up to the longest."""
    arrays = [to_numpy("padding_mask", mask) for mask in masks]
    for array in arrays:
        if array.ndim != 2 or array.dtype.kind != "b":
            raise InputTypeError(
                f"padding_mask={name!r} has shape {array.shape} and dtype {array.dtype}; accepted: booleans of shape "
                "(sample, timestep), True where padded. A mask of 1 where a token is present is given as mask="
            )
    longest = max(array.shape[1] for array in arrays)
    return np.concatenate(
        [np.pad(array, ((0, 0), (0, longest - array.shape[1])), constant_values=True) for array in arrays]
    )


def _fitted(name: str, mask: np.ndarray, n_timesteps: int, n_samples: int) -> np.ndarray:
    """The mask cut to ``n_timesteps``, if nothing is present beyond them: some layers return no padding."""
    if mask.shape[0] != n_samples or mask.shape[1] < n_timesteps or mask[:, n_timesteps:].any():
        turned = "; the axes seem to be swapped" if mask.shape == (n_timesteps, n_samples) else ""
        raise InputError(
            f"{name} has shape {mask.shape}; accepted: (sample, timestep) = {(n_samples, n_timesteps)}, as the layers "
            f"return{turned}"
        )
    return mask[:, :n_timesteps]
