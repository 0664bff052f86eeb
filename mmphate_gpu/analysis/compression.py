"""Whether a phase of compression keeps or loses what the states say of the labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError, check_choice, check_number
from ..runtime.isolation import isolated
from .curves import MIN_EPOCHS, Curves, as_curves, epoch_places
from .phases import Phases, phases
from .resampling import slope_intervals
from .result import Result
from .seeds import drawn_seed

# Where the results of `linear_probe` and `label_information` have their curves, most trusted first.
MEASURES = ("score", "bound", "mean", "dsmi")


@dataclass(frozen=True, eq=False, repr=False)
class CompressionKinds(Result):
    """Every phase of compression, and how the label information changes in it; made by `compression_kind`.

    Attributes
    ----------
    start, stop : (k,)
        The labels of the first and the last epoch of each phase of compression, both inclusive.
    change, low, high : (k,)
        The change of the information from start to stop, by its least squares line, with its interval; NaN if fewer
        than 3 epochs of the phase have information.
    verdict : (k,)
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
    ``-margin``. It is *loss* if the information falls: the interval is below zero. Else it is *undecided*, as where the
    interval is wide, or where fewer than 3 epochs have a value. A verdict holds for these labels only.

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
        Options of the interval, which comes from resampled residuals as in `phases`. All epochs have the same samples,
        so their effect on every epoch cancels in the change. The interval does not say how other samples would differ.
        Noise that is autocorrelated may look like a fall in a short phase: in 30 epochs of noise around a constant, the
        verdict was "loss" in 3 of 100 phases, in 4 with autocorrelation 0.5, and in 14 with 0.9 (200 phases each).

    Returns
    -------
    CompressionKinds

    Raises
    ------
    InputError, InputTypeError
        Information of another number of epochs, or with other labels of them, or a setting out of range.

    Notes
    -----
    O(n_bootstrap E) time for each phase, beside that of `phases`. Deterministic with a seed.

    Examples
    --------
    >>> entropy = np.concatenate([np.linspace(1, 3, 20), np.linspace(3, 2, 30)])
    >>> compression_kind(entropy, np.linspace(0.2, 0.9, 50), random_state=0)
    CompressionKinds(useful 20 to 49: array +0.414 [+0.414, +0.414])
    """
    check_number("margin", margin, low=0)
    options: dict[str, Any] = {"n_bootstrap": n_bootstrap, "level": level, "random_state": drawn_seed(random_state)}
    cut = entropy if isinstance(entropy, Phases) else phases(entropy, **options)
    values, name = _information(information, measure, cut.epoch)
    chosen = np.flatnonzero(cut.trend == "compression")
    spans = [slice(cut.start_index[i], cut.stop_index[i] + 1) for i in chosen]
    changes = np.array([_change(values, cut.epoch, span, **options) for span in spans])
    change, low, high = changes.reshape(-1, 3).T
    settings = {"margin": margin, **options}
    verdict = np.where(low >= -margin, "useful", np.where(high < 0, "loss", "undecided"))
    return CompressionKinds(cut.start[chosen], cut.stop[chosen], change, low, high, verdict, name, settings)


def _information(information: Any, measure: str | None, epoch: np.ndarray) -> tuple[np.ndarray, str]:
    """The information of every epoch (E,), and its name."""
    names = [name for name in MEASURES if isinstance(getattr(information, name, None), np.ndarray)]
    if measure is not None and not names:
        raise InputError(f"measure={measure!r} is unknown, since information has no fields; accepted: None")
    if measure is not None:
        check_choice("measure", measure, names)
    name = measure or (names[0] if names else "array")
    values = as_curves("information", getattr(information, name) if names else information).mean
    labels = information.epoch if names else getattr(information, "coords", {}).get("epoch")
    if len(values) != len(epoch):
        raise InputError(f"information has {len(values)} epochs; accepted: {len(epoch)}, as the entropy")
    if labels is not None and not np.array_equal(labels, epoch):
        raise InputError("information has other epochs than the entropy; accepted: results of one trace")
    return values, name


def _change(values: np.ndarray, epoch: np.ndarray, span: slice, **options: Any) -> tuple[float, float, float]:
    """The change of ``values`` over the epochs of ``span`` by their least squares line, and its interval."""
    x, curve = epoch_places(epoch)[0][span], Curves(values[None, span], epoch[span], None, "")
    count = int(np.isfinite(curve.mean).sum())
    if count < MIN_EPOCHS:
        return math.nan, math.nan, math.nan
    slopes = slope_intervals(x, curve, np.array([0, count]), **options)
    change, low, high = (float(limit[0] * (x[-1] - x[0])) for limit in (slopes.slope, slopes.low, slopes.high))
    return change, low, high
