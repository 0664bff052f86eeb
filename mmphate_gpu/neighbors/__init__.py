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

# name -> module with ``knn(points, k) -> (distances, indices)``; imported on first use
KNN_BACKENDS = {name: f"{__name__}.{name}_backend" for name in KNN_BACKEND_NAMES if name != "auto"}


def resolve_knn_backend(backend: str, device: torch.device) -> str:
    """The backend that "auto" means here: KeOps on CUDA where it can serve, torch elsewhere. Both are exact.

    The torch backend needs no compiler.
    """
    check_choice("knn_backend", backend, KNN_BACKEND_NAMES)
    if backend != "auto":
        return backend
    return "keops" if device.type == "cuda" and keops_serves() else "torch"


def kneighbors(points: torch.Tensor, k: int, *, backend: str = "auto") -> tuple[torch.Tensor, torch.Tensor]:
    """Distances and indices of the ``k`` nearest other points of every point, within its own set.

    Parameters
    ----------
    points : (B, n, p) float64
        B point sets.
    k : int
        1 to n - 1.
    backend : {"auto", "torch", "keops", "pynndescent"}
        "pynndescent" is approximate, the others are exact.

    Returns
    -------
    distances : (B, n, k) float64, ascending
    indices : (B, n, k) int64
        Among points at equal distance any may be named; a point is never its own neighbour.

    Raises
    ------
    InputError
        k is out of range; ``backend`` is unknown; the backend that ``backend`` names cannot be used.
    """
    _check(points, k)
    name = resolve_knn_backend(backend, points.device)
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
    points: torch.Tensor, k: int, *, backend: str = "auto"
) -> torch.Tensor:  # (B, n, p) -> (B, n)
    """Distance of every point to its ``k``-th nearest other point.

    "auto" is the native twin where one serves (exact), else as in `kneighbors`.
    """
    if _native(points, k, backend):
        return ops.kth_neighbor_distance(points, k)
    return kneighbors(points, k, backend=backend)[0][..., -1]


def median_kth_neighbor_distance(
    points: torch.Tensor, k: int, *, backend: str = "auto"
) -> torch.Tensor:  # (B, n, p) -> (B,)
    """Median of that distance over each set; the mean of the middle two where n is even."""
    if _native(points, k, backend):
        return ops.median_kth_neighbor_distance(points, k)
    return ops.median(kneighbors(points, k, backend=backend)[0][..., -1])


def _native(points: torch.Tensor, k: int, backend: str) -> bool:
    check_choice("knn_backend", backend, KNN_BACKEND_NAMES)
    _check(points, k)
    return backend == "auto" and points.dtype == torch.float64 and serves(points.device)


def drop_self(distances: torch.Tensor, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """From the k + 1 nearest points, the point itself included, the k nearest others; (B, n, k+1) -> (B, n, k).

    Where duplicates crowd the point itself out of its own list, all entries are at distance 0 and the last one goes.
    """
    own = torch.arange(indices.shape[1], device=indices.device)[:, None]
    drop = indices == own
    drop[..., -1] |= ~drop.any(-1)
    shape = (*indices.shape[:-1], indices.shape[-1] - 1)
    return distances[~drop].view(shape), indices[~drop].view(shape)
