"""Null traces: what a trace would be if some of its structure were absent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..trace import Trace

# A series of three values has a single phase, so shorter series leave little to draw.
LEAST_SERIES = 4


def shuffled(trace: Trace, name: str, rng: np.random.Generator) -> Trace:
    """One null trace of the type ``name``, as `null_models` describes it. Only this copy of the trace is made."""
    return NULLS[name](trace, rng)


def null_fault(trace: Trace, name: str) -> str | None:
    """Why ``trace`` cannot have the null ``name``, and what is accepted; None if it can."""
    size = {"units": trace.n_units, "timesteps": trace.n_timesteps, "epochs": trace.n_epochs}.get(name, 2)
    if size < 2:
        return f"the trace has 1 of them; accepted: at least 2 {name}"
    if name == "phase" and trace.mask is not None:
        return "the trace is masked; accepted: a trace in which every sample is present"
    if name == "phase" and max(trace.shape[:2]) < LEAST_SERIES:
        return f"its series are shorter than {LEAST_SERIES}; accepted: at least {LEAST_SERIES} time steps or epochs"
    return None


def _units(trace: Trace, rng: np.random.Generator) -> Trace:
    return _moved(trace, np.unravel_index(rng.permuted(_grid(trace), axis=2), trace.shape[:3]))


def _timesteps(trace: Trace, rng: np.random.Generator) -> Trace:
    return _moved(trace, np.unravel_index(rng.permuted(_grid(trace), axis=1), trace.shape[:3]))


def _epochs(trace: Trace, rng: np.random.Generator) -> Trace:
    n_epochs, n_timesteps, n_units = trace.shape[:3]
    order = rng.permuted(np.repeat(np.arange(n_epochs)[:, None], n_units, 1), axis=0)  # (E, M)
    return _moved(trace, (order[:, None], np.arange(n_timesteps)[:, None], np.arange(n_units)))


def _grid(trace: Trace) -> np.ndarray:  # (E, T, M)
    return np.arange(trace.n_nodes).reshape(trace.shape[:3])


def _moved(trace: Trace, index: tuple[np.ndarray, ...]) -> Trace:
    """The trace whose node (e, t, m) has the samples that the node at ``index`` of (e, t, m) has."""
    places = tuple(torch.from_numpy(np.ascontiguousarray(part)).to(trace.data.device) for part in index)
    arrays: dict[str, Any] = {"data": trace.data} | ({} if trace.mask is None else {"mask": trace.mask})
    return replace(trace, **{name: array[places] for name, array in arrays.items()})


def _phase(trace: Trace, rng: np.random.Generator) -> Trace:
    axis = 1 if trace.n_timesteps >= LEAST_SERIES else 0
    data: Any = trace.data
    values = torch.fft.rfft(data, dim=axis)
    angles = torch.from_numpy(rng.uniform(0, 2 * np.pi, tuple(values.shape))).to(data.device)
    turns = torch.polar(torch.ones_like(angles), angles).to(values.dtype)
    # The mean, and the alternating part of a series of even length, are real and have no phase.
    turns.select(axis, 0).fill_(1)
    if trace.shape[axis] % 2 == 0:
        turns.select(axis, -1).fill_(1)
    turned = torch.fft.irfft(values.mul_(turns), n=trace.shape[axis], dim=axis)
    # A constant series has no phase. Rounding would make it noise, which the z-score of a dead unit makes large.
    constant = (data == data.narrow(axis, 0, 1)).all(axis, keepdim=True)
    return replace(trace, data=torch.where(constant, data, turned), recorded=None)


NULLS: dict[str, Callable[[Trace, np.random.Generator], Trace]] = {
    "units": _units,
    "timesteps": _timesteps,
    "epochs": _epochs,
    "phase": _phase,
}
