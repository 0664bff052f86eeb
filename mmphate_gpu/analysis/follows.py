"""Whether a curve over epochs follows a metric, or the metric the curve."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError, check_choice, check_number
from ..runtime.isolation import isolated
from .curves import as_curves
from .false_discovery import corrected
from .innovations import innovations, max_order, without_line
from .result import Result, long_columns
from .seeds import drawn_seed, seeded

# Correlations that differ by less are equal.
_TIE = 1e-12
_MIN_PAIRS = 5
_Form = Callable[[np.ndarray], np.ndarray]
NULLS = ("innovations", "shifts")


@dataclass(frozen=True, eq=False, repr=False)
class Follows(Result):
    """Correlations of T curves with a metric at k lags, with p-values; made by `follows`.

    Attributes
    ----------
    lag : (k,)
        At a positive lag the curve comes after the metric, in recorded epochs; at a negative lag before it.
    timestep : (T,) or None
        The labels of the curves along ``settings["axis"]``, such as "timestep" or "unit", or the numbers of curves
        along several axes; None for a single curve, with T = 1.
    pearson, spearman : (T, k)
        The correlations of the curves themselves; NaN for a constant curve.
    tested_pearson, tested_spearman : (T, k)
        The correlations that are tested: those of the innovations with ``null="innovations"``.
    pearson_p, spearman_p : (T, k)
        The share of the null draws whose correlation is at least as large at the same lag, regardless of sign.
    pearson_q, spearman_q : (T, k)
        The same with the largest correlation over all lags, then Benjamini-Hochberg over the T curves.
    changes : Follows or None
        The same for first differences: whether changes coincide with changes.
    metric : str
        The name of the metric.
    settings : mapping
        What was asked, the epochs that were used, and the least possible p.
    """

    lag: np.ndarray
    timestep: np.ndarray | None
    pearson: np.ndarray
    spearman: np.ndarray
    tested_pearson: np.ndarray
    tested_spearman: np.ndarray
    pearson_p: np.ndarray
    spearman_p: np.ndarray
    pearson_q: np.ndarray
    spearman_q: np.ndarray
    changes: Follows | None
    metric: str
    settings: Mapping[str, Any]

    def _columns(self) -> dict[str, np.ndarray]:
        names = ("pearson", "spearman", "pearson_p", "spearman_p", "pearson_q", "spearman_q")
        axes = {} if self.timestep is None else {self.settings["axis"]: self.timestep}
        return long_columns(axes | {"lag": self.lag}, **{name: getattr(self, name) for name in names})

    def _summary(self) -> str:
        q = np.where(np.isfinite(self.pearson_q), self.pearson_q, np.inf)
        t, k = np.unravel_index(np.argmin(q), q.shape)
        if not np.isfinite(q[t, k]):
            return f"{self.metric}: no curve that can be tested"
        best = f"lag {self.lag[k]}, Pearson {self.pearson[t, k]:.2f}, q {q[t, k]:.2g}"
        if self.timestep is None:
            return f"{self.metric}: {best}"
        significant = f"{(q.min(1) <= 0.05).sum()} of {len(q)} curves have q <= 0.05"
        return f"{self.metric}: {significant}; best {self.timestep[t]}: {best}"


@isolated()
def follows(
    curve: Any,
    metric: Any,
    max_lag: int = 5,
    *,
    trace: Any = None,
    null: str = "innovations",
    n_permutations: int | None = None,
    random_state: int | None = None,
) -> Follows:
    """Correlate curves over epochs with a metric at every lag, with p-values for curves that are autocorrelated.

    This is the library's own definition. Most curves of a training drift and then settle, so two curves that have
    nothing in common are correlated, and a plain permutation calls this significant.

    The default null tests *innovations*, as Haugh did (J. Am. Stat. Assoc. 71, 1976): of each curve and of the metric,
    the residual from a straight line in time and an autoregression whose order AIC chooses. They are not
    autocorrelated, so they are permuted; correlations by chance are widened for the degrees of freedom that the
    autoregression takes. A significant lag says that the curve departs from its past when the metric does. It is no
    evidence that both settle at the same time, because any two curves of one training do so. The same relation in
    trainings with other seeds is evidence.

    Innovations are compared from the highest order that AIC may choose, a quarter of the epochs. With 51 epochs and
    nothing in common, q was below 5 % at some lag in at most 4 of 100 pairs (docs/decisions.md). A curve that repeats a
    random walk an epoch later, in noise of half a step, had such a q in 97 of 100 pairs of 51 epochs, in 62 of 30
    epochs, and in 27 of 20 epochs.

    With ``null="shifts"``, the metric itself is shifted circularly by every number of epochs. The least p is then
    1 / E, and no q falls below (2 ``max_lag`` + 1) / E, because that many shifts only move the lag. Curves with a trend
    break this null.

    Parameters
    ----------
    curve : (E,) or (E, T) array, or an object with named axes such as an `Entropy`
        Axes other than the epochs are tested one by one. A curve without any value gets NaN.
    metric : (E,) array or str
        The metric, or its name in ``trace.metrics``. Epochs where it or a curve has no value are left out, and their
        neighbors count as consecutive.
    max_lag : int
        Lags from ``-max_lag`` to ``max_lag`` recorded epochs.
    trace : Trace, optional
        Where a name is looked up.
    null : "innovations" or "shifts"
        What is permuted, or shifted, to see what chance gives.
    n_permutations : int, optional
        Permutations of the innovations. The least p is 1 / (``n_permutations`` + 1). Default: 50 for each curve, so
        that one significant curve of T can be seen, but at least 999 and at most 9,999.
    random_state : int, optional
        The seed of the permutations.

    Returns
    -------
    Follows
        Its ``changes`` repeat the test on first differences.

    Raises
    ------
    InputError, InputTypeError
        A constant metric, a name that the trace does not have, sizes that do not fit, or too few epochs for the lags.

    Notes
    -----
    O(n_permutations T E max_lag) time, and 8 n_permutations T bytes. Deterministic with a seed.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(size=(2, 60))
    >>> accuracy = noise[0].cumsum()
    >>> entropy = np.roll(accuracy, 2) + 0.1 * noise[1]
    >>> follows(entropy, accuracy, random_state=0)
    Follows(metric: lag 2, Pearson 1.00, q 0.001)
    """
    check_number("max_lag", max_lag, low=0, integer=True)
    check_choice("null", null, NULLS)
    curves = as_curves("curve", curve)
    if n_permutations is None:
        n_permutations = min(max(999, 50 * len(curves.values)), 9999)
    check_number("n_permutations", n_permutations, low=1, integer=True)
    values, name = _metric(metric, trace, len(curves.epoch))
    filled = np.isfinite(curves.values).any(1)
    taken = np.isfinite(values) & np.isfinite(curves.values[filled]).all(0) & filled.any()
    rows, values = curves.values[:, taken], values[taken]
    _check_enough(values, max_lag, null)
    lag = np.arange(-max_lag, max_lag + 1)
    seed = drawn_seed(random_state)
    test = _Test(lag, null, n_permutations, seeded(seed))
    same: dict[str, Any] = {"lag": lag, "timestep": curves.row, "metric": name}
    settings = {"null": null, "n_permutations": n_permutations, "random_state": seed}
    used = {"axis": curves.rows_are or None, "epochs": curves.epoch[taken]}

    def result(rows: np.ndarray, values: np.ndarray, changes: Follows | None) -> Follows:
        least = {"least_p": test.least_p(len(values))}
        return Follows(**same, **test.results(rows, values), changes=changes, settings=settings | used | least)

    return result(rows, values, result(np.diff(rows), np.diff(values), None))


def _metric(metric: Any, trace: Any, n_epochs: int) -> tuple[np.ndarray, str]:
    """The values of the metric (E,) and its name."""
    name = metric if isinstance(metric, str) else "metric"
    if isinstance(metric, str):
        if trace is None:
            raise InputError(f"metric={metric!r} is a name without trace; accepted: an (E,) array, or also trace=")
        if not getattr(trace, "metrics", None):
            raise InputError(f"metric={metric!r} is a name, and the trace has no metrics; accepted: an (E,) array")
        check_choice("metric", metric, trace.metrics)
        metric = trace.metrics[name]
    values = as_curves("metric", metric).values
    if values.shape != (1, n_epochs):
        shape = values.T.shape if len(values) > 1 else values.shape[1:]
        raise InputError(f"metric has shape {shape}; accepted: ({n_epochs},), a value for each epoch of curve")
    return values[0], name


def _check_enough(values: np.ndarray, max_lag: int, null: str) -> None:
    if len(values) and np.ptp(values) == 0:
        raise InputError(f"metric is {values[0]:g} at every epoch that is used; accepted: a metric that varies")
    first = max_order(len(values)) if null == "innovations" else 0
    needed = max_lag + first + _MIN_PAIRS + 1
    if len(values) < needed:
        raise InputError(
            f"curve and metric share {len(values)} epochs with values; accepted: {needed} or more for max_lag={max_lag}"
        )


@dataclass(frozen=True)
class _Test:
    """The correlations at every lag, and the null that they are compared with."""

    lags: np.ndarray
    null: str
    n_permutations: int
    generator: np.random.Generator

    def results(self, rows: np.ndarray, metric: np.ndarray) -> dict[str, Any]:
        """All arrays (T, k) of `Follows` for curves (T, n) and a metric (n,)."""
        tested, reference, widening = self._tested(rows, metric)
        draws = np.concatenate([reference[None], self._draws(reference)])
        result = {}
        for name, form in (("pearson", _unchanged), ("spearman", _ranks)):
            result[name] = np.stack([pairs[0] for pairs in self._at_lags(rows, metric[None], form)], axis=1)
            chances = self._chances(tested, draws, form, widening)
            result[f"tested_{name}"], result[f"{name}_p"], result[f"{name}_q"] = chances
        # The ranks of numbers that differ by rounding only say nothing.
        result["spearman"][np.isnan(result["pearson"])] = np.nan
        return result

    def least_p(self, n_epochs: int) -> float:
        return 1 / (n_epochs if self.null == "shifts" else self.n_permutations + 1)

    def _tested(self, rows: np.ndarray, metric: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The curves (T, n) and the metric (n,) that are tested, and the factors (T,) of the correlations by chance.

        Innovations have fewer degrees of freedom than permuted innovations, by the order of the autoregression.
        """
        if self.null == "shifts":
            return rows, metric, np.ones(len(rows))
        filled = np.isfinite(rows).all(1)
        values = np.full((len(rows) + 1, len(metric)), np.nan)
        values[:-1][filled] = innovations(rows[filled])
        values[-1] = innovations(metric[None])[0]
        order = np.isnan(values).sum(1)
        values = without_line(values[:, max_order(len(metric)) :])  # so that curves do not depend on one another
        n = values.shape[1]
        larger = np.minimum(np.maximum(order[:-1], order[-1]), n - 1)
        return values[:-1], values[-1], np.sqrt(n / (n - larger))

    def _draws(self, metric: np.ndarray) -> np.ndarray:  # (B, n)
        """The metric under the null, in rows."""
        if self.null == "shifts":
            return np.stack([np.roll(metric, shift) for shift in range(1, len(metric))])
        permuted = self.generator.permuted(np.tile(metric, (self.n_permutations, 1)), axis=1)
        return without_line(permuted)  # so that they have no more degrees of freedom than the metric

    def _at_lags(self, rows: np.ndarray, metrics: np.ndarray, form: _Form) -> Iterator[np.ndarray]:  # (B, T) each
        for lag in self.lags:
            x, y = _windows(rows, metrics, lag)
            yield _normed(form(y)) @ _normed(form(x)).T

    def _chances(
        self, rows: np.ndarray, draws: np.ndarray, form: _Form, widening: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The correlations with the first of ``draws``, p at each lag, and q over all lags and curves, (T, k) each.

        The first of ``draws`` counts as a draw, so no p is 0.
        """
        observed, p, largest = [], [], np.zeros((len(draws), len(rows)))
        for pairs in self._at_lags(rows, draws, form):
            chance = np.abs(np.nan_to_num(pairs)) * widening
            observed.append(pairs[0])
            p.append((chance >= np.abs(pairs[0]) - _TIE).mean(0))
            largest = np.maximum(largest, chance)
        known = np.isfinite(observed)
        adjusted = [(largest >= np.abs(column) - _TIE).mean(0) for column in observed]
        q = [corrected(chances) for chances in np.where(known, adjusted, np.nan)]
        return np.array(observed).T, np.where(known, p, np.nan).T, np.array(q).T


def _windows(rows: np.ndarray, metric: np.ndarray, lag: int) -> tuple[np.ndarray, np.ndarray]:
    """The epochs of curves (T, n) and of metrics (B, n) that are ``lag`` apart."""
    n = rows.shape[1]
    return rows[:, max(lag, 0) : n + min(lag, 0)], metric[:, max(-lag, 0) : n - max(lag, 0)]


def _normed(rows: np.ndarray) -> np.ndarray:
    """Rows whose products are correlations; NaN for rows that do not vary."""
    centered = rows - rows.mean(1, keepdims=True)
    norm = np.linalg.norm(centered, axis=1, keepdims=True)
    rounding = np.abs(rows).max(1, keepdims=True) * 1e-14 * np.sqrt(rows.shape[1])
    return np.divide(centered, norm, out=np.full(rows.shape, np.nan), where=norm > rounding)


def _unchanged(rows: np.ndarray) -> np.ndarray:
    return rows


def _ranks(rows: np.ndarray) -> np.ndarray:
    """The ranks within each row, ties averaged; rows of NaN stay."""
    from scipy.stats import rankdata

    return rankdata(rows, axis=1, nan_policy="propagate")
