"""How far partitions agree: adjusted Rand index, modularity, and numbers that communities keep over time."""

from __future__ import annotations

import numpy as np

from .partitions import one_hot


def adjusted_rand(first: np.ndarray, second: np.ndarray) -> np.ndarray:  # (..., n), (..., n) -> (...)
    """The adjusted Rand index of partitions, over the points that have a label in both (-1 is none).

    1 for equal partitions, 0 on average for independent ones of the same sizes; 1 if both are trivial, and NaN for
    fewer than two such points. Leading axes broadcast. O(n k^2) time.

    Source: Hubert and Arabie, Journal of Classification 2, 1985.
    """
    first, second = np.broadcast_arrays(first, second)
    either = (first < 0) | (second < 0)
    sides = [one_hot(np.where(either, -1, side), int(side.max(initial=0)) + 1) for side in (first, second)]
    table = sides[0].swapaxes(-1, -2) @ sides[1]  # (..., k, l)
    both, rows, columns, pairs = (
        _pairs(counts).sum(axis)
        for counts, axis in ((table, (-2, -1)), (table.sum(-1), -1), (table.sum(-2), -1), (table.sum((-2, -1)), ()))
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        chance, largest = rows * columns / pairs, (rows + columns) / 2
        return np.where(largest == chance, 1.0, (both - chance) / (largest - chance))


def _pairs(counts: np.ndarray) -> np.ndarray:
    return counts * (counts - 1) / 2


def seed_stability(labels: np.ndarray) -> float:  # (r, n)
    """The mean adjusted Rand index of all pairs of partitions; NaN for a single partition."""
    if len(labels) < 2:
        return np.nan
    table = adjusted_rand(labels[:, None], labels[None])
    return float(table[np.triu_indices(len(labels), 1)].mean())


def modularity(affinity: np.ndarray, labels: np.ndarray) -> float:  # (m, m), (m,)
    """The weighted modularity sum_ij (w_ij - d_i d_j / w) [c_i = c_j] / w, with degrees d and total w.

    The diagonal counts as 0, and points without a community (-1) do not count. NaN without any affinity. Source:
    Newman, Physical Review E 70, 056131, 2004.
    """
    kept = np.flatnonzero(labels >= 0)
    weights, labels = affinity[np.ix_(kept, kept)] * (1 - np.eye(len(kept))), labels[kept]
    degrees, total = weights.sum(0), weights.sum()
    if total == 0:
        return np.nan
    expected = np.outer(degrees, degrees) / total
    return float(((weights - expected) * (labels[:, None] == labels)).sum() / total)


def aligned(labels: np.ndarray) -> np.ndarray:  # (g, M) -> (g, M)
    """The partitions with numbers that a community keeps from row to row: those of the largest total overlap.

    The first row is numbered in the order of its units. A community without an overlap takes the least free number.
    """
    rows = [_in_order(labels[0])]
    for row in labels[1:]:
        rows.append(_renumbered(_in_order(row), rows[-1]))
    return np.stack(rows)


def _in_order(labels: np.ndarray) -> np.ndarray:  # (M,)
    """The communities as 0, 1, ... in the order of their first units; -1 stays."""
    result = np.full_like(labels, -1)
    names = dict.fromkeys(labels[labels >= 0].tolist())
    for number, name in enumerate(names):
        result[labels == name] = number
    return result


def _renumbered(labels: np.ndarray, before: np.ndarray) -> np.ndarray:  # (M,), (M,) -> (M,)
    from scipy.optimize import linear_sum_assignment

    sizes = [int(side.max(initial=-1)) + 1 for side in (labels, before)]
    overlap = one_hot(labels, sizes[0]).T @ one_hot(before, sizes[1])
    pairs = zip(*linear_sum_assignment(-overlap), strict=True)
    numbers = {int(new): int(old) for new, old in pairs if overlap[new, old] > 0}
    free = (number for number in range(sum(sizes)) if number not in numbers.values())
    table = np.array([numbers[new] if new in numbers else next(free) for new in range(sizes[0])] + [-1])
    return table[labels]
