"""Powers of a symmetric matrix."""

from __future__ import annotations

import torch

from .symmetric_product import symmetric_product


def symmetric_power(matrix: torch.Tensor, t: int) -> torch.Tensor:  # (n, n) float64 -> (n, n)
    """``matrix^t``, t >= 1, by few products, each at half its cost (`power_chain`).

    For a matrix without negative entries every entry comes out to a relative error of about t n eps, the tiny ones
    too, and zeros stay zeros: a low-rank form through eigenvectors leaves 1e-16 on every entry, and a square root
    turns that into 1e-8. O(n^3 log t) time, 3 to 5 matrices of memory. Deterministic.
    """
    chain = power_chain(t)
    powers = {1: matrix}
    for place, (n, a) in enumerate(chain):
        powers[n + a] = symmetric_product(powers[n], powers[a])
        later = {part for step in chain[place + 1 :] for part in step}
        powers = {exponent: power for exponent, power in powers.items() if exponent in later or exponent == n + a}
    return powers[t]


def power_chain(t: int) -> list[tuple[int, int]]:
    """Pairs (n, a) of exponents to add, one after the other, that lead from 1 to t; each is 1 or an earlier sum.

    Knuth's power tree, level by level until ``t`` appears: 7 products for 31, where squaring takes 8. Above 512, where
    the tree grows large, by squaring. Source: Knuth, The Art of Computer Programming, vol. 2, 4.6.3.
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
    """The sums of n and what leads to it that the tree does not have yet; they are added to it."""
    new = [n + a for a in _path(n, parents) if n + a not in parents]
    parents.update(dict.fromkeys(new, n))
    return new


def _path(n: int, parents: dict[int, int]) -> list[int]:
    return [*(_path(parents[n], parents) if parents[n] else []), n]
