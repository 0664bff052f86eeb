"""Intervals of the slopes of lines through the parts of a curve, by resampling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from ..errors import check_number
from .curves import Curves
from .seeds import seeded
from .segments import autocorrelation, lines, rounding, slope_weights

# Fewer rows have too few different resamples for an interval.
MIN_ROWS = 3
# Rows of these names are resampled. Time steps of one network are not independent.
INDEPENDENT = ("unit", "replicate")
# With a larger autocorrelation a curve of some 50 epochs is a random walk, which has no slope to hold.
_MOST_AUTOCORRELATED = 0.95
# The quantiles of 2.5 % of fewer resamples are too rough.
ENOUGH = 200


@dataclass(frozen=True, eq=False)
class Slopes:
    """The slope of each part with its interval, the lines, and how the interval was made."""

    slope: np.ndarray  # (k,)
    low: np.ndarray  # (k,)
    high: np.ndarray  # (k,)
    fitted: np.ndarray  # (E,), NaN at epochs without a value
    settings: Mapping[str, Any]


def slope_intervals(
    x: np.ndarray, curves: Curves, edges: np.ndarray, *, n_bootstrap: int, level: float, random_state: int | None
) -> Slopes:
    """The slopes of the mean of ``curves`` between ``edges``, which count the epochs with a value.

    Rows that are independent are resampled if there are `MIN_ROWS`. Otherwise the replicates of the curve are taken.
    Without replicates the innovations of the residuals are resampled, and pass through the autoregression of order 1
    that fits the residuals best. Rounding widens the intervals.
    """
    check_number("n_bootstrap", n_bootstrap, low=1, integer=True)
    check_number("level", level, low=0.5, high=0.9999)
    taken, generator = curves.taken, seeded(random_state)
    places, y = x[taken], curves.mean[taken]
    weights, fitted = slope_weights(places, edges), np.full(len(x), np.nan)
    fitted[taken] = lines(places, y, edges)
    rho = _autocorrelation(y - fitted[taken], len(weights))
    if curves.rows_are in INDEPENDENT and len(curves.values) >= MIN_ROWS:
        source, errors = f"{curves.rows_are}s", _row_errors(curves.values[:, taken], n_bootstrap, generator)
    elif curves.resamples is not None:
        source, errors = "replicates of the entropy", np.nan_to_num(curves.resamples[:, taken] - y)
    else:
        source = "residuals"
        errors = _residual_errors(y - fitted[taken], rho, 2 * len(weights), n_bootstrap, generator)
    slope, widening = weights @ y, rounding(y) * np.abs(weights).sum(1)
    low, high = slope + _interval(errors @ weights.T, level) + np.outer([-1, 1], widening)
    return Slopes(slope, low, high, fitted, {"bootstrap": source, "autocorrelation": rho})


def _autocorrelation(residuals: np.ndarray, n_lines: int) -> float:
    """The autocorrelation of residuals from ``n_lines`` lines, without its bias.

    A line through n points takes up some of the noise, which lowers the estimate by about (2 + 4 rho) / n.
    """
    rho = autocorrelation(residuals)
    return min(rho + n_lines * (2 + 4 * rho) / len(residuals), _MOST_AUTOCORRELATED)


def _interval(errors: np.ndarray, level: float) -> np.ndarray:  # (n, k) -> (2, k)
    """The quantiles of many errors, or those of a normal distribution with the deviation of few."""
    tails = [(1 - level) / 2, (1 + level) / 2]
    if len(errors) >= ENOUGH:
        return np.quantile(errors, tails, axis=0)
    return np.outer([NormalDist().inv_cdf(tail) for tail in tails], np.sqrt(np.square(errors).mean(0)))


def _row_errors(rows: np.ndarray, n: int, generator: np.random.Generator) -> np.ndarray:  # (n, E)
    """The means of resampled rows without the mean of all; 0 at epochs where no row of a resample has a value."""
    present = np.isfinite(rows)
    values = np.where(present, rows - np.nanmean(rows, 0), 0)
    counts = generator.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), n).astype(np.float64)
    return (counts @ values) / np.maximum(counts @ present, 1)


def _residual_errors(
    residuals: np.ndarray, rho: float, n_parameters: int, n: int, generator: np.random.Generator
) -> np.ndarray:  # (n, E)
    """Autoregressive noise with resampled innovations, scaled up for the parameters that the fit took."""
    innovations = residuals[1:] - rho * residuals[:-1]
    innovations = innovations - innovations.mean()
    innovations *= np.sqrt(len(residuals) / max(len(residuals) - n_parameters, 1))
    noise = generator.choice(innovations, (n, len(residuals)))
    noise[:, 0] /= np.sqrt(1 - rho**2)
    for i in range(1, noise.shape[1]):
        noise[:, i] += rho * noise[:, i - 1]
    return noise
