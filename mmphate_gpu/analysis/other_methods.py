"""Pictures of the nodes of a trace by other methods, which get points, and neither slices nor units."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ops.chunks import row_chunks
from ..runtime.optional import available
from ..trace import Trace
from .node_sets import node_points
from .refit import refitted

if TYPE_CHECKING:
    from ..estimator import MMPHATE

N_COMPONENTS = 2


@dataclass(frozen=True)
class Work:
    """The inputs of a method: the trace, and the options that it reads."""

    trace: Trace
    estimator: MMPHATE
    seed: int
    max_nodes: int

    def points(self) -> np.ndarray:  # (N, P), and (N, 2) for a single sample, because PCA and t-SNE need two
        points = node_points(self.trace, np.arange(self.trace.n_nodes)).cpu().numpy()
        return points if points.shape[1] > 1 else in_the_plane(points)


def missing(name: str, trace: Trace) -> str | None:
    """Why the method ``name`` cannot draw ``trace`` here, or None."""
    if name == "umap" and not available("umap"):
        return 'umap-learn is not installed; run: pip install "mmphate-gpu[baselines]"'
    if name == "m_phate_per_step" and trace.n_epochs < 2:
        return "the trace has a single epoch"
    return None


def tsne_library() -> str:
    """The package that draws "tsne"."""
    return "openTSNE" if available("openTSNE") else "scikit-learn"


def in_the_plane(coordinates: np.ndarray) -> np.ndarray:  # (N, C) -> (N, 2)
    """The first two components. The second is 0 if C is 1."""
    shown = coordinates[:, :N_COMPONENTS]
    return np.pad(shown, ((0, 0), (0, N_COMPONENTS - shown.shape[1])))


def _mm_phate(work: Work) -> np.ndarray:
    return refitted(work.trace, work.estimator, work.seed).coordinates


def _pca(work: Work) -> np.ndarray:
    from sklearn.decomposition import PCA

    return PCA(N_COMPONENTS, random_state=work.seed).fit_transform(work.points())


def _tsne(work: Work) -> np.ndarray:
    points = work.points()
    # Equal points have no principal axes: scikit-learn would divide by zero, and end the process.
    start = "pca" if np.ptp(points, axis=0).any() else "random"
    options: dict[str, Any] = {"random_state": work.seed, "n_jobs": -1, "perplexity": min(30.0, (len(points) - 1) / 3)}
    if tsne_library() == "openTSNE":
        from openTSNE import TSNE

        return np.asarray(TSNE(initialization=start, **options).fit(points))
    from sklearn.manifold import TSNE as SklearnTSNE

    return SklearnTSNE(N_COMPONENTS, init=start, **options).fit_transform(points)


def _umap(work: Work) -> np.ndarray:
    from umap import UMAP

    points = work.points()
    return UMAP(min(15, len(points) - 1), N_COMPONENTS, random_state=work.seed).fit_transform(points)


def _isomap(work: Work) -> np.ndarray:
    from sklearn.manifold import Isomap

    points = work.points()
    chosen = points[np.random.default_rng(work.seed).permutation(len(points))[: work.max_nodes]]
    model = Isomap(n_neighbors=min(15, len(chosen) - 1), n_components=min(N_COMPONENTS, len(chosen))).fit(chosen)
    # A node is placed by its geodesic distances to all chosen nodes.
    return np.concatenate([model.transform(points[part]) for part in row_chunks(len(points), len(chosen))])


def _m_phate_per_step(work: Work) -> np.ndarray:
    trace = work.trace
    places = np.empty((*trace.shape[:3], N_COMPONENTS))
    for step in range(trace.n_timesteps):
        picture = refitted(trace.subsample(timesteps=[step]), work.estimator, work.seed)
        points = in_the_plane(picture.coordinates)
        before = points if step == 0 else places[:, step - 1].reshape(points.shape)
        places[:, step] = rotated_onto(before, points).reshape(trace.n_epochs, trace.n_units, -1)
    return places.reshape(-1, N_COMPONENTS)


def rotated_onto(target: np.ndarray, points: np.ndarray) -> np.ndarray:  # (n, C), (n, C) -> (n, C)
    """``points`` moved, rotated or reflected onto ``target``, and scaled to its size, unless it has none.

    The scale is not that of least squares, which is smaller if the two agree less: a chain of steps would shrink to a
    point.
    """
    from scipy.linalg import orthogonal_procrustes

    middle, aim = points.mean(0), target.mean(0)
    rotation, _ = orthogonal_procrustes(points - middle, target - aim)
    sizes = np.linalg.norm(target - aim), np.linalg.norm(points - middle)
    return (points - middle) @ rotation * (sizes[0] / sizes[1] if min(sizes) > 0 else 1.0) + aim


_METHODS: dict[str, Callable[[Work], Any]] = {
    "mm_phate": _mm_phate,
    "pca": _pca,
    "tsne": _tsne,
    "umap": _umap,
    "isomap": _isomap,
    "m_phate_per_step": _m_phate_per_step,
}
OURS, *DRAWN = _METHODS


def drawn(name: str, work: Work) -> np.ndarray:  # (N, 2) float64
    """The picture of the method ``name``."""
    with _undisturbed(work.seed):
        return in_the_plane(np.asarray(_METHODS[name](work), dtype=float))


@contextmanager
def _undisturbed(seed: int) -> Iterator[None]:
    """Hide the warnings of other libraries, and leave the global random states as they were.

    The state of NumPy is seeded meanwhile, because `Isomap` uses it and has no seed. The state of Python is restored,
    because the import of scikit-learn uses it.
    """
    before, of_python = np.random.get_state(), random.getstate()
    np.random.seed(seed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        np.random.set_state(before)
        random.setstate(of_python)
