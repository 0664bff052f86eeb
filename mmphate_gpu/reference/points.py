"""Steps 1 and 2 of docs/method.md: a trace as one point per node."""

from __future__ import annotations

import numpy as np

_EPS = np.finfo(np.float64).eps


def _stacked(trace: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Values, and whether each is present, as (S, M, P) of a trace (E, T, M, P) or (S, M, P)."""
    values = np.asarray(trace, dtype=np.float64)
    if mask is None and np.ma.isMaskedArray(trace):
        mask = ~np.ma.getmaskarray(trace)
    present = np.ones(values.shape, dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
    if present.ndim == 2:  # (timestep, sample) or (slice, sample): the same for every unit
        present = present[:, None, :]
    present = np.broadcast_to(present, values.shape)
    shape = (-1, *values.shape[-2:])
    return values.reshape(shape), present.reshape(shape)


@np.errstate(under="ignore")
def flat_points(trace: np.ndarray, *, mask: np.ndarray | None = None) -> np.ndarray:  # (S, M, P)
    """The points without step 1: the values, and NaN for masked samples."""
    values, present = _stacked(trace, mask)
    return np.where(present, values, np.nan)


@np.errstate(under="ignore", invalid="ignore", divide="ignore")
def normalize(trace: np.ndarray, *, mask: np.ndarray | None = None) -> np.ndarray:  # (S, M, P)
    """Step 1: scale the present samples of each (slice, unit) to mean 0 and deviation 1 (ddof 0).

    The precision is that of the trace, float64 or else float32, as in the published implementation. It shows in the
    affinity of nearly equal units, by 1e-5 for float32 traces. Masked entries become NaN, and so do all entries of a
    node with fewer than two present samples. A dead unit, whose samples are all equal, becomes the zero vector. Its
    values decide that, because with the rounding of the mean a constant like 0.1 has a deviation of 1e-17.
    """
    values, mean, deviation, present, _ = _standard(trace, mask)
    scores = np.where(_constant(values, present), 0, (values - mean) / deviation)
    return np.where(present & _scored(present)[..., None], scores, np.nan).astype(np.float64)


@np.errstate(under="ignore", invalid="ignore", divide="ignore")
def resolution(
    trace: np.ndarray, *, normalize: bool = True, mask: np.ndarray | None = None
) -> np.ndarray:  # (S, M, P) -> (S, M)
    """Four times the rounding of every point, in the precision of the trace. Nearer points may differ by rounding only.

    The rounding of a sample is in proportion to its size. Step 1 divides it by the deviation, so the rounding of a
    z-score has the root mean square eps sqrt(mean^2 + deviation^2) / deviation, which is limited to 1. The least
    resolution is the float64 epsilon; without step 1 it is multiplied by the norm of the largest point. As distances
    are, it is scaled from the present samples to all. A node that is left out of the graph has NaN.
    """
    dtype = np.asarray(trace).dtype
    info = np.finfo(dtype if dtype in (np.float16, np.float64) else np.float32)
    eps = float(info.eps)
    values, mean, deviation, present, exponent = _standard(trace, mask)
    count, n_samples = present.sum(-1), present.shape[-1]
    if normalize:
        # Subnormal samples are rounded to a multiple of eps * tiny.
        size = np.maximum(np.hypot(mean, deviation), np.ldexp(info.tiny, -exponent))
        relative = np.minimum(4 * eps * size / deviation, 1) * np.sqrt(n_samples)
        least = np.maximum(np.where(_constant(values, present), 0, relative)[..., 0], _EPS)
        return np.where(_scored(present), least, np.nan).astype(np.float64)
    squares = np.nansum(flat_points(trace, mask=mask) ** 2, axis=-1)
    norms = np.sqrt(n_samples / count * squares)
    return np.maximum(4 * eps * norms, _EPS * (np.nanmax(norms) or 1))


def _scored(present: np.ndarray) -> np.ndarray:  # (S, M, P) -> (S, M)
    """Whether a node has a z-score: two samples, or all of a trace with a single one."""
    return present.sum(axis=-1) >= min(2, present.shape[-1])


def _standard(
    trace: np.ndarray, mask: np.ndarray | None
) -> tuple[np.ndarray, ...]:  # (S, M, P), (S, M, 1), (S, M, 1), (S, M, P), (S, M, 1)
    """Values, mean and deviation in the precision of the trace, presence, and the exponent of the scale.

    Each (slice, unit) is scaled by the power of two that brings its largest sample near 1. The scaling rounds nothing,
    and afterwards no square overflows or vanishes.
    """
    values, present = _stacked(trace, mask)
    if np.asarray(trace).dtype != np.float64:
        values = values.astype(np.float32)
    largest = np.where(present, np.abs(values), 0).max(axis=-1, keepdims=True)
    exponent = np.clip(np.frexp(largest)[1], -1022, 1022)
    values = np.ldexp(values, -exponent)
    mean = _mean(values, present)
    centered = np.where(present, values - mean, 0)
    spread = np.where(present, centered - _mean(centered, present), 0)
    deviation = np.sqrt(_mean(spread**2, present))
    return values, mean, np.where((deviation == 0) | _constant(values, present), 1, deviation), present, exponent


def _mean(values: np.ndarray, present: np.ndarray) -> np.ndarray:  # (S, M, 1), in the dtype of the values
    count = present.sum(axis=-1, keepdims=True).astype(values.dtype)
    return np.where(present, values, 0).sum(axis=-1, keepdims=True) / count


def reduce(points: np.ndarray, n_pca: int | None = 100) -> np.ndarray:  # (S, M, P) -> (S, M, D)
    """Step 2, if P > n_pca: principal component scores of the N x P matrix, which is centered over all nodes.

    Points with missing samples (NaN) are not reduced, because a score needs every sample.
    The entry of largest magnitude of each loading is positive.
    """
    n_slices, n_units, n_samples = points.shape
    if n_pca is None or n_samples <= n_pca or np.isnan(points).any():
        return points
    rows = points.reshape(-1, n_samples)
    rows = rows - rows.mean(axis=0)
    loadings = np.linalg.svd(rows, full_matrices=True)[2][:n_pca]  # (D, P)
    lead = np.take_along_axis(loadings, np.abs(loadings).argmax(axis=1)[:, None], axis=1)
    scores = rows @ (loadings * np.where(lead < 0, -1, 1)).T
    return scores.reshape(n_slices, n_units, n_pca)


def _constant(values: np.ndarray, present: np.ndarray) -> np.ndarray:  # (S, M, 1) bool
    low = values.min(axis=-1, where=present, initial=np.inf, keepdims=True)
    high = values.max(axis=-1, where=present, initial=-np.inf, keepdims=True)
    return low == high
