"""The correction of p-values for the number of tests."""

from __future__ import annotations

import numpy as np


def corrected(p: np.ndarray) -> np.ndarray:  # (n,)
    """The p-values, corrected by Benjamini and Hochberg for those that are not NaN.

    Examples
    --------
    >>> corrected(np.array([0.01, np.nan, 0.04])).tolist()
    [0.02, nan, 0.04]
    """
    from scipy.stats import false_discovery_control

    result, known = p.copy(), ~np.isnan(p)
    if known.any():
        result[known] = false_discovery_control(p[known])
    return result
