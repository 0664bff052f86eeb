"""Steps 9 to 11: diffusion time, potential and its distances."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

# Breaks whose residuals differ by less than this share of the largest |entropy| are equals: that is rounding.
KNEE_TIE = 1e-12


@np.errstate(under="ignore")
def von_neumann_entropy(landmark_op: np.ndarray, t_max: int = 100) -> np.ndarray:  # (J, J) -> (t_max,)
    """Step 9: H(i) = -sum w ln w, w = s^(i+1) / sum s^(i+1) + 2.2e-16, s the singular values."""
    singular = np.linalg.svd(landmark_op, compute_uv=False)
    return np.array([_entropy(singular ** (i + 1)) for i in range(t_max)])


def _entropy(spectrum: np.ndarray) -> float:
    weights = spectrum / spectrum.sum() + np.finfo(np.float64).eps
    return float(-(weights * np.log(weights)).sum())


def knee(entropy: np.ndarray) -> int:
    """Step 9: the break b whose two least-squares lines, over 0..b and b..end, leave the least absolute residuals.

    Of breaks that are equals (`KNEE_TIE`) the first.
    """
    breaks = np.arange(1, len(entropy) - 1)
    steps = np.arange(len(entropy), dtype=np.float64)
    residuals = np.array(
        [_line_residual(steps[: b + 1], entropy[: b + 1]) + _line_residual(steps[b:], entropy[b:]) for b in breaks]
    )
    equals = residuals <= residuals.min() + KNEE_TIE * np.abs(entropy).max()
    return int(breaks[equals][0])


def _line_residual(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    slope = (x @ y) / (x @ x)
    return float(np.abs(y - slope * x).sum())


def optimal_t(landmark_op: np.ndarray, t_max: int = 100) -> int:
    """Step 9: the knee of the entropy curve."""
    return knee(von_neumann_entropy(landmark_op, t_max))


@np.errstate(under="ignore")
def diffusion_potential(landmark_op: np.ndarray, t: int, gamma: float = 0) -> np.ndarray:  # (J, J)
    """Step 10: of Q = landmark_op^t, -ln(Q + 1e-7) for gamma 1, Q for -1, else Q^c / c with c = (1 - gamma)/2."""
    diffused = np.linalg.matrix_power(landmark_op, t)
    if gamma == 1:
        return -np.log(diffused + 1e-7)
    if gamma == -1:
        return diffused
    c = (1 - gamma) / 2
    return diffused**c / c


@np.errstate(under="ignore")
def potential_distances(potential: np.ndarray, metric: str = "euclidean") -> np.ndarray:  # (J, J)
    """Step 11: distances between the rows, "euclidean" or "cosine"."""
    return cdist(potential, potential, metric=metric)
