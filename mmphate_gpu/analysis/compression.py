"""Whether a phase of compression keeps or loses what the states say of the labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError, check_choice, check_number
from ..runtime.isolation import isolated
from .curves import Curves, as_curves, positions
from .phases import Phases, phases
from .resampling import slope_intervals
from .result import Result

# Where the results of `linear_probe` and `label_information` have their curves, most trusted first.
MEASURES = ("score", "bound", "mean", "dsmi")


@dataclass(frozen=True, eq=False, repr=False)
class CompressionKinds(Result):
    """Every phase of compression, and what becomes of the label information in it.

    Attributes
    ----------
    start, stop : (K,)
        The labels of the first and the last epoch of each phase of compression, both inclusive.
    change, low, high : (K,)
        The change of the information from start to stop, by its least squares line, with its interval.
    verdict : (K,)
        "useful" if ``low`` is at least ``-margin``, else "loss" if ``high`` is below 0, else "undecided".
    measure : str
        What the information is: "score" of a probe, "bound", "mean" or "dsmi" of label information, or "array".
    settings : mapping
        The margin, and how the interval was made.
    """

    start: np.ndarray
    stop: np.ndarray
    change: np.ndarray
    low: np.ndarray
    high: np.ndarray
    verdict: np.ndarray
    measure: str
    settings: Mapping[str, Any]

    def _columns(self) -> dict[str, np.ndarray]:
        return {name: getattr(self, name) for name in ("start", "stop", "change", "low", "high", "verdict")}

    def _summary(self) -> str:
        if not len(self.start):
            return "no phase of compression"
        rows = zip(self.verdict, self.start, self.stop, self.change, self.low, self.high, strict=True)
        return "; ".join(
            f"{verdict} {start} to {stop}: {self.measure} {change:+.3g} [{low:+.3g}, {high:+.3g}]"
            for verdict, start, stop, change, low, high in rows
        )


@isolated()
def compression_kind(
    entropy: Any,
    information: Any,
    *,
    measure: str | None = None,
    margin: float = 0.05,
    n_bootstrap: int = 1000,
    level: float = 0.95,
    random_state: int | None = None,
) -> CompressionKinds:
    """Say of each phase of compression whether it is useful compression or mere loss.

    This is the library's own definition. Within the phase, a least squares line through the information gives its
    change from start to stop. Compression is *useful* if the information is kept or rises: its interval is above
    ``-margin``. It is *loss* if the information falls: the interval is below zero. All else is *undecided*, such as an
    interval that is wider than both. Information that is kept says nothing of other labels.

    Parameters
    ----------
    entropy : Phases, or anything that `phases` accepts
        The phases, or the curve to cut with the defaults of `phases`.
    information : (E,) or (E, T) array, `LinearProbe`, `LabelInformation`, or an object with named axes
        What the states of each epoch say of the labels; other axes are averaged.
    measure : str, optional
        The field of a `LinearProbe` or `LabelInformation` to read: "score", "bound", "mean" or "dsmi". Default: the
        first of these that it has, so balanced accuracy, and the lower bound of the whole state in bits.
    margin : float
        The largest fall that still counts as kept, in the unit of the information: 0.05 bit, or 5 points of accuracy.
    n_bootstrap, level, random_state
        The interval, from resampled residuals as in `phases`. If the information has an interval for each epoch
        (``low`` and ``high`` of a probe), its half-width is added in quadrature, with all time steps taken as
        dependent and epochs as independent. The samples of all epochs are the same, so this is cautious.

    Returns
    -------
    CompressionKinds

    Raises
    ------
    InputError, InputTypeError
        Information of another number of epochs, or without any value in a phase, or a setting out of range.

    Notes
    -----
    O(n_bootstrap E K) time beside that of `phases`. Deterministic with a seed.

    Examples
    --------
    >>> entropy = np.concatenate([np.linspace(1, 3, 20), np.linspace(3, 2, 30)])
    >>> compression_kind(entropy, np.linspace(0.2, 0.9, 50), random_state=0)
    CompressionKinds(useful 20 to 49: array +0.414 [+0.414, +0.414])
    """
    check_number("margin", margin, low=0)
    options: dict[str, Any] = {"n_bootstrap": n_bootstrap, "level": level, "random_state": random_state}
    cut = entropy if isinstance(entropy, Phases) else phases(entropy, **options)
    curve, name, error = _information(information, measure, cut.epoch)
    chosen = np.flatnonzero(cut.trend == "compression")
    spans = [np.arange(cut.start_index[i], cut.stop_index[i] + 1) for i in chosen]
    changes = np.array([_change(curve, error, span, options) for span in spans]).reshape(-1, 3)
    change, low, high = changes.T
    settings = {"margin": margin, "measured_interval": error is not None, **options}
    verdict = np.where(low >= -margin, "useful", np.where(high < 0, "loss", "undecided"))
    return CompressionKinds(cut.start[chosen], cut.stop[chosen], change, low, high, verdict, name, settings)


def _change(
    curve: Curves, error: np.ndarray | None, span: np.ndarray, options: Mapping[str, Any]
) -> tuple[float, float, float]:
    """The change of ``curve`` over the epochs ``span``, with its interval."""
    x, _ = positions(curve.epoch)
    x, part = x[span], Curves(curve.mean[None, span], curve.epoch[span], None, "")
    taken = part.taken
    slopes = slope_intervals(x, part, np.array([0, len(taken)]), **options)
    slope, low, high = (float(value[0]) * (x[-1] - x[0]) for value in (slopes.slope, slopes.low, slopes.high))
    if error is None:
        return slope, low, high
    centered = x[taken] - x[taken].mean()
    added = np.linalg.norm(centered * error[span][taken]) / (centered @ centered) * (x[-1] - x[0])
    return slope, slope - np.hypot(slope - low, added), slope + np.hypot(high - slope, added)


def _information(information: Any, measure: str | None, epoch: np.ndarray) -> tuple[Curves, str, np.ndarray | None]:
    """The curve of the information, its name, and the half-width of its interval at each epoch if it has intervals."""
    names = [name for name in MEASURES if isinstance(getattr(information, name, None), np.ndarray)]
    if measure is not None:
        check_choice("measure", measure, names)
    name = measure or (names[0] if names else "array")
    values = information if name == "array" else getattr(information, name)
    curves = as_curves("information", values, getattr(information, "epoch", None))
    if len(curves.epoch) != len(epoch):
        raise InputError(f"information has {len(curves.epoch)} epochs; accepted: {len(epoch)}, as the entropy")
    if name != "score" or not hasattr(information, "low"):
        return curves, name, None
    half = as_curves("information", (information.high - information.low) / 2).mean
    return curves, name, half
