"""Nonmetric MDS: SMACOF against the monotone regression of the distances."""

from __future__ import annotations

import torch

from ..ops.distances import distances_by_difference
from .smacof import Descent, one_sweep


def nonmetric(distances: torch.Tensor, init: torch.Tensor, *, max_iter: int = 300, eps: float = 1e-6) -> Descent:
    """Alternate monotone regression (on the host, by SciPy) and Guttman transforms from ``init`` (L, C).

    Equal distances may be embedded in any order (the primary approach to ties), so the result does not depend on the
    order of the landmarks. The disparities are scaled to the norm of ``distances`` in every sweep, so that the
    embedding keeps its size. The sweeps end when the stress against the disparities falls by less than the share
    ``eps``. O(L^2 log L) time once, and in every sweep O(L^2) and the sorting of the tied pairs. Deterministic.
    Source: Kruskal, "Nonmetric multidimensional scaling: a numerical method", 1964.
    """
    distances = distances.double()
    n = distances.shape[0]
    i, j = torch.triu_indices(n, n, 1, device=distances.device)
    order = torch.argsort(distances[i, j], stable=True)
    i, j = i[order], j[order]
    norm = distances[i, j].norm()
    _, group, size = torch.unique_consecutive(distances[i, j], return_inverse=True, return_counts=True)
    tied = torch.nonzero(size[group] > 1)[:, 0]
    points, last = init.double(), float("inf")
    sweeps = 0
    while sweeps < max_iter:
        sweeps += 1
        embedded = distances_by_difference(points, points)[i, j]
        disparities = _disparities(embedded, _ties_sorted(embedded, tied, group), norm)
        target = torch.zeros_like(distances)
        target[i, j] = disparities
        target[j, i] = disparities
        points, raw = one_sweep(target, points)
        if last - float(raw) < eps * float(raw):
            break
        last = float(raw)
    return Descent(points, sweeps)


def _ties_sorted(embedded: torch.Tensor, tied: torch.Tensor, group: torch.Tensor) -> torch.Tensor:  # (k,) int64
    """The order 0, 1, ..., where the ``tied`` pairs of each ``group`` are sorted by their ``embedded`` distances."""
    order = torch.arange(embedded.numel(), device=embedded.device)
    sorted_ties = tied[embedded[tied].argsort(stable=True)]
    order[tied] = sorted_ties[group[sorted_ties].argsort(stable=True)]
    return order


def _disparities(embedded: torch.Tensor, order: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:  # 2 x (k,), ()
    """The numbers nearest to ``embedded`` that never fall in this ``order``, scaled to ``norm``."""
    result = torch.empty_like(embedded)
    result[order] = _monotone(embedded[order])
    return result * (norm / result.norm().clamp_min(torch.finfo(torch.float64).tiny))


def _monotone(values: torch.Tensor) -> torch.Tensor:  # (k,) -> (k,)
    from scipy.optimize import isotonic_regression

    return torch.from_numpy(isotonic_regression(values.cpu().numpy()).x).to(values.device)
