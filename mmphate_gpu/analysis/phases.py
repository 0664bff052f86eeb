"""Phases of a curve over epochs: growth, compression and plateau."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import check_number
from ..runtime.isolation import isolated
from .curves import as_curves, epoch_places, with_replicates
from .resampling import slope_intervals
from .result import Result
from .seeds import drawn_seed
from .segments import supported_edges


@dataclass(frozen=True, eq=False, repr=False)
class Phases(Result):
    """The k phases of a curve of E epochs, in order; made by `phases`.

    Attributes
    ----------
    curve, epoch : (E,)
        The curve, and the labels of its epochs.
    fitted : (E,)
        The lines of the phases; NaN at epochs without a value.
    start, stop : (k,)
        The labels of the first and the last epoch of each phase, both inclusive.
    start_index, stop_index : (k,)
        The indices of the same epochs.
    slope, low, high : (k,)
        The slope and its interval, in units of the curve per ``settings["per"]``.
    trend : (k,)
        "growth" if the interval is above zero, "compression" if it is below, "plateau" if it contains zero.
    settings : mapping
        What was asked, how the interval was made (``"bootstrap"``), the unit of the slopes (``"per"``: "epoch", "day"
        or "snapshot"), the autocorrelation of the residuals, and how many epochs were left out.
    """

    curve: np.ndarray
    epoch: np.ndarray
    fitted: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    start_index: np.ndarray
    stop_index: np.ndarray
    slope: np.ndarray
    low: np.ndarray
    high: np.ndarray
    trend: np.ndarray
    settings: Mapping[str, Any]

    def _columns(self) -> dict[str, np.ndarray]:
        return {name: getattr(self, name) for name in ("start", "stop", "slope", "low", "high", "trend")}

    def _summary(self) -> str:
        spans = zip(self.trend, self.start, self.stop, strict=True)
        return ", ".join(f"{trend} {start} to {stop}" for trend, start, stop in spans)


@isolated()
def phases(
    curve: Any,
    max_phases: int = 5,
    *,
    epoch: Any = None,
    replicates: Any = None,
    min_length: int = 3,
    penalty: float = 2.0,
    n_bootstrap: int = 1000,
    level: float = 0.95,
    random_state: int | None = None,
) -> Phases:
    """Cut a curve over epochs into phases, each a straight line, and say which of them rise or fall.

    This is the library's own definition; the papers name phases without a rule. The lines are those with the least
    squared residuals for their number (exact; they need not meet). The number minimizes
    ``n log(innovation variance) - log(1 - rho^2) + penalty (3 k + 1) log n``: BIC, with 2 parameters a line, k - 1
    breaks, the variance, and the autocorrelation rho of the residuals.

    Residuals of training curves are autocorrelated, and BIC without rho then makes a phase of every fluctuation. With
    rho and the default penalty, a straight line of 51 epochs in autocorrelated noise was cut in at most 6 of 100 cases
    (docs/decisions.md). A penalty of 1 is BIC itself, and cuts more often. Phases that change the curve by less than
    its noise are missed. rho is that of the best number of lines up to ``2 max_phases``, so that a curve with too many
    phases does not pass for autocorrelated noise.

    Parameters
    ----------
    curve : (E,) array, (E, T) array, or an object with axes that have names, such as an `Entropy`
        Axes other than the epochs are averaged. Epochs without a value (NaN) are left out.
    max_phases : int
        The largest number k of phases.
    epoch : (E,), optional
        Labels in place of those of ``curve``. Numbers and dates are places in time; with other labels, snapshots are
        counted.
    replicates : (r, E) array, optional
        Independent curves whose mean is ``curve``, such as those of units or of seeds; 3 or more are resampled.
    min_length : int
        The least number of epochs of a phase, 2 or more.
    penalty : float
        The factor of the parameters in the criterion.
    n_bootstrap : int
        Number of resamples for the interval: of ``replicates``, or of units if the curve is their mean. Otherwise, the
        replicates of an `Entropy` are taken. Without any of them, the innovations of the residuals are resampled and
        made autocorrelated again; time steps are not resampled, because they are not independent. The interval takes
        the breaks as known.
    level : float
        The share of resamples within the interval, from 0.5 to 0.9999.
    random_state : int, optional
        The seed of the resamples.

    Returns
    -------
    Phases

    Raises
    ------
    InputError, InputTypeError
        Fewer than 3 epochs with a value, no axis of epochs, a shape that does not fit, or a setting out of range.

    Notes
    -----
    O(E^2 max_phases + n_bootstrap E max_phases) time on the CPU. Deterministic with a seed.

    Examples
    --------
    >>> curve = np.concatenate([np.linspace(1, 3, 20), np.linspace(3, 2, 30)])
    >>> phases(curve, random_state=0)
    Phases(growth 0 to 19, compression 20 to 49)
    """
    check_number("max_phases", max_phases, low=1, integer=True)
    check_number("min_length", min_length, low=2, integer=True)
    check_number("penalty", penalty, low=0)
    options: dict[str, Any] = {"n_bootstrap": n_bootstrap, "level": level, "random_state": drawn_seed(random_state)}
    settings = {"max_phases": max_phases, "min_length": min_length, "penalty": penalty, **options}
    rows = with_replicates(as_curves("curve", curve, epoch), replicates)
    mean, taken = rows.mean, rows.taken
    x, per = epoch_places(rows.epoch)
    shortest = min(min_length, len(taken))
    edges = supported_edges(x[taken], mean[taken], max_lines=max_phases, min_length=shortest, penalty=penalty)
    slopes = slope_intervals(x, rows, edges, **options)
    start, stop = taken[edges[:-1]], taken[edges[1:] - 1]
    return Phases(
        curve=mean,
        epoch=rows.epoch,
        fitted=slopes.fitted,
        start=rows.epoch[start],
        stop=rows.epoch[stop],
        start_index=start,
        stop_index=stop,
        slope=slopes.slope,
        low=slopes.low,
        high=slopes.high,
        trend=_trend(slopes.low, slopes.high),
        settings={**settings, **slopes.settings, "per": per, "n_left_out": len(mean) - len(taken)},
    )


def _trend(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.where(low > 0, "growth", np.where(high < 0, "compression", "plateau"))
