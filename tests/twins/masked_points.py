"""Points that lack features, which are NaN, for the tests of several twins."""

from __future__ import annotations

from collections.abc import Callable

import torch

from mmphate_gpu.linalg.random import seeded_generator

# Points are the time steps of several epochs.
TIMESTEPS = 25


def _by_time(n: int, of_time: torch.Tensor) -> torch.Tensor:  # (T, p) -> (n, p)
    return of_time[torch.arange(n) % len(of_time)]


def _lengths(shape: tuple[int, ...]) -> torch.Tensor:
    """A feature is a sequence with a length of its own, and the longest one is as long as an epoch."""
    lengths = torch.randint(TIMESTEPS // 2, TIMESTEPS + 1, (shape[2],), generator=seeded_generator(shape[2]))
    lengths[-1] = TIMESTEPS
    return _by_time(shape[1], torch.arange(TIMESTEPS)[:, None] < lengths).expand(shape)


def _random(shape: tuple[int, ...], share: float, *rows: int) -> torch.Tensor:
    return torch.rand(*rows, shape[2], generator=seeded_generator(sum(shape))) < share


def _without_any(shape: tuple[int, ...]) -> torch.Tensor:
    """Every ninth point has no feature, and neither have the last ones."""
    present = _random(shape, 0.7, *shape[:2])
    present[:, ::9], present[:, -min(3, shape[1] - 1) :] = False, False
    return present


def _two_halves(shape: tuple[int, ...]) -> torch.Tensor:
    """Points of different parity have one feature in common at most, the middle one if p is odd."""
    feature, odd = torch.arange(shape[2]), torch.arange(shape[1])[:, None] % 2 == 1
    return torch.where(odd, 2 * feature + 1 <= shape[2], 2 * feature + 1 >= shape[2]).expand(shape)


# Which features points of a shape (B, n, p) have.
PRESENT: dict[str, Callable[[tuple[int, ...]], torch.Tensor]] = {
    "lengths": _lengths,
    "by slice": lambda shape: _by_time(shape[1], _random(shape, 0.7, TIMESTEPS)).expand(shape),
    "by node": lambda shape: _random(shape, 0.6, *shape[:2]),
    "without any": _without_any,
    "two halves": _two_halves,
    "all": lambda shape: torch.ones(shape, dtype=torch.bool),
}


def lacking(points: torch.Tensor, name: str) -> torch.Tensor:
    """``points`` (B, n, p) without the features that ``PRESENT[name]`` leaves out."""
    return points.masked_fill(~PRESENT[name](tuple(points.shape)), torch.nan)
