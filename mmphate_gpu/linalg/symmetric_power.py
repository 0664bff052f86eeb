"""Powers of a symmetric matrix."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .symmetric_product import symmetric_product


def symmetric_power(matrix: torch.Tensor, t: int) -> torch.Tensor:  # (n, n) float64 -> (n, n)
    """``matrix^t``, t >= 1, by the few products of `power_chain`, each at half its cost.

    For a matrix without negative entries every entry, however small, has a relative error of about t n eps, and zeros
    stay zeros. A low-rank form by eigenvectors would leave errors of 1e-16, which a square root turns into 1e-8.
    O(n^3 log t) time and `most_powers` matrices of memory; that of ``matrix`` is freed after its last use, unless the
    caller holds it. Deterministic.
    """
    powers = {1: matrix}
    del matrix
    for n, a, needed in _steps(t):
        powers[n + a] = symmetric_product(powers[n], powers[a])
        powers = {exponent: power for exponent, power in powers.items() if exponent in needed}
    return powers[t]


def most_powers(t: int) -> int:
    """The most powers that `symmetric_power` holds at once on the way to the ``t``-th, with the first and the last.

    >>> most_powers(1), most_powers(2), most_powers(31)
    (1, 2, 4)
    """
    held, most = {1}, 1
    for n, a, needed in _steps(t):
        held |= {n + a}
        most = max(most, len(held))
        held &= needed
    return most


def _steps(t: int) -> Iterator[tuple[int, int, set[int]]]:
    """`power_chain`, and the exponents that are needed after each step."""
    chain = power_chain(t)
    for place, (n, a) in enumerate(chain):
        yield n, a, {t}.union(*chain[place + 1 :])


def power_chain(t: int) -> list[tuple[int, int]]:
    """Pairs (n, a) of exponents whose sums lead from 1 to t; each exponent is 1 or an earlier sum.

    They come from Knuth's power tree, built level by level until ``t`` appears: 7 products for 31, where squaring takes
    8. Above 512, where the tree grows large, they come from squaring. Source: Knuth, The Art of Computer Programming,
    vol. 2, 4.6.3.
    """
    if t > 512:
        half = power_chain(t // 2)
        return [*half, (t // 2, t // 2), *([(t - 1, 1)] if t % 2 else [])]
    parents, level = {1: 0}, [1]
    while t not in parents:
        level = [child for n in level for child in _children(n, parents)]
    path = _path(t, parents)
    return [(n, child - n) for n, child in zip(path, path[1:], strict=False)]


def _children(n: int, parents: dict[int, int]) -> list[int]:
    """The new sums of n and exponents on its path; they are added to the tree."""
    new = [n + a for a in _path(n, parents) if n + a not in parents]
    parents.update(dict.fromkeys(new, n))
    return new


def _path(n: int, parents: dict[int, int]) -> list[int]:
    return [*(_path(parents[n], parents) if parents[n] else []), n]
