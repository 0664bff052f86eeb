"""Diffusion potential and the distances between its rows (METHOD steps 10 and 11)."""

from __future__ import annotations

import torch

from ._arrays import takes_arrays
from .diffusion import diffuse
from .ops.chunks import chunk_elements, row_chunks
from .ops.symmetric_product import symmetric_product
from .params import MDS_DISTANCES, InputError, check_choice, check_number

LOG_OFFSET = 1e-7  # METHOD's offset inside the logarithm
# Pairs closer than this share of the longest squared row are recomputed by differences: there the product form has
# lost ten of its sixteen digits.
CLOSE = 1e-6


@takes_arrays("landmark_op")
def diffusion_potential(
    landmark_op: torch.Tensor, t: int, gamma: float = 0
) -> torch.Tensor:  # (L, L) -> (L, L) float64
    """Potential of Q = landmark_op^t.

    gamma = 1: -ln(Q + 1e-7); gamma = -1: Q; else Q^c / c with c = (1 - gamma) / 2. O(L^3 log t) time.
    """
    check_number("gamma", gamma, low=-1, high=1)
    return potential_of_power(diffuse(landmark_op, t), gamma)


def allows_low_rank(gamma: float) -> bool:
    """Whether the potential of powers that are off by 1e-14 is as good as that of exact ones.

    An entry to the power c is then off by 1e-14^c. This is 1e-7 for the square root of gamma = 0, and too much for a
    larger gamma. The logarithm of gamma = 1 is safe, because it adds 1e-7 to every entry.
    """
    return gamma <= 0 or gamma == 1


def potential_of_power(power: torch.Tensor, gamma: float) -> torch.Tensor:
    """The transform alone, given Q = landmark_op^t."""
    if gamma == 1:
        return (power + LOG_OFFSET).log_().neg_()
    if gamma == -1:
        return power
    c = (1 - gamma) / 2
    return (power**c).div_(c)


@takes_arrays("potential")
def potential_distances(potential: torch.Tensor, metric: str = "euclidean") -> torch.Tensor:  # (L, F) -> (L, L) float64
    """Distances between the rows of the potential, in float64.

    "euclidean", or "cosine": 1 - cosine similarity, which is 1 between a row of zeros and any other row. The matrix
    product gives all pairs; the pairs it leaves with few digits are computed again by differences. O(L^2 F) time,
    O(L^2) memory. Exactly symmetric, zero diagonal. Deterministic.
    """
    check_choice("metric", metric, MDS_DISTANCES)
    if potential.ndim != 2 or potential.numel() == 0:
        shape = tuple(potential.shape)
        raise InputError(f"potential has shape {shape}; accepted: two axes (landmark, feature), none empty")
    if not bool(torch.isfinite(potential).all()):
        raise InputError("potential contains NaN or infinity; accepted: finite numbers")
    rows = potential.double()
    return _cosine_distances(rows) if metric == "cosine" else _squared_distances(rows).sqrt_()


def _cosine_distances(rows: torch.Tensor) -> torch.Tensor:  # (L, F) -> (L, L)
    """1 - cosine similarity; a row of zeros has similarity 0 to all other rows, as scikit-learn has it."""
    largest = rows.abs().amax(1, keepdim=True)
    zero = largest[:, 0] == 0
    # Divided by its largest entry first, a row of entries like 1e-200 or 1e200 has a norm that float64 holds.
    scaled = rows / largest.masked_fill(largest == 0, 1)
    distances = _squared_distances(scaled / scaled.norm(dim=1, keepdim=True).masked_fill(largest == 0, 1)).div_(2)
    distances[zero] = 1
    distances[:, zero] = 1
    return distances.fill_diagonal_(0)


def _squared_distances(rows: torch.Tensor) -> torch.Tensor:  # (L, F) -> (L, L)
    centred = rows - rows.mean(0)  # distances stay, rounding falls with the norms
    norms = centred.square().sum(1)
    squared = symmetric_product(centred, centred.T).mul_(-2)
    del centred
    # Both norms first: added one after the other they would round apart for (i, j) and (j, i).
    for part in row_chunks(*squared.shape, chunk_elements(rows.device)):
        squared[part].add_(norms[part, None] + norms).clamp_min_(0)
    i, j = torch.nonzero((squared < CLOSE * norms.max()).triu_(1), as_tuple=True)
    for part in row_chunks(i.numel(), rows.shape[1], chunk_elements(rows.device)):
        exact = (rows[i[part]] - rows[j[part]]).square().sum(1)
        squared[i[part], j[part]] = exact
        squared[j[part], i[part]] = exact
    return squared.fill_diagonal_(0)
