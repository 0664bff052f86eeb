"""What a curve does beyond what its past and a straight line tell: the innovations of an autoregression."""

from __future__ import annotations

import numpy as np

# Innovations below the first share of the deviation of the curve, or the second of its largest value, are rounding.
_ROUNDING = 1e-9, 1e-14


def innovations(curves: np.ndarray) -> np.ndarray:  # (B, E) -> (B, E)
    """The residuals of each row from a line in time plus an autoregression; NaN at the first epochs, which it reads.

    The order is 0 to the least of 16 and E / 4, the one with the least AIC for the row. A row whose future follows
    from its past to rounding, such as a constant, has zeros only. O(B E) time for each order.
    """
    n_rows, n_epochs = curves.shape
    highest = max_order(n_epochs)
    shared = [_residuals(curves, order, skip=highest) for order in range(highest + 1)]
    order = np.argmin([_aic(residuals, i) for i, residuals in enumerate(shared)], axis=0)
    result = np.full((n_rows, n_epochs), np.nan)
    for i in np.unique(order):
        rows = order == i
        result[rows, i:] = _residuals(curves[rows], i, skip=i)
    least = np.maximum(_ROUNDING[0] * curves.std(1), _ROUNDING[1] * np.abs(curves).max(1))
    noise = np.nanstd(result, axis=1, keepdims=True) <= least[:, None]
    return np.where(noise, 0, result)


def max_order(n_epochs: int) -> int:
    """The highest order of the autoregression of a curve."""
    return min(16, n_epochs // 4)


def without_line(rows: np.ndarray) -> np.ndarray:  # (B, n)
    """The residuals of each row from its least squares line."""
    basis = np.linalg.qr(_line(rows.shape[1]).T).Q
    return rows - (rows @ basis) @ basis.T


def _line(n: int) -> np.ndarray:  # (2, n)
    return np.stack([np.ones(n), np.linspace(-1, 1, n)])


def _residuals(curves: np.ndarray, order: int, *, skip: int) -> np.ndarray:  # (B, E - skip)
    n_rows, n_epochs = curves.shape
    centered = curves - curves.mean(1, keepdims=True)
    line = _line(n_epochs - skip)
    past = [centered[:, None, skip - lag : n_epochs - lag] for lag in range(1, order + 1)]
    columns = np.concatenate([np.broadcast_to(line, (n_rows, *line.shape)), *past], axis=1)
    basis = np.linalg.qr(columns.swapaxes(1, 2)).Q  # (B, E - skip, order + 2)
    values = centered[:, skip:]
    return values - (basis @ (basis.swapaxes(1, 2) @ values[..., None]))[..., 0]


def _aic(residuals: np.ndarray, order: int) -> np.ndarray:  # (B,)
    tiny = np.finfo(np.float64).tiny
    return residuals.shape[1] * np.log(np.square(residuals).mean(1) + tiny) + 2.0 * order
