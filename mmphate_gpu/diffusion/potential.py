"""Diffusion potential and the distances between its rows (steps 10 and 11 of docs/method.md)."""

from __future__ import annotations

import torch

from ..errors import InputError, check_choice, check_number
from ..linalg.components import Components, diagonal_blocks
from ..linalg.safe_scale import safe_scale
from ..linalg.symmetric_product import symmetric_product
from ..ops.chunks import chunk_elements, row_chunks
from ..params import MDS_DISTANCES
from ..runtime.arrays import takes_arrays
from .power import diffuse

LOG_OFFSET = 1e-7  # added inside the logarithm (step 10 of docs/method.md)
# Pairs whose squared distance is below this share of the largest squared norm are computed again by differences: the
# product form loses six or more of their sixteen digits.
CLOSE = 1e-6


@takes_arrays("landmark_op")
def diffusion_potential(
    landmark_op: torch.Tensor, t: int, gamma: float = 0
) -> torch.Tensor:  # (L, L) -> (L, L) float64
    """Potential of Q = landmark_op^t.

    gamma = 1: -ln(Q + 1e-7); gamma = -1: Q; else Q^c / c with c = (1 - gamma) / 2. O(L^3 log t) time, O(L^2) memory.
    Deterministic.

    Parameters
    ----------
    landmark_op : (L, L)
    t : int
        Diffusion time, at least 1.
    gamma : float in [-1, 1]

    Returns
    -------
    (L, L) float64, in the array type of landmark_op

    Raises
    ------
    InputError
        gamma or t is out of range; landmark_op is not square or finite; or the power overflows or vanishes, which
        happens if the rows of landmark_op do not sum to about 1.
    """
    check_number("gamma", gamma, low=-1, high=1)
    power = diffuse(landmark_op, t)
    if not bool(torch.isfinite(power).all()) or not bool(power.any()):
        largest = float(landmark_op.double().sum(1).abs().max())
        raise InputError(
            f"landmark_op has rows that sum to {largest:g}, and its power {t} overflows or vanishes; accepted: an "
            "operator whose rows sum to 1"
        )
    return potential_of_power(power, gamma)


def allows_low_rank(gamma: float) -> bool:
    """Whether an error of 1e-14 in the entries of the power is too small to matter in the potential.

    An entry to the power c then has an error of 1e-14^c. For gamma = 0, the square root, it is 1e-7; for a larger gamma
    it is too large. The logarithm of gamma = 1 is safe, because 1e-7 is added to every entry.
    """
    return gamma <= 0 or gamma == 1


def potential_of_power(power: torch.Tensor, gamma: float) -> torch.Tensor:
    """The potential of ``power``, which is Q = landmark_op^t."""
    if gamma == 1:
        return (power + LOG_OFFSET).log_().neg_()
    if gamma == -1:
        return power
    c = (1 - gamma) / 2
    return (power**c).div_(c)


@takes_arrays("potential")
def potential_distances(potential: torch.Tensor, metric: str = "euclidean") -> torch.Tensor:  # (L, C) -> (L, L) float64
    """Distances between the rows of the potential.

    A matrix product computes all pairs. Pairs that lose many digits in it are computed again by differences. The result
    is exactly symmetric, with a zero diagonal. O(L^2 C) time, O(L^2) memory. Deterministic.

    Parameters
    ----------
    potential : (L, C)
        C is L for the potential of all landmarks.
    metric : {"euclidean", "cosine"}
        "cosine" is 1 - cosine similarity. It is 1 between a row of zeros and any other row.

    Returns
    -------
    (L, L) float64, in the array type of the potential

    Raises
    ------
    InputError
        An unknown metric, or a potential that is empty, not finite, or without exactly two axes.
    """
    check_choice("metric", metric, MDS_DISTANCES)
    if potential.ndim != 2 or potential.numel() == 0:
        shape = tuple(potential.shape)
        raise InputError(f"potential has shape {shape}; accepted: two axes (landmark, feature), none empty")
    if not bool(torch.isfinite(potential).all()):
        raise InputError("potential contains NaN or infinity; accepted: finite numbers")
    rows = potential.double()
    if metric == "cosine":
        return _cosine_distances(rows)
    scale = safe_scale(rows)
    distances = _squared_distances(rows if scale == 1 else rows * scale).sqrt_()
    return distances if scale == 1 else distances.div_(scale)


def _cosine_distances(rows: torch.Tensor) -> torch.Tensor:  # (L, C) -> (L, L)
    """1 - cosine similarity. As in scikit-learn, a row of zeros has similarity 0 to all other rows."""
    largest = rows.abs().amax(1, keepdim=True)
    zero = largest[:, 0] == 0
    # Divide by the largest entry first: the norm of a row of entries like 1e-200 or 1e200 leaves the range of float64.
    scaled = rows / largest.masked_fill(largest == 0, 1)
    distances = _squared_distances(scaled / scaled.norm(dim=1, keepdim=True).masked_fill(largest == 0, 1)).div_(2)
    distances[zero] = 1
    distances[:, zero] = 1
    return distances.fill_diagonal_(0)


# Rows of a potential whose distance is below this share of their norm are equal up to rounding. Measured: after many
# steps of diffusion such distances are 1e-15 of the norm, and powers from leading eigenpairs have errors of 1e-14.
COLLAPSED = 1e-13


def collapsed(distances: torch.Tensor, metric: str, potential: torch.Tensor, groups: Components) -> bool:
    """Whether the rows of the potential are equal up to rounding in every component of two or more landmarks.

    ``groups`` are the connected `components`. The distances (L, L) within components are then only rounding, and so is
    the embedding of each component. O(L^2) time.
    """
    widest = [float(diagonal_blocks(distances, members).max()) for members in groups if members.shape[1] > 1]
    # The cosine distance is half of the square of a distance between rows of norm 1.
    rounding = COLLAPSED**2 / 2 if metric == "cosine" else COLLAPSED * float(potential.norm(dim=1).max())
    return bool(widest) and max(widest) <= rounding


def _squared_distances(rows: torch.Tensor) -> torch.Tensor:  # (L, C) -> (L, L)
    centered = rows - rows.mean(0)  # the same distances with smaller norms, so with less rounding
    norms = centered.square().sum(1)
    squared = symmetric_product(centered, centered.T).mul_(-2)
    del centered
    # Add the two norms first: added one after the other, they would round differently for (i, j) and (j, i).
    for part in row_chunks(len(rows), len(rows), chunk_elements(rows.device)):
        squared[part].add_(norms[part, None] + norms).clamp_min_(0)
    i, j = torch.nonzero((squared < CLOSE * norms.max()).triu_(1), as_tuple=True)
    # Both rows of every pair of a block are gathered. Of a square potential each of the two copies is at most as large
    # as the result.
    for part in row_chunks(i.numel(), rows.shape[1], min(chunk_elements(rows.device), squared.numel())):
        exact = rows[i[part]].sub_(rows[j[part]]).square_().sum(1)
        squared[i[part], j[part]] = exact
        squared[j[part], i[part]] = exact
    return squared.fill_diagonal_(0)
