"""Starts of SMACOF besides classical MDS: layouts in more dimensions, from which the surplus is squeezed out."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .classic import classic
from .smacof import PLAIN_BELOW, SmacofRun, in_float32, one_sweep, run_to_end

# Dimensions that each further start has more than the one before.
SURPLUS = 2
# Sweeps in all dimensions, and sweeps in which the surplus shrinks to 0.
WIDE_SWEEPS, SQUEEZES = 15, 20
WIDE_EPS = 1e-4
# Few landmarks take this many times as many sweeps, which cost milliseconds: 40 points on a line need them.
PATIENCE = 4


def further_starts(
    distances: torch.Tensor, n_components: int, n_starts: int, generator: torch.Generator | None
) -> Iterator[torch.Tensor]:  # (L, C) each
    """Up to ``n_starts`` layouts, squeezed from those in `start_dimensions`."""
    for n_dimensions in start_dimensions(n_components, n_starts, len(distances)) if bool(distances.any()) else ():
        wide = classic(distances, n_dimensions, generator=generator)
        yield squeezed(distances, wide, n_components)


def start_dimensions(n_components: int, n_starts: int, n_landmarks: int) -> list[int]:
    """2, 4, ... more than ``n_components``, up to the L - 1 dimensions that L points span."""
    last = min(n_components + SURPLUS * n_starts, n_landmarks)
    return [min(n, n_landmarks - 1) for n in range(n_components + SURPLUS, last + 1, SURPLUS)]


def squeezed(distances: torch.Tensor, wide: torch.Tensor, n_components: int) -> torch.Tensor:  # (L, k) -> (L, C)
    """Lower the stress of ``wide`` in its k dimensions, then scale the last k - C principal axes to 0 step by step.

    In more dimensions the stress has fewer minima, because points go past each other. As the surplus shrinks, each
    sweep brings the points back to a low stress, so that they end in one of the lower minima of C dimensions. Costs
    about as much as a descent. Deterministic.
    """
    largest, rough = distances.max(), in_float32(distances)
    times = PATIENCE if len(distances) < PLAIN_BELOW else 1
    points = run_to_end(SmacofRun(rough, wide / largest, times * WIDE_SWEEPS, WIDE_EPS)).coordinates
    points = _on_principal_axes(points)
    for squeeze in range(1, times * SQUEEZES + 1):
        points, _ = one_sweep(rough, points)
        points[:, n_components:] *= 1 - squeeze / (times * SQUEEZES)
    return points[:, :n_components] * largest


def _on_principal_axes(points: torch.Tensor) -> torch.Tensor:  # (L, k), centered
    return points @ torch.linalg.eigh(points.T @ points).eigenvectors.flip(1)
