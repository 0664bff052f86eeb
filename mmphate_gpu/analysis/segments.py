"""The best lines through consecutive parts of a curve, and how many parts the curve supports."""

from __future__ import annotations

import itertools

import numpy as np

# A sum of squares below this share of the total is rounding, so a curve without noise gets no further lines for it.
_ROUNDING = 1e-12
_AUTOCORRELATIONS = np.linspace(0, 0.99, 100)


def best_edges(x: np.ndarray, y: np.ndarray, max_lines: int, min_length: int) -> list[np.ndarray]:
    """For 1, 2, ... ``max_lines`` lines, the edges of the parts with the least sum of squared residuals.

    A part is ``edges[i]:edges[i + 1]`` and has at least ``min_length`` points; lines need not meet. Exact, by dynamic
    programming over the end of the last part: O(n^2 max_lines) time and O(n max_lines) memory for n points. The list
    ends where the points are too few.
    """
    n = len(y)
    best = np.full((max_lines + 1, n + 1), np.inf)
    begin = np.zeros((max_lines + 1, n + 1), dtype=np.int64)  # where the last part begins
    best[0, 0] = 0
    for stop in range(min_length, n + 1):
        starts = slice(0, stop - min_length + 1)
        sums = best[:-1, starts] + squares_to_the_end(x[:stop], y[:stop])[starts]
        begin[1:, stop], best[1:, stop] = sums.argmin(1), sums.min(1)
    return [_edges(begin, lines, n) for lines in range(1, max_lines + 1) if np.isfinite(best[lines, n])]


def _edges(begin: np.ndarray, lines: int, n: int) -> np.ndarray:
    edges = [n]
    for i in range(lines, 0, -1):
        edges.append(int(begin[i, edges[-1]]))
    return np.array(edges[::-1])


def squares_to_the_end(x: np.ndarray, y: np.ndarray) -> np.ndarray:  # (n,)
    """For every start, the sum of squared residuals of the least squares line through the points from it to the last.

    The sums run backwards from the last point and relative to it, so they lose no digits to a far origin.
    """
    dx, dy, n = x[::-1] - x[-1], y[::-1] - y[-1], np.arange(1, len(x) + 1)
    sx, sy = dx.cumsum(), dy.cumsum()
    xx, xy, yy = (
        (a * b).cumsum() - sa * sb / n for a, b, sa, sb in ((dx, dx, sx, sx), (dx, dy, sx, sy), (dy, dy, sy, sy))
    )
    slope = np.divide(xy, xx, out=np.zeros_like(xx), where=xx > 0)
    return np.maximum(yy - slope * xy, 0)[::-1]


def supported_edges(x: np.ndarray, y: np.ndarray, *, max_lines: int, min_length: int, penalty: float) -> np.ndarray:
    """The edges of at most ``max_lines`` lines whose number has the least criterion.

    The criterion is BIC with residuals that are autoregressive of order 1,
    ``n log(innovation variance) - log(1 - rho^2) + penalty (3 k + 1) log n``: 2 parameters a line, k - 1 breaks, the
    variance and rho. Its minimum over up to twice as many lines sets rho. If too few lines are allowed for the curve,
    their residuals would give a large rho, which explains the curve without any break.
    """
    least = _ROUNDING * np.square(y - y.mean()).sum() + len(y) * rounding(y) ** 2
    options = best_edges(x, y, 2 * max_lines, min_length)
    n_parameters = 3 * np.arange(1, len(options) + 1)[:, None] + 1
    misfits = np.array([misfit_by_autocorrelation(y - lines(x, y, edges), least) for edges in options])
    criterion = misfits + penalty * n_parameters * float(np.log(len(y)))
    rho = criterion.min(0).argmin()
    return options[int(criterion[:max_lines, rho].argmin())]


def autocorrelation(residuals: np.ndarray) -> float:
    """The rho in [0, 1) of the autoregression of order 1 that fits best."""
    return float(_AUTOCORRELATIONS[misfit_by_autocorrelation(residuals).argmin()])


def misfit_by_autocorrelation(residuals: np.ndarray, least: float = 0.0) -> np.ndarray:  # (100,)
    """Twice the negative log-likelihood of an autoregression of order 1 with each rho from 0 to 0.99.

    ``least`` is the least sum of squares that counts.
    """
    rho, tiny = _AUTOCORRELATIONS, np.finfo(np.float64).tiny
    lagged, inner = residuals[1:] @ residuals[:-1], residuals[1:-1] @ residuals[1:-1]
    squares = np.maximum(residuals @ residuals - 2 * rho * lagged + rho**2 * inner, max(least, tiny))
    return len(residuals) * np.log(squares / len(residuals)) - np.log(1 - rho**2)


def lines(x: np.ndarray, y: np.ndarray, edges: np.ndarray) -> np.ndarray:  # (n,)
    """The values at ``x`` of the least squares lines through the parts between ``edges``."""
    slope, part = slope_weights(x, edges) @ y, part_of(edges)
    size = np.bincount(part)
    level = np.bincount(part, y) / size - slope * np.bincount(part, x) / size
    return level[part] + slope[part] * x


def slope_weights(x: np.ndarray, edges: np.ndarray) -> np.ndarray:  # (k, n)
    """The matrix whose product with values at ``x`` has the slope of each part."""
    weights = np.zeros((len(edges) - 1, len(x)))
    for i, (start, stop) in enumerate(itertools.pairwise(edges)):
        centered = x[start:stop] - x[start:stop].mean()
        weights[i, start:stop] = centered / (centered @ centered)
    return weights


def rounding(y: np.ndarray) -> float:
    """A difference that may come from the rounding of values as large as those of ``y``."""
    return 64 * float(np.finfo(np.float64).eps) * float(np.abs(y).max())


def part_of(edges: np.ndarray) -> np.ndarray:  # (n,)
    """The number of the part of every point."""
    return np.repeat(np.arange(len(edges) - 1), np.diff(edges))
