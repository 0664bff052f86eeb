"""Means over the values that are there."""

from __future__ import annotations

import numpy as np


def mean_of_finite(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean over the finite values along ``axis``; NaN where there is none.

    Examples
    --------
    >>> mean_of_finite(np.array([[1.0, np.nan], [np.inf, np.nan], [3.0, np.nan]]), 0).tolist()
    [2.0, nan]
    """
    return np.ma.masked_invalid(np.asarray(values, dtype=float)).mean(axis=axis).filled(np.nan)
