"""The same trace drawn by other methods, in one table and one grid."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..embedding import Embedding
from ..errors import InputError, InputTypeError, check_choice, check_number, warn_caller
from ..runtime.isolation import isolated
from ..slices import SliceLayout
from ..stages import Callback
from ..trace import Trace, as_trace
from .other_methods import DRAWN, N_COMPONENTS, OURS, Work, drawn, in_the_plane, missing, tsne_library
from .picture_metrics import BETTER, Metric, checked_metrics
from .progress import Advance, progress
from .refit import study_estimator
from .result import Result
from .seeds import drawn_seed, seeds_of
from .similarity import AXES, similarity
from .similarity import METHODS as SIMILARITIES

if TYPE_CHECKING:
    from ..estimator import MMPHATE


@dataclass(frozen=True, eq=False, repr=False)
class Baselines(Result):
    """Pictures of a trace by several methods, with what each keeps; made by `baselines`.

    Attributes
    ----------
    methods : names of the methods, "mm_phate" first.
    coordinates : {method: (N, 2)}, NaN for nodes without a place.
    layout : the epoch, time step and unit of each node.
    metrics : names of the metrics.
    table : (n_methods, n_metrics) metrics of the pictures.
    seconds : (n_methods,) time of each method; NaN for a picture that was passed in.
    similarity : {"cka of epochs": (E, E), "cka of timesteps": (T, T), ...}, from 0 to 1.
    settings : what was asked.
    """

    methods: list[str]
    coordinates: dict[str, np.ndarray]
    layout: SliceLayout
    metrics: list[str]
    table: np.ndarray
    seconds: np.ndarray
    similarity: dict[str, np.ndarray]
    settings: Mapping[str, Any]

    def best(self, metric: str, digits: int = 2) -> list[str]:
        """The methods with the best value of ``metric``, rounded to ``digits`` decimals.

        None is best by "entropy", "spread", "silhouette" and functions of the user, because they describe a picture and
        do not judge it.
        """
        values = BETTER.get(metric, np.nan) * self.table[:, self.metrics.index(metric)]
        if not np.isfinite(values).any():
            return []
        texts = [f"{value:.{digits}f}" for value in values]
        return [name for name, text in zip(self.methods, texts, strict=True) if text == texts[np.nanargmax(values)]]

    def _columns(self) -> dict[str, np.ndarray]:
        values = {name: self.table[:, i] for i, name in enumerate(self.metrics)}
        return {"method": np.array(self.methods), **values, "seconds": self.seconds}

    def _summary(self) -> str:
        best = [(metric, self.best(metric)) for metric in self.metrics]
        texts = (f"best {metric}: {' and '.join(names)}" for metric, names in best if names)
        return "; ".join([f"{len(self.methods)} methods", *texts])


@isolated()
def baselines(
    trace: Any,
    methods: Sequence[str] = ("pca", "tsne", "umap", "isomap", "m_phate_per_step", "cka", "svcca"),
    *,
    embedding: Embedding | None = None,
    estimator: MMPHATE | None = None,
    metrics: Sequence[str] | Mapping[str, Metric] = (
        "intra",
        "inter",
        "trustworthiness",
        "continuity",
        "geodesic_spearman",
    ),
    k: int = 10,
    max_nodes: int = 5000,
    random_state: int | None = None,
    verbose: int | bool = 0,
    callback: Callback | None = None,
) -> Baselines:
    """Draw a trace by other methods, and measure what each picture keeps of it.

    The methods see the nodes as points: the samples of each node, z-scored. They do not know which nodes are of one
    unit or of one slice. All pictures have two components.

    Parameters
    ----------
    trace : anything `as_trace` accepts, without a mask
        S slices, M units and P samples.
    methods : sequence of str
        "pca"; "tsne" by openTSNE, or without it by scikit-learn; "umap" by umap-learn; "isomap" by scikit-learn;
        "m_phate_per_step", an embedding of each time step by itself, each moved, rotated and scaled to that of the step
        before; "cka" and "svcca", which draw nothing but compare epochs and time steps.
    embedding : Embedding, optional
        The picture by MM-PHATE, of which the first two components are compared. By default ``estimator`` is fitted.
    estimator : MMPHATE, optional
        "m_phate_per_step" and the fit have its settings; by default, `MMPHATE` with 1,000 landmarks.
    metrics : sequence of names, or a mapping from names to functions (trace, embedding) -> number
        Columns of the table; `null_models` says what the names mean.
    k : int
        Number of neighbors of these metrics.
    max_nodes : int
        "isomap" is computed for at most so many random nodes. The others are placed between them.
    random_state : int, optional
        Seed of all methods.
    verbose : int or bool
        Whether to draw a progress bar on stderr.
    callback : callable(stage, done, total), optional
        Called after each method.

    Returns
    -------
    Baselines

    Warns
    -----
    UserWarning
        "umap" is left out, because umap-learn is not installed, or "m_phate_per_step", because there is one epoch.

    Raises
    ------
    InputError, InputTypeError
        An unknown method, a masked trace, an embedding of another trace, or a number out of range.

    Notes
    -----
    The comparison is this library's own; MM-PHATE's authors compare with PCA, t-SNE, Isomap and M-PHATE. t-SNE and UMAP
    take minutes for 50,000 nodes. ``seconds`` include the time in which a library is loaded, and compiles, at its first
    call. Memory: the points of all nodes, 8 N P bytes, a few times. A stored trace is loaded.

    Examples
    --------
    >>> from mmphate_gpu.datasets import random_walk
    >>> result = baselines(random_walk(30, 4, 8), ["pca", "cka"], k=3, random_state=0)
    >>> result.methods, result.coordinates["pca"].shape, sorted(result.similarity)
    (['mm_phate', 'pca'], (120, 2), ['cka of epochs', 'cka of timesteps'])
    """
    trace = as_trace(trace)
    names = _checked_methods(methods, trace)
    ready = _checked_embedding(embedding, trace)
    check_number("max_nodes", max_nodes, low=10, integer=True)
    measures = checked_metrics(metrics, k)
    random_state = drawn_seed(random_state)
    (seed,) = seeds_of(random_state, 1)
    work = Work(trace, _of_the_plane(estimator), seed, int(max_nodes))
    with progress(1 + len(names), verbose, callback, "baselines") as advance:
        pictures, seconds = _pictures([OURS, *(name for name in names if name in DRAWN)], work, ready, advance)
        alike = _similarities([name for name in names if name in SIMILARITIES], trace, advance)
    layout = SliceLayout(trace.epoch, trace.timestep, trace.unit)
    return Baselines(
        methods=list(pictures),
        coordinates=pictures,
        layout=layout,
        metrics=measures.names,
        table=np.stack([measures(trace, Embedding(picture, layout), seed) for picture in pictures.values()]),
        seconds=seconds,
        similarity=alike,
        settings={"k": k, "max_nodes": max_nodes, "random_state": random_state, "tsne": tsne_library()},
    )


def _checked_methods(methods: Any, trace: Trace) -> list[str]:
    """The methods that can be used here. A warning says why another one is left out."""
    if isinstance(methods, str) or not isinstance(methods, Sequence):
        raise InputTypeError(f"methods={methods!r}; accepted: a sequence of names")
    names = dict.fromkeys(check_choice("methods", name, (*DRAWN, *SIMILARITIES)) for name in methods)
    if trace.mask is not None:
        raise InputError("the trace is masked; accepted: a trace without missing samples, which other methods need")
    faults = {name: missing(name, trace) for name in names}
    for name, fault in faults.items():
        if fault is not None:
            warn_caller(f"methods: {name!r} is left out, because {fault}")
    return [name for name, fault in faults.items() if fault is None]


def _checked_embedding(embedding: Any, trace: Trace) -> np.ndarray | None:  # (N, 2)
    if embedding is None:
        return None
    if not isinstance(embedding, Embedding):
        raise InputTypeError(f"embedding is a {type(embedding).__name__}; accepted: an Embedding, or None")
    if embedding.layout.shape != trace.shape[:3]:
        raise InputError(
            f"embedding has the layout {embedding.layout.shape}; accepted: {trace.shape[:3]}, as the trace"
        )
    return in_the_plane(embedding.coordinates)


def _of_the_plane(estimator: MMPHATE | None) -> MMPHATE:
    model = study_estimator(estimator)
    return type(model)(**model.get_params(deep=False) | {"n_components": N_COMPONENTS})


def _pictures(
    names: list[str], work: Work, ready: np.ndarray | None, advance: Advance
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The picture of each method, and its seconds; ``ready`` is that of MM-PHATE, if it was passed in."""
    pictures: dict[str, np.ndarray] = {}
    seconds = []
    for name in names:
        started = time.perf_counter()
        if name == OURS and ready is not None:
            pictures[name] = ready
            seconds.append(np.nan)
        else:
            pictures[name] = drawn(name, work)
            seconds.append(time.perf_counter() - started)
        advance()
    return pictures, np.array(seconds)


def _similarities(names: list[str], trace: Trace, advance: Advance) -> dict[str, np.ndarray]:
    matrices: dict[str, np.ndarray] = {}
    for name in names:
        matrices |= {f"{name} of {axis}": similarity(trace, name, axis) for axis in AXES}
        advance()
    return matrices
