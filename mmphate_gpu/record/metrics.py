"""Numbers that a snapshot keeps together with the states, such as a loss."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..errors import InputError, InputTypeError
from ..trace.dims import AXES

RESERVED = {*AXES, "slice", "label", "mask", "data", "trace", "unit_layer", "metrics"}  # names of the fields of a trace


def checked_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics as floats; `InputError` names one that has another name or is no number."""
    return {_checked_name(name): _number(name, value) for name, value in metrics.items()}


def check_finite(metrics: Mapping[str, float]) -> None:
    """Raise `InputError` if a metric is infinite, which happens in a training that diverges."""
    for name, value in metrics.items():
        if math.isinf(value):
            raise InputError(f"the metric {name!r} is {value}; accepted: a finite number, or NaN where it is missing")


def _checked_name(name: str) -> str:
    if not name.isidentifier() or name in RESERVED:
        raise InputError(
            f"the metric {name!r} cannot have this name; accepted: identifiers other than {', '.join(sorted(RESERVED))}"
        )
    return name


def _number(name: str, value: Any) -> float:
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        shape = f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else ""
        raise InputTypeError(f"the metric {name!r} is a {type(value).__name__}{shape}; accepted: a real number")
    try:
        return float(value)
    except OverflowError:  # of an integer or a fraction beyond the range of float64
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]
