"""k nearest *other* points within each set of a stack: one signature, several backends."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch

from ..errors import InputError, check_choice, check_number
from ..ops import kth_neighbor_distance as ops
from ..ops.launch.twins import serves
from ..params import KNN_BACKENDS as KNN_BACKEND_NAMES
from ..runtime.keops import KeopsError, give_up_keops, keops_serves

# name -> module with ``knn(points, k) -> (distances, indices)``; imported at first use
KNN_BACKENDS = {name: f"{__name__}.{name}_backend" for name in KNN_BACKEND_NAMES if name != "auto"}

# On one core a k-d tree took a tenth of the time of torch, or less, for the 10 nearest of 2000 points of random walks
# with 5 to 60 features. In noise, where it does not help, it took up to 1.5 times as long.
MOST_FEATURES = 60


def resolve_knn_backend(backend: str, device: torch.device, n_features: int | None = None) -> str:
    """The backend that "auto" means on ``device``. It is exact.

    On CUDA it is KeOps where that works, and on the CPU SciPy for up to 60 features. Else it is torch.
    """
    check_choice("knn_backend", backend, KNN_BACKEND_NAMES)
    if backend != "auto":
        return backend
    if device.type == "cpu":
        return "scipy" if n_features is not None and 1 <= n_features <= MOST_FEATURES else "torch"
    return "keops" if device.type == "cuda" and keops_serves() else "torch"


def kneighbors(points: torch.Tensor, k: int, *, backend: str = "auto") -> tuple[torch.Tensor, torch.Tensor]:
    """Distances and indices of the ``k`` nearest other points of every point, within its own set.

    Parameters
    ----------
    points : (B, n, p) float64
        B point sets.
    k : int
        1 to n - 1.
    backend : {"auto", "torch", "scipy", "keops", "pynndescent"}
        "pynndescent" is approximate, the others are exact.

    Returns
    -------
    distances : (B, n, k) float64, ascending
    indices : (B, n, k) int64
        Which of several points at equal distance are named is not defined. A point is never its own neighbor.

    Raises
    ------
    InputError
        ``k`` is out of range; ``backend`` is unknown; the backend that ``backend`` names does not work, or it is SciPy
        and a distance is not finite.
    """
    _check(points, k)
    name = resolve_knn_backend(backend, points.device, points.shape[2])
    search: Callable[[torch.Tensor, int], tuple[torch.Tensor, torch.Tensor]]
    search = importlib.import_module(KNN_BACKENDS[name]).knn
    try:
        return search(points, k)
    except KeopsError as error:
        if backend != "auto":
            raise
        give_up_keops(error)
        return kneighbors(points, k)


def _check(points: torch.Tensor, k: int) -> None:
    if points.ndim != 3:
        raise InputError(f"points has shape {tuple(points.shape)}; accepted: three axes (set, point, feature)")
    check_number("k", k, low=1, high=points.shape[1] - 1, integer=True)


def kth_neighbor_distance(
    points: torch.Tensor, k: int, *, backend: str = "auto", masked: bool = False
) -> torch.Tensor:  # (B, n, p) -> (B, n)
    """Distance of every point to its ``k``-th nearest other point.

    "auto" is the C++ or CUDA op where it works (exact), else as in `kneighbors`. In ``masked`` points a NaN is a
    missing feature, and a distance is over the features that both points have. A point with fewer than ``k`` others to
    compare with has the distance infinity.
    """
    if _by_op(points, k, backend, masked):
        return ops.kth_neighbor_distance(points, k, masked)
    return _distances(points, k, backend, masked)[..., -1]


def median_kth_neighbor_distance(
    points: torch.Tensor, k: int, *, backend: str = "auto", masked: bool = False
) -> torch.Tensor:  # (B, n, p) -> (B,)
    """Median over each set of the distance to the ``k``-th nearest other point; of an even n the mean of the two."""
    if _by_op(points, k, backend, masked):
        return ops.median_kth_neighbor_distance(points, k, masked)
    return ops.median(_distances(points, k, backend, masked)[..., -1])


def _by_op(points: torch.Tensor, k: int, backend: str, masked: bool) -> bool:
    """Whether the op computes the distances: it gives no indices, and reads float64 only."""
    check_choice("knn_backend", backend, KNN_BACKEND_NAMES)
    _check(points, k)
    if masked and backend not in ("auto", "torch"):
        raise InputError(f"knn_backend={backend!r} cannot search masked samples; accepted with a mask: auto, torch")
    return backend == "auto" and points.dtype == torch.float64 and serves(points.device)


def _distances(points: torch.Tensor, k: int, backend: str, masked: bool) -> torch.Tensor:  # (B, n, p) -> (B, n, k)
    if masked or (backend == "auto" and points.device.type == "cpu"):  # the op's own bits, for any number of features
        return ops.nearest_others(points, k, masked)[0]
    return kneighbors(points, k, backend=backend)[0]
