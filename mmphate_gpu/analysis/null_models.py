"""Is the structure of a picture that of the network? The same picture of shuffled traces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import InputError, InputTypeError, check_choice, check_number
from ..runtime.isolation import isolated
from ..stages import Callback
from ..trace import Trace, as_trace
from .picture_metrics import METRICS, Metric, Metrics, checked_metrics
from .progress import progress
from .refit import refitted, study_estimator
from .result import Result
from .seeds import drawn_seed, seeds_of
from .shuffles import NULLS, null_fault, shuffled

if TYPE_CHECKING:
    from ..estimator import MMPHATE


@dataclass(frozen=True, eq=False, repr=False)
class NullModels(Result):
    """Metrics of the picture of a trace and of the pictures of its nulls; made by `null_models`.

    Attributes
    ----------
    kinds : names of the nulls.
    metrics : names of the metrics.
    data : (n_metrics,) metrics of the picture of the trace.
    null : (n_kinds, repeats, n_metrics) metrics of the pictures of the nulls.
    p : (n_kinds, n_metrics) two-sided p-values.
    settings : what was asked.
    """

    kinds: list[str]
    metrics: list[str]
    data: np.ndarray
    null: np.ndarray
    p: np.ndarray
    settings: Mapping[str, Any]

    def _columns(self) -> dict[str, np.ndarray]:
        low, median, high = np.quantile(self.null, [0.025, 0.5, 0.975], axis=1)
        return {
            "null": np.repeat(self.kinds, len(self.metrics)),
            "metric": np.tile(self.metrics, len(self.kinds)),
            "data": np.tile(self.data, len(self.kinds)),
            "median": median.ravel(),
            "low": low.ravel(),
            "high": high.ravel(),
            "p": self.p.ravel(),
        }

    def _summary(self) -> str:
        least = 1 / (1 + self.null.shape[1])
        counts = [f"{name} {int((row <= least * 1.001).sum())}" for name, row in zip(self.kinds, self.p, strict=True)]
        return f"of {len(self.metrics)} metrics, outside all {self.null.shape[1]} nulls: {', '.join(counts)}"


@isolated()
def null_models(
    trace: Any,
    kinds: Sequence[str] = ("units", "timesteps", "epochs", "phase"),
    *,
    metrics: Sequence[str] | Mapping[str, Metric] = METRICS,
    repeats: int = 10,
    k: int = 10,
    estimator: MMPHATE | None = None,
    random_state: int | None = None,
    verbose: int = 0,
    callback: Callback | None = None,
) -> NullModels:
    """Embed shuffled traces with the settings of the data, and compare the pictures by the same metrics.

    A metric says nothing about the network if the nulls have equal values. The nulls, and the p-value, are this
    library's own definitions:

    * "units" permutes the units of each slice. It keeps the states of each slice, and destroys the identity of units
      from slice to slice.
    * "timesteps" permutes the time steps of each unit in each epoch. It keeps the states that a unit has in an epoch,
      and destroys their order and which states of the units occur together.
    * "epochs" permutes the epochs of each unit as a whole. It keeps every sequence within an epoch, and destroys the
      course of training and which epochs of the units occur together.
    * "phase" adds independent random angles to the Fourier phases of each series (of a unit and a sample): along the
      time steps of each epoch, or along the epochs if there are fewer than 4 time steps. It keeps the mean and the
      power spectrum of every series, and destroys correlations between series and nonlinear structure.

    The method does not use the order of slices. A permutation that all units share would give the same picture with
    other labels, so "timesteps" and "epochs" permute each unit by itself.

    ``p`` is two-sided: (1 + the number of nulls that are at least as far from the median of data and nulls as the data)
    / (1 + repeats). It is never below 1 / (1 + repeats), so p = 0.05 needs 19 repeats. It is not corrected for the
    number of metrics.

    Parameters
    ----------
    trace : anything `as_trace` accepts
        In memory (`Trace.load`), because a null is a copy. "phase" needs a trace without a mask.
    kinds : sequence of {"units", "timesteps", "epochs", "phase"}
        By default all that the trace can have: "units" needs several units, "timesteps" several time steps, and so on.
    metrics : sequence of names, or a mapping from names to functions (trace, embedding) -> number
        "intra", "inter": preservation of ``k`` neighbors, or of half of the other units or slices if these are fewer,
        because every picture keeps all of them; NaN for two. "trustworthiness", "continuity": inter, for the same k.
        "geodesic_spearman", "stress": see `trust`. These six are measured on 200 random slices or 1,000 random nodes.
        "entropy": the mean intra-step entropy in bits, by "kde". "spread": the variance within epochs as a share of the
        total variance; both have ddof 1, so it may be a little above 1. "silhouette": that of the best
        communities of units.
    repeats : int
        Number of draws of each null.
    k : int
        Number of neighbors.
    estimator : MMPHATE, optional
        All fits have its settings; by default `MMPHATE` with 1,000 landmarks.
    random_state : int, optional
        Seed of the nulls and of the fits.
    verbose : int or bool
        Whether to draw a progress bar on stderr.
    callback : callable(stage, done, total), optional
        Called after each fit.

    Raises
    ------
    InputError, InputTypeError
        An unknown name, a null that the trace cannot have, or a trace that is read block by block.

    Notes
    -----
    1 + repeats * len(kinds) fits. One null trace is in memory at a time. Deterministic with a seed.

    Examples
    --------
    >>> from mmphate_gpu.datasets import random_walk
    >>> from mmphate_gpu import MMPHATE
    >>> small = MMPHATE(n_landmark=40)
    >>> walk = random_walk(30, 4, 10)
    >>> null_models(walk, ("units",), metrics=("inter",), repeats=2, estimator=small, random_state=0).null.shape
    (1, 2, 1)
    """
    trace = _in_memory(as_trace(trace))
    wanted = _checked_kinds(kinds, trace)
    check_number("repeats", repeats, low=1, integer=True)
    chosen, model = checked_metrics(metrics, k), study_estimator(estimator)
    random_state = drawn_seed(random_state)
    settings = {"repeats": repeats, "k": k, "random_state": random_state, "estimator": repr(model)}
    seed, *seeds = seeds_of(random_state, 1 + repeats * len(wanted))
    with progress(1 + len(seeds), verbose, callback, "null models") as advance:
        data = _measured(trace, model, chosen, seed)
        advance()
        null = []
        for name, null_seed in zip(np.repeat(wanted, repeats), seeds, strict=True):
            null.append(_measured(shuffled(trace, name, np.random.default_rng(null_seed)), model, chosen, null_seed))
            advance()
    table = np.reshape(null, (len(wanted), repeats, len(data)))
    return NullModels(wanted, chosen.names, data, table, two_sided_p(data, table), settings)


def _in_memory(trace: Trace) -> Trace:
    if not isinstance(trace.data, torch.Tensor):
        raise InputError("trace is read block by block; accepted: a trace in memory, such as Trace.load returns")
    return trace


def _checked_kinds(kinds: Any, trace: Trace) -> list[str]:
    if not isinstance(kinds, Iterable):
        raise InputTypeError(f"kinds={kinds!r}; accepted: a sequence of names")
    names = [kinds] if isinstance(kinds, str) else list(kinds)
    faults = {check_choice("kinds", name, NULLS): null_fault(trace, name) for name in names}
    impossible = [name for name, fault in faults.items() if fault is not None]
    possible = [name for name in faults if name not in impossible]
    if not possible or (impossible and names != list(NULLS)):
        accepted = faults[impossible[0]] if impossible else f"accepted: {', '.join(NULLS)}"
        raise InputError(f"kinds={names!r}: {accepted}")
    return possible


def _measured(trace: Trace, estimator: MMPHATE, metrics: Metrics, seed: int) -> np.ndarray:  # (n_metrics,)
    return metrics(trace, refitted(trace, estimator, seed), seed)


def two_sided_p(data: np.ndarray, null: np.ndarray) -> np.ndarray:  # (n,), (k, r, n) -> (k, n)
    """(1 + the number of nulls that are at least as far from the median of data and nulls as the data) / (1 + r).

    The median is that of all r + 1 numbers, so that data and nulls that differ by chance only are interchangeable.
    NaN where a number is NaN.
    """
    pooled = np.concatenate([null, np.broadcast_to(data, (len(null), 1, len(data)))], axis=1)
    away = np.abs(pooled - np.median(pooled, axis=1, keepdims=True))
    p = (away >= away[:, -1:]).mean(1)
    return np.where(np.isnan(pooled).any(1), np.nan, p)
