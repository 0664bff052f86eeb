"""Means over the values that are finite."""

from __future__ import annotations

import numpy as np


def mean_of_finite(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean over the finite values along ``axis``; NaN without one.

    Examples
    --------
    >>> mean_of_finite(np.array([[1.0, np.nan], [np.inf, np.nan], [3.0, np.nan]]), 0).tolist()
    [2.0, nan]
    """
    finite = np.isfinite(values)
    sums, counts = np.where(finite, values, 0).sum(axis), finite.sum(axis)
    return np.divide(sums, counts, out=np.full(np.shape(sums), np.nan), where=counts > 0)
