"""Metric and nonmetric MDS: checks, choice of the solver, and orientation of the result."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

import torch

from ..errors import InputError, check_choice, check_number
from ..linalg.random import seeded_generator
from ..linalg.safe_scale import safe_scale
from ..params import MDS_SOLVERS
from ..runtime.arrays import takes_arrays
from .classic import classic
from .nonmetric import nonmetric
from .smacof import Descent, smacof
from .starts import further_starts
from .stress import stress_in_range

# Most nonmetric sweeps. Each regresses all pairs, which costs tens of metric sweeps, and they converge slowly.
NONMETRIC_SWEEPS = 300
# A further start has to lower the stress by this share. Ends that differ by less may be one minimum, which the sweeps
# reach only up to `eps`. Without this share rounding would choose between them.
TIE = 1e-4
SEED = 0  # of the iteration for the classical start of a fit, which converges


@dataclass(frozen=True, eq=False)
class MDSResult:
    """Coordinates of the landmarks and how well they fit."""

    coordinates: torch.Tensor  # (L, C) float64, centered
    stress: float  # Kruskal's stress-1 against the distances of the landmarks
    n_iter: int  # SMACOF sweeps, 0 for classical MDS


@takes_arrays("distances", "init")
def metric_mds(
    distances: torch.Tensor,  # (L, L)
    n_components: int = 2,
    *,
    solver: str = "smacof",
    n_init: int = 2,
    init: torch.Tensor | None = None,
    max_iter: int = 3000,
    eps: float = 1e-6,
    random_state: int | None = None,
) -> MDSResult:
    """Embed ``distances`` in ``n_components`` dimensions.

    Parameters
    ----------
    distances : (L, L)
        Symmetric with a zero diagonal.
    n_components : int
        1 to L - 1.
    solver : {"classic", "smacof", "nonmetric"}
        Each solver starts from the result of the solver before it in this list.
    n_init : int
        Starts of SMACOF. The first is classical MDS, and each further one comes from a layout in two more dimensions.
        The end with the least stress is kept, and that of an earlier start if they differ by less than the share 1e-4.
        "classic" ignores it, and "nonmetric" goes on from the end that is kept.
    init : (L, C), optional
        The only start of SMACOF, in place of ``n_init`` starts.
    max_iter, eps
        SMACOF ends after ``max_iter`` sweeps, or when a sweep lowers the stress by less than the share ``eps``. The
        nonmetric solver does at most 300 further sweeps.
    random_state : int or None
        Seed of classical MDS.

    Raises
    ------
    InputError
        Distances that are not square, symmetric, finite and non-negative with a zero diagonal; n_components not
        within 1 to L - 1.

    Notes
    -----
    The result is rotated and reflected onto its start (Procrustes). The axes of the classical start are in the order of
    falling variance, with the largest entry positive, so that one seed gives one picture. SMACOF does not depend on the
    scale of ``init``. A sweep takes O(L^2 C) time, and a further start about as many sweeps as the first. Landmarks on
    one place part, unless their distance is 0. Deterministic.
    """
    check_choice("solver", solver, MDS_SOLVERS)
    check_number("n_init", n_init, low=1, integer=True)
    check_number("max_iter", max_iter, low=1, integer=True)
    check_number("eps", eps, low=0)
    distances = _checked_distances(distances)
    check_number("n_components", n_components, low=1, high=max(1, distances.shape[0] - 1), integer=True)
    start = None if init is None else _checked_init(init, distances, n_components)
    scale = safe_scale(distances)
    scaled = distances if scale == 1 else distances * scale
    if start is not None:
        start = start * (scale if solver == "classic" else _scale_of_start(start, scaled))
    result = _solve(scaled, n_components, solver, n_init, random_state, start, max_iter, eps)
    return result if scale == 1 else replace(result, coordinates=result.coordinates / scale)


def _scale_of_start(start: torch.Tensor, distances: torch.Tensor) -> float:
    """The power of two that brings ``start`` to the size of the ``distances``; 1 if it is within a factor of 1000.

    The result of the first sweep does not depend on the scale. But with a start of another size, the stress before the
    first sweep would end the sweeps early.
    """
    largest = float((start - start.mean(0)).abs().max())
    ratio = float(distances.max()) / largest if largest else 1.0
    return 1.0 if 1e-3 <= ratio <= 1e3 else 2.0 ** max(-1000, min(1000, math.frexp(ratio)[1]))


def _solve(
    distances: torch.Tensor,
    n_components: int,
    solver: str,
    n_init: int,
    random_state: int | None,
    start: torch.Tensor | None = None,
    max_iter: int = 3000,
    eps: float = 1e-6,
) -> MDSResult:
    generator = seeded_generator(random_state)
    further = 0 if start is not None or solver == "classic" else n_init - 1
    if start is None:
        start = classic(distances, n_components, generator=generator)
    starts = chain([start], further_starts(distances, n_components, further, generator))
    end = _least(distances, starts, solver, max_iter, eps)
    coordinates = orient(end.coordinates, start)
    return MDSResult(coordinates, stress_in_range(distances, coordinates), end.n_iter)


def embed_landmarks(
    distances: torch.Tensor, n_components: int, *, solver: str = "smacof", n_init: int = 2
) -> MDSResult:
    """`metric_mds` without checks, for the result of `potential_distances`.

    L landmarks span at most L - 1 dimensions. Components beyond that are 0. The picture does not depend on a seed, not
    even where eigenvalues of the classical start are equal.
    """
    spanned = min(n_components, distances.shape[0] - 1)
    if spanned == 0:
        return MDSResult(distances.new_zeros(1, n_components), 0.0, 0)
    result = _solve(distances, spanned, solver, n_init, SEED)
    padded = torch.nn.functional.pad(result.coordinates, (0, n_components - spanned))
    return replace(result, coordinates=padded)


def _least(distances: torch.Tensor, starts: Iterable[torch.Tensor], solver: str, max_iter: int, eps: float) -> Descent:
    """The end of the solver that belongs to the start from which SMACOF reaches the least stress."""
    if solver == "classic":
        return Descent(next(iter(starts)), 0)
    metric = _lowest(distances, (smacof(distances, start, max_iter=max_iter, eps=eps) for start in starts))
    if solver == "smacof":
        return metric
    further = nonmetric(distances, metric.coordinates, max_iter=min(max_iter, NONMETRIC_SWEEPS), eps=eps)
    return Descent(further.coordinates, metric.n_iter + further.n_iter)


def _lowest(distances: torch.Tensor, ends: Iterator[Descent]) -> Descent:
    best = next(ends)
    least = stress_in_range(distances, best.coordinates)
    for end in ends:
        stress = stress_in_range(distances, end.coordinates)
        if stress < (1 - TIE) * least:
            best, least = end, stress
    return best


def orient(coordinates: torch.Tensor, start: torch.Tensor) -> torch.Tensor:  # (L, C), (L, C) -> (L, C)
    """Center ``coordinates``, and rotate and reflect them as near to ``start`` as possible (Procrustes)."""
    coordinates = coordinates - coordinates.mean(0)
    left, _, right = torch.linalg.svd(coordinates.T @ (start.to(coordinates) - start.mean(0)))
    return coordinates @ (left @ right)


def _checked_init(init: torch.Tensor, distances: torch.Tensor, n_components: int) -> torch.Tensor:
    wanted = (distances.shape[0], n_components)
    if tuple(init.shape) != wanted:
        raise InputError(f"init has shape {tuple(init.shape)}; accepted: {wanted}")
    if not bool(torch.isfinite(init).all()):
        raise InputError("init contains NaN or infinity; accepted: finite numbers")
    return init.to(device=distances.device, dtype=torch.float64)


def _checked_distances(distances: torch.Tensor) -> torch.Tensor:
    """``distances`` in float64, exactly symmetric. Entries that differ by rounding are averaged."""
    if distances.ndim != 2 or distances.shape[0] != distances.shape[1] or distances.shape[0] < 2:
        raise InputError(f"distances has shape {tuple(distances.shape)}; accepted: a square matrix of at least 2 rows")
    distances = distances.double()
    if not bool(torch.isfinite(distances).all()) or bool((distances < 0).any()):
        raise InputError("distances contains NaN, infinity or a number below 0; accepted: finite numbers from 0")
    if torch.equal(distances, distances.T) and not bool(distances.diagonal().any()):
        return distances
    tolerance = 1e-5 * float(distances.max())  # float32 rounding of a sum of squares, with room
    if float(distances.diagonal().max()) > tolerance or float((distances - distances.T).abs().max()) > tolerance:
        raise InputError("distances must be symmetric with a zero diagonal")
    return ((distances + distances.T) / 2).fill_diagonal_(0)
