"""Which epochs and which time steps are recorded."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError, InputTypeError, check_number
from ..runtime.arrays import to_numpy

Schedule = Callable[[float], bool]
# Multiples such as 3 * 0.1 miss their decimal value by a few roundings.
_ROUNDINGS = 1e-9
_SCHEDULES = "every(5), a collection of epochs such as range(0, 50, 5), or a function of the epoch"
_TIMESTEPS = "a slice such as slice(None, None, 6), or rising indices"


@dataclass(frozen=True)
class Every:
    """Whether an epoch is recorded; `every` makes it."""

    step: float
    after: float | None = None

    def __call__(self, epoch: float) -> bool:
        """Whether ``epoch`` is up to ``after``, or whole steps away from it."""
        if self.after is not None and epoch <= self.after:
            return True
        steps = (epoch - (self.after or 0)) / self.step
        return math.isclose(steps, round(steps), rel_tol=_ROUNDINGS, abs_tol=_ROUNDINGS)


def every(step: float, *, after: float | None = None) -> Every:
    """A schedule for `Recorder`: every ``step`` epochs, and all epochs up to ``after``.

    Without ``after`` the multiples of ``step`` are recorded; with it, ``after + step``, ``after + 2 step`` and so on.
    The numbers may count epochs, training steps or checkpoints, and need not be whole.

    Raises
    ------
    InputError, InputTypeError
        A step that is not a number above 0, or an ``after`` that is no number.

    Examples
    --------
    >>> [epoch for epoch in range(40) if every(5, after=28)(epoch)][-4:]
    [27, 28, 33, 38]
    >>> [step for step in range(2000) if every(500)(step)]
    [0, 500, 1000, 1500]
    """
    check_number("step", step, low=0, open_low=True)
    if after is not None:
        check_number("after", after)
    return Every(step, after)


def as_schedule(epochs: Any) -> Schedule:
    """The schedule that ``epochs`` describes; None records all."""
    if epochs is None:
        return lambda epoch: True
    if callable(epochs):
        return lambda epoch: bool(epochs(epoch))
    if isinstance(epochs, str) or not isinstance(epochs, Collection) and not hasattr(epochs, "__array__"):
        raise InputTypeError(f"epochs={epochs!r} is no schedule; accepted: {_SCHEDULES}")
    chosen = to_numpy("epochs", list(epochs) if isinstance(epochs, (set, frozenset)) else epochs)
    if chosen.ndim != 1 or not chosen.size or chosen.dtype.kind not in "iuf":
        raise InputError(f"epochs has shape {chosen.shape} and dtype {chosen.dtype}; accepted: {_SCHEDULES}")
    return lambda epoch: bool(np.isclose(chosen, epoch, rtol=_ROUNDINGS, atol=_ROUNDINGS).any())


def checked_timesteps(timesteps: Any) -> Any:
    """``timesteps`` as None, a slice or an index array."""
    if timesteps is None or isinstance(timesteps, slice):
        return timesteps
    index = to_numpy("timesteps", list(timesteps) if isinstance(timesteps, range) else timesteps)
    if index.ndim != 1 or not index.size or index.dtype.kind not in "iub":
        raise InputTypeError(f"timesteps={timesteps!r} selects no time steps; accepted: {_TIMESTEPS}")
    return index


def chosen_timesteps(timesteps: Any, size: int) -> np.ndarray:
    """The numbers of the time steps, of ``size``, that the checked ``timesteps`` select."""
    if timesteps is None:
        return np.arange(size)
    try:
        chosen = np.arange(size)[timesteps]
    except (IndexError, TypeError, ValueError) as error:
        raise _no_timesteps(timesteps, size, error) from error
    if not chosen.size or (np.diff(chosen) <= 0).any():
        raise _no_timesteps(timesteps, size, f"they select {chosen.tolist()}")
    return chosen


def _no_timesteps(timesteps: Any, size: int, reason: Any) -> InputError:
    return InputError(
        f"timesteps={timesteps!r} does not fit the {size} time steps of the layers ({reason}); accepted: {_TIMESTEPS}"
    )
