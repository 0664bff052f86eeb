"""Landmark clusters without a spectrum: k-means of the points of each unit, which gets its share of landmarks."""

from __future__ import annotations

import torch

from ..errors import InputError
from ..linalg.kmeans import kmeans
from ..slices import unit_major


def stratified_clusters(
    points: torch.Tensor, n_landmark: int, *, generator: torch.Generator | None = None
) -> torch.Tensor:  # (S, M, D) -> (N,) int64
    """Clusters of nodes of one unit each; at most ``n_landmark``, none empty.

    The first ``n_landmark % M`` units have one cluster more than the others. O(N D n_landmark / M) time per step of
    k-means. Deterministic for one generator state.

    These clusters follow the activity of single units and not the diffusion, so t and the picture differ from those of
    spectral clusters (docs/decisions.md, "Stratified landmarks").

    Raises
    ------
    InputError
        Fewer landmarks than units.
    """
    share, more = shares(n_landmark, points.shape[1])
    by_unit = unit_major(points)
    groups = [(by_unit[:more], share + 1), (by_unit[more:], share)]
    labels = [kmeans(units, k, generator=generator) for units, k in groups if len(units)]
    if len(labels) == 2:
        labels[1] += int(labels[0].max()) + 1
    return torch.cat(labels).T.flatten()


def shares(n_landmark: int, n_units: int) -> tuple[int, int]:
    """The landmarks of every unit, and the number of units that have one more."""
    if n_landmark < n_units:
        raise InputError(
            f"n_landmark={n_landmark} is less than one for each of {n_units} units; accepted with "
            f"landmarks='stratified': at least {n_units}"
        )
    return divmod(n_landmark, n_units)
