"""What a smaller recording loses: pictures of a part of the epochs, time steps, units or samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..embedding import Embedding
from ..errors import InputError, check_choice, check_number
from ..runtime.isolation import isolated
from ..stages import Callback
from ..trace import Trace, as_trace
from .picture_metrics import Metric, Metrics, checked_metrics, entropy_curve
from .progress import progress
from .refit import disparity, refitted, study_estimator
from .result import Result, long_columns
from .seeds import drawn_seed, seeds_of

if TYPE_CHECKING:
    from ..estimator import MMPHATE

AXES_OF = {"timesteps": "timestep", "epochs": "epoch", "units": "unit", "samples": "sample"}
PROCRUSTES = "procrustes"
_NODE_AXES = ("epoch", "timestep", "unit")
_EVEN = ("epoch", "timestep")  # the parts of these axes are evenly spaced


@dataclass(frozen=True, eq=False, repr=False)
class SubsampleStudy(Result):
    """Pictures of parts of a trace beside that of the whole; made by `subsample_study`.

    Attributes
    ----------
    over : the axis of which parts were taken.
    rates, sizes : (r,) sizes of the parts, as shares and as numbers.
    repeats : number of parts of each size.
    metrics : names of the metrics.
    values : (r, repeats, n_metrics) metrics of the parts.
    full : (n_metrics,) metrics of the whole.
    curves : (r, repeats, E) intra-step entropies of the parts in bits; NaN for epochs that a part lacks.
    full_curve : (E,) intra-step entropy of the whole in bits.
    epoch : (E,) labels of the epochs.
    settings : what was asked.
    """

    over: str
    rates: np.ndarray
    sizes: np.ndarray
    repeats: int
    metrics: list[str]
    values: np.ndarray
    full: np.ndarray
    curves: np.ndarray
    full_curve: np.ndarray
    epoch: np.ndarray
    settings: Mapping[str, Any]

    def _columns(self) -> dict[str, np.ndarray]:
        axes = {"size": self.sizes, "repeat": np.arange(self.repeats), "metric": np.array(self.metrics)}
        full = np.broadcast_to(self.full, self.values.shape)
        return long_columns(axes, value=self.values, full=full)

    def _summary(self) -> str:
        away = np.mean(self.values[:, :, self.metrics.index(PROCRUSTES)], axis=1)
        parts = [f"{value:.2g} with {size}" for size, value in zip(self.sizes, away, strict=True)]
        floor = self.full[self.metrics.index(PROCRUSTES)]
        text = f"Procrustes disparity to the picture of all {self.over}: {', '.join(parts)}"
        return f"{text}, {floor:.2g} with another seed"


@isolated()
def subsample_study(
    trace: Any,
    over: str = "timesteps",
    rates: Sequence[float] = (0.5, 0.25, 0.1),
    repeats: int = 5,
    *,
    sizes: Sequence[int] | None = None,
    metrics: Sequence[str] | Mapping[str, Metric] = ("intra", "inter"),
    k: int = 10,
    estimator: MMPHATE | None = None,
    random_state: int | None = None,
    verbose: int = 0,
    callback: Callback | None = None,
) -> SubsampleStudy:
    """Embed parts of a trace, and compare them with the picture of the whole: what a smaller recording loses.

    The study is this library's own definition. Time steps and epochs of a part are evenly spaced, from a random first
    one. Units and samples are random; if the trace has labels, each class has samples in proportion to its size. All
    fits of a study have one seed, so only the data differ. A part that is the whole has the same picture.

    * *procrustes* is the Procrustes disparity of the nodes that the part and the whole have in common: 0 for equal
      pictures, 1 at most. ``full`` has the disparity of a second fit of the whole with another seed. A difference as
      large may be chance.
    * The other metrics compare the picture of a part with the part. ``full`` has the metrics of the whole. A random
      picture keeps k / (n - 1) of the neighbors among n slices or units, so preservation alone rises in smaller parts.
    * *curves* are intra-step entropies (`entropy` over units, by "kde"), as means over the time steps. The estimate
      depends on the number of units, so with ``over="units"`` compare only parts of one size.

    Parameters
    ----------
    trace : anything `as_trace` accepts
        A stored trace is read block by block.
    over : {"timesteps", "epochs", "units", "samples"}
        The axis of which a part is taken.
    rates : sequence of float in (0, 1]
        Shares of the axis. Those that give equal numbers count once.
    repeats : int
        Number of parts of each size.
    sizes : sequence of int, optional
        Numbers of time steps, epochs, units or samples, in place of ``rates``.
    metrics : sequence of names, or a mapping from names to functions (trace, embedding) -> number
        The names are those of `null_models`. "procrustes" is always added.
    k : int
        Number of neighbors.
    estimator : MMPHATE, optional
        All fits have its settings; by default `MMPHATE` with 1,000 landmarks.
    random_state : int, optional
        Seed of the draws and of the fits.
    verbose : int or bool
        Whether to draw a progress bar on stderr.
    callback : callable(stage, done, total), optional
        Called after each fit.

    Raises
    ------
    InputError, InputTypeError
        An unknown axis or metric, a rate or a size out of range, or a part that leaves fewer than two slices.

    Notes
    -----
    At most 2 + repeats * len(rates) fits: equal parts are embedded once. A part is in memory while it is embedded.
    Deterministic with a seed.

    Examples
    --------
    >>> from mmphate_gpu.datasets import random_walk
    >>> from mmphate_gpu import MMPHATE
    >>> small = MMPHATE(n_landmark=40)
    >>> walk = random_walk(60, 4, 10)
    >>> study = subsample_study(walk, "epochs", (0.5,), 2, estimator=small, random_state=0)
    >>> study.values.shape
    (1, 2, 3)
    """
    trace = as_trace(trace)
    axis = AXES_OF[check_choice("over", over, AXES_OF)]
    counts = _checked_sizes(trace, axis, rates, sizes)
    check_number("repeats", repeats, low=1, integer=True)
    chosen, model = checked_metrics(metrics, k), study_estimator(estimator)
    if PROCRUSTES in chosen.names:
        raise InputError(f"metrics has {PROCRUSTES!r}, which is always added; accepted: other names")
    random_state = drawn_seed(random_state)
    rng, (seed, other) = np.random.default_rng(random_state), seeds_of(random_state, 2)
    settings = {"k": k, "random_state": random_state, "estimator": repr(model)}
    with progress(2 + len(counts) * repeats, verbose, callback, "subsample study") as advance:
        study = _Study(trace, refitted(trace, model, seed), model, chosen, seed)
        advance()
        floor = disparity(study.whole.coordinates, refitted(trace, model, other).coordinates)
        advance()
        parts = []
        for size in counts.tolist():
            for index in _draws(trace, axis, size, repeats, rng):
                parts.append(study.of_part(axis, index))
                advance()
    values, curves = (np.reshape(part, (len(counts), repeats, -1)) for part in zip(*parts, strict=True))
    full, full_curve = np.append(chosen(trace, study.whole, seed), floor), entropy_curve(study.whole)
    return SubsampleStudy(
        over=over,
        rates=counts / len(getattr(trace, axis)),
        sizes=counts,
        repeats=repeats,
        metrics=[*chosen.names, PROCRUSTES],
        values=values,
        full=full,
        curves=curves,
        full_curve=full_curve,
        epoch=trace.epoch,
        settings=settings,
    )


@dataclass(frozen=True)
class _Study:
    trace: Trace
    whole: Embedding
    estimator: MMPHATE
    metrics: Metrics
    seed: int
    done: dict[bytes, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)  # by the indices of the part

    def of_part(self, axis: str, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # (n_metrics + 1,), (E,)
        """The metrics, with Procrustes, and the entropy of each epoch of the part at ``index`` of an axis.

        A part that was drawn before has the same numbers, and is not embedded again.
        """
        key = index.tobytes()
        if key not in self.done:
            self.done[key] = self._measured(axis, index)
        return self.done[key]

    def _measured(self, axis: str, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        part = self.trace.subsample(**{f"{axis}s": index})
        picture = refitted(part, self.estimator, self.seed)
        every = [index if name == axis else np.arange(len(getattr(self.trace, name))) for name in _NODE_AXES]
        nodes = np.ravel_multi_index(np.ix_(*every), self.trace.shape[:3]).ravel()
        away = disparity(self.whole.coordinates[nodes], picture.coordinates)
        curve = np.full(self.trace.n_epochs, np.nan)
        curve[every[0]] = entropy_curve(picture)
        return np.append(self.metrics(part, picture, self.seed), away), curve


def _checked_sizes(trace: Trace, axis: str, rates: Any, sizes: Any) -> np.ndarray:  # (r,)
    whole = len(getattr(trace, axis))
    if sizes is None:
        shares = [check_number("rates", rate, low=0, high=1, open_low=True) for rate in np.atleast_1d(rates).tolist()]
        counts = [max(1, round(rate * whole)) for rate in shares]
    else:
        counts = [int(check_number("sizes", n, low=1, high=whole, integer=True)) for n in np.atleast_1d(sizes).tolist()]
    if not counts:
        raise InputError(f"{'rates' if sizes is None else 'sizes'} is empty; accepted: at least one number")
    slices = trace.n_slices // whole if axis in _EVEN else trace.n_slices
    least = min(counts) if axis in _EVEN else 1
    if slices * least < 2:
        raise InputError(f"a part with {least} {axis}(s) has a single slice; accepted: parts of at least 2 slices")
    return np.array(list(dict.fromkeys(counts)))


def _draws(
    trace: Trace, axis: str, size: int, repeats: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:  # (size,), ascending
    """The indices of ``repeats`` parts: evenly spaced, or random, of each class in proportion."""
    whole = len(getattr(trace, axis))
    labels = trace.label if axis == "sample" and trace.label is not None else np.zeros(whole)
    for first in (np.arange(repeats) + rng.random()) / repeats:  # as a share of the distance between neighbors
        places = np.minimum((np.arange(size) + first) * (whole / size), whole - 1).astype(np.int64)
        # In an order by class, evenly spaced places take from each class in proportion to its size.
        yield places if axis in _EVEN else np.sort(np.lexsort((rng.random(whole), labels))[places])
