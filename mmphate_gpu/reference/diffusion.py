"""Steps 9 to 11 of docs/method.md: diffusion time, potential and its distances."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

# Breaks whose residuals differ by less than this share of the largest |entropy|, which is rounding, are equal.
KNEE_TIE = 1e-12


@np.errstate(under="ignore")
def von_neumann_entropy(landmark_op: np.ndarray, t_max: int = 100) -> np.ndarray:  # (L, L) -> (t_max,)
    """Step 9: H(i) = -sum w ln w, where w = s^(i+1) / sum s^(i+1) + 2.2e-16 and s are the singular values.

    w does not depend on the scale of s. s is first divided by its largest value, so that no power overflows.
    """
    singular = np.linalg.svd(landmark_op, compute_uv=False)
    if singular[0] == 0:
        raise ValueError("landmark_op is zero: it has no entropy")
    singular = singular / singular[0]
    entropy = np.array([_entropy(singular ** (i + 1)) for i in range(t_max)])
    # Singular values that should be 0 are computed as about 1e-17. A curve that only they change counts as flat.
    eps = np.finfo(np.float64).eps
    rounding = -np.log(eps) * eps * len(singular)
    return np.where(np.abs(entropy - entropy[0]).max() <= rounding, entropy[0], entropy)


def _entropy(spectrum: np.ndarray) -> float:
    weights = spectrum / spectrum.sum() + np.finfo(np.float64).eps
    return float(-(weights * np.log(weights)).sum())


def knee(entropy: np.ndarray) -> int:
    """Step 9: the break b at which least-squares lines over 0..b and over b-1..end fit best.

    Their absolute residuals are summed over 0..b and over b..end, so the right line is fitted to one point more than it
    is judged on. Of several breaks that are equal within `KNEE_TIE` the first is taken.
    """
    breaks = np.arange(1, len(entropy) - 1)
    residuals = np.array([_residuals(entropy[: b + 1]).sum() + _residuals(entropy[b - 1 :])[1:].sum() for b in breaks])
    best = residuals <= residuals.min() + KNEE_TIE * np.abs(entropy).max()
    return int(breaks[best][0])


def _residuals(y: np.ndarray) -> np.ndarray:  # (n,) -> (n,)
    """Absolute residuals of the least-squares line through ``y`` at 0, 1, ..."""
    x = np.arange(len(y)) - (len(y) - 1) / 2
    y = y - y.mean()
    return np.abs(y - (x @ y) / (x @ x) * x)


def optimal_t(landmark_op: np.ndarray, t_max: int = 100) -> int:
    """Step 9: the knee of the entropy curve."""
    return knee(von_neumann_entropy(landmark_op, t_max))


@np.errstate(under="ignore")
def diffusion_potential(landmark_op: np.ndarray, t: int, gamma: float = 0) -> np.ndarray:  # (L, L)
    """Step 10: of Q = landmark_op^t, -ln(Q + 1e-7) for gamma 1, Q for -1, else Q^c / c with c = (1 - gamma)/2."""
    diffused = np.linalg.matrix_power(landmark_op, t)
    if gamma == 1:
        return -np.log(diffused + 1e-7)
    if gamma == -1:
        return diffused
    c = (1 - gamma) / 2
    return diffused**c / c


@np.errstate(under="ignore")
def potential_distances(potential: np.ndarray, metric: str = "euclidean") -> np.ndarray:  # (L, L)
    """Step 11: distances between the rows, "euclidean" or "cosine" (1 between a row of zeros and any other row)."""
    if metric != "cosine":
        return cdist(potential, potential, metric=metric)
    largest = np.abs(potential).max(1, keepdims=True)
    rows = potential / np.where(largest > 0, largest, 1)  # no norm overflows
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows / np.where(norms > 0, norms, 1)
    distances = cdist(rows, rows, "sqeuclidean") / 2
    zero = norms[:, 0] == 0
    distances[zero] = distances[:, zero] = 1
    np.fill_diagonal(distances, 0)
    return distances
