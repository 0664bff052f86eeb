"""The same trace drawn by other methods, in one table and one grid."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..embedding import Embedding
from ..errors import InputError, InputTypeError, check_choice, check_number
from ..runtime.isolation import isolated
from ..slices import SliceLayout
from ..stages import Callback
from ..trace import Trace, as_trace
from .node_sets import node_points
from .picture_metrics import checked_metrics
from .progress import progress
from .refit import refitted, seeds_of, study_estimator
from .result import Result
from .similarity import AXES, similarity
from .similarity import METHODS as SIMILARITIES

if TYPE_CHECKING:
    from ..estimator import MMPHATE

OURS = "mm_phate"
_N_COMPONENTS = 2


@dataclass(frozen=True, eq=False, repr=False)
class Baselines(Result):
    """Pictures of a trace by several methods, with what each keeps; made by `baselines`."""

    methods: list[str]  # "mm_phate" first
    coordinates: dict[str, np.ndarray]  # (N, 2) of each method; NaN for nodes without a place
    layout: SliceLayout
    metrics: list[str]
    table: np.ndarray  # (n_methods, n_metrics)
    seconds: np.ndarray  # (n_methods,); NaN for a picture that was passed in
    similarity: dict[str, np.ndarray]  # "cka of epochs" (E, E), "cka of timesteps" (T, T), ...
    settings: Mapping[str, Any]

    def _columns(self) -> dict[str, np.ndarray]:
        values = {name: self.table[:, i] for i, name in enumerate(self.metrics)}
        return {"method": np.array(self.methods), **values, "seconds": self.seconds}

    def _summary(self) -> str:
        if not self.methods:
            return f"similarities: {', '.join(self.similarity)}"
        best = ((name, self.methods[int(np.nanargmax(self.table[:, i]))]) for i, name in enumerate(self.metrics))
        return "; ".join(f"best {name}: {method}" for name, method in best if name in ("intra", "inter"))


@isolated()
def baselines(
    trace: Any,
    methods: Sequence[str] = ("pca", "tsne", "umap", "isomap", "m_phate_per_step", "cka", "svcca"),
    *,
    embedding: Embedding | None = None,
    estimator: MMPHATE | None = None,
    metrics: Sequence[str] = ("intra", "inter", "trustworthiness", "continuity", "geodesic_spearman"),
    k: int = 10,
    max_nodes: int = 5000,
    random_state: int | None = None,
    verbose: int | bool = 0,
    callback: Callback | None = None,
) -> Baselines:
    """Draw a trace by other methods, and measure what each picture keeps of it.

    The methods see the nodes as points: the samples of each node, z-scored. They do not know which nodes are of one
    unit or of one slice.

    Parameters
    ----------
    trace : anything `as_trace` accepts, without a mask
        S slices, M units and P samples.
    methods : sequence of str
        "pca"; "tsne" by openTSNE, or without it by scikit-learn; "umap" by umap-learn; "isomap" by scikit-learn;
        "m_phate_per_step", an embedding of each time step by itself, each rotated, shifted and scaled onto the step
        before; "cka" and "svcca", which draw nothing but compare epochs and time steps.
    embedding : Embedding, optional
        The picture by MM-PHATE to compare with; None fits ``estimator``.
    estimator : MMPHATE, optional
        Its settings are those of "m_phate_per_step" and of the fit; by default, 1,000 landmarks.
    metrics : sequence of str
        Columns of the table: names in ``picture_metrics.METRICS`` (see `null_models`).
    k : int
        Number of neighbors of these metrics.
    max_nodes : int
        "isomap" is computed for at most so many nodes, drawn at random, and places the others between them.
    random_state : int, optional
        Seed of all methods.
    verbose, callback
        A progress bar, and a function called after each method.

    Returns
    -------
    Baselines

    Warns
    -----
    UserWarning
        "umap" is left out, because umap-learn is not installed.

    Raises
    ------
    InputError, InputTypeError
        An unknown method, a masked trace, an embedding of another trace, or a number out of range.

    Notes
    -----
    A comparison of this library's own making; MM-PHATE's authors compare with PCA, t-SNE, Isomap and M-PHATE. t-SNE and
    UMAP take minutes for 50,000 nodes. Memory: the points of all nodes, 8 N P bytes, a few times over.

    Examples
    --------
    >>> from mmphate_gpu.datasets import random_walk
    >>> result = baselines(random_walk(30, 4, 8), ["pca", "cka"], k=3, random_state=0)
    >>> result.methods, result.coordinates["pca"].shape, sorted(result.similarity)
    (['mm_phate', 'pca'], (120, 2), ['cka of epochs', 'cka of timesteps'])
    """
    trace = as_trace(trace)
    _check(trace, embedding, methods)
    check_number("max_nodes", max_nodes, low=10, integer=True)
    measures = checked_metrics(metrics, k)
    model = study_estimator(estimator)
    (seed,) = seeds_of(random_state, 1)
    work = _Work(trace, model, seed, int(max_nodes))
    drawn = [name for name in dict.fromkeys(methods) if name in DRAWN and _installed(name)]
    compared = [name for name in dict.fromkeys(methods) if name in SIMILARITIES]
    layout = SliceLayout(trace.epoch, trace.timestep, trace.unit)
    pictures: dict[str, Embedding] = {}
    seconds: list[float] = []
    with progress(1 + len(drawn) + len(compared), verbose, callback, "baselines") as advance:
        for name in (OURS, *drawn):
            started = time.perf_counter()
            ready = embedding if name == OURS else None
            pictures[name] = ready or Embedding(DRAWN[name](work), layout)
            seconds.append(time.perf_counter() - started if ready is None else float("nan"))
            advance()
        alike: dict[str, np.ndarray] = {}
        for name in compared:
            alike |= {f"{name} of {axis}": similarity(trace, name, axis) for axis in AXES}
            advance()
    return Baselines(
        methods=list(pictures),
        coordinates={name: picture.coordinates[:, :_N_COMPONENTS] for name, picture in pictures.items()},
        layout=layout,
        metrics=measures.names,
        table=np.stack([measures(trace, picture, seed) for picture in pictures.values()]),
        seconds=np.array(seconds),
        similarity=alike,
        settings={"k": k, "max_nodes": max_nodes, "random_state": random_state, "tsne": _tsne_library()},
    )


def _check(trace: Trace, embedding: Any, methods: Any) -> None:
    if isinstance(methods, str) or not isinstance(methods, Sequence):
        raise InputTypeError(f"methods={methods!r}; accepted: a sequence of names")
    for name in methods:
        check_choice("methods", name, (*(name for name in DRAWN if name != OURS), *SIMILARITIES))
    if trace.mask is not None:
        raise InputError("the trace is masked; accepted: a trace without missing samples, which other methods need")
    if embedding is not None and not isinstance(embedding, Embedding):
        raise InputTypeError(f"embedding is a {type(embedding).__name__}; accepted: an Embedding, or None")
    if embedding is not None and embedding.layout.shape != trace.shape[:3]:
        raise InputError(
            f"embedding has the layout {embedding.layout.shape}; accepted: {trace.shape[:3]}, as the trace"
        )


# ---------------------------------------------------------------- the methods


@dataclass(frozen=True)
class _Work:
    trace: Trace
    estimator: MMPHATE
    seed: int
    max_nodes: int

    def points(self) -> np.ndarray:  # (N, P)
        return node_points(self.trace, np.arange(self.trace.n_nodes)).cpu().numpy()


def _mm_phate(work: _Work) -> np.ndarray:
    return refitted(work.trace, work.estimator, work.seed).coordinates


def _pca(work: _Work) -> np.ndarray:
    from sklearn.decomposition import PCA

    points = work.points()
    found = PCA(min(_N_COMPONENTS, *points.shape), random_state=work.seed).fit_transform(points)
    return np.pad(found, ((0, 0), (0, _N_COMPONENTS - found.shape[1])))


def _tsne(work: _Work) -> np.ndarray:
    points = work.points()
    perplexity = min(30.0, (len(points) - 1) / 3)
    options: dict[str, Any] = {"perplexity": perplexity, "random_state": work.seed, "n_jobs": -1}
    with _silent():
        if _tsne_library() == "openTSNE":
            from openTSNE import TSNE

            return np.asarray(TSNE(**options).fit(points), dtype=float)
        from sklearn.manifold import TSNE as OtherTSNE

        return OtherTSNE(_N_COMPONENTS, **options).fit_transform(points).astype(float)


def _umap(work: _Work) -> np.ndarray:
    from umap import UMAP

    points = work.points()
    with _silent():
        model = UMAP(n_neighbors=min(15, len(points) - 1), n_components=_N_COMPONENTS, random_state=work.seed)
        return np.asarray(model.fit_transform(points), dtype=float)


def _isomap(work: _Work) -> np.ndarray:
    from sklearn.manifold import Isomap

    points = work.points()
    chosen = np.random.default_rng(work.seed).permutation(len(points))[: work.max_nodes]
    with _silent():
        model = Isomap(n_neighbors=min(15, len(chosen) - 1), n_components=_N_COMPONENTS).fit(points[chosen])
        return np.asarray(model.transform(points), dtype=float)


def _m_phate_per_step(work: _Work) -> np.ndarray:
    trace = work.trace
    if trace.n_epochs < 2:
        raise InputError(f"m_phate_per_step needs 2 epochs; the trace has {trace.n_epochs}")
    places = np.empty((*trace.shape[:3], _N_COMPONENTS))
    for step in range(trace.n_timesteps):
        result = refitted(trace.subsample(timesteps=[step]), work.estimator, work.seed)
        points = result.coordinates[:, :_N_COMPONENTS].reshape(trace.n_epochs, trace.n_units, -1)
        places[:, step] = points if step == 0 else _onto(points, places[:, step - 1])
    return places.reshape(-1, _N_COMPONENTS)


def _onto(points: np.ndarray, target: np.ndarray) -> np.ndarray:  # (E, M, C), (E, M, C)
    """``points`` rotated, scaled and shifted onto ``target``."""
    from scipy.linalg import orthogonal_procrustes

    middle, aim = (array.reshape(-1, _N_COMPONENTS).mean(0) for array in (points, target))
    shifted, wanted = (points - middle).reshape(-1, _N_COMPONENTS), (target - aim).reshape(-1, _N_COMPONENTS)
    rotation, overlap = orthogonal_procrustes(shifted, wanted)
    size = float((shifted**2).sum())
    return (points - middle) @ rotation * (overlap / size if size > 0 else 1.0) + aim


DRAWN: dict[str, Callable[[_Work], np.ndarray]] = {
    OURS: _mm_phate,
    "pca": _pca,
    "tsne": _tsne,
    "umap": _umap,
    "isomap": _isomap,
    "m_phate_per_step": _m_phate_per_step,
}


def _tsne_library() -> str:
    from importlib.util import find_spec

    return "openTSNE" if find_spec("openTSNE") else "scikit-learn"


def _installed(name: str) -> bool:
    from importlib.util import find_spec

    from ..errors import warn_caller

    if name == "umap" and find_spec("umap") is None:
        warn_caller("methods: 'umap' is left out, because umap-learn is not installed; run: pip install umap-learn")
        return False
    return True


@contextmanager
def _silent() -> Iterator[None]:
    """Without the warnings of other libraries: of versions, threads, and graphs that fall apart."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
