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


def masked_stratified_clusters(
    points: torch.Tensor, n_landmark: int, *, generator: torch.Generator | None = None
) -> torch.Tensor:  # (S, M, D) -> (N',) int64
    """`stratified_clusters` of points in which NaN is a missing sample; nodes without any sample have no label.

    A missing sample is taken as the mean of those of its point. The units are clustered one after another, because
    they may have different slices.
    """
    share, more = shares(n_landmark, points.shape[1])
    labels = torch.full(points.shape[:2], -1, dtype=torch.int64, device=points.device)
    for unit in range(points.shape[1]):
        slices = torch.nonzero(~points[:, unit].isnan().all(-1)).squeeze(1)
        if len(slices):
            present = points[slices, unit]
            filled = torch.where(present.isnan(), present.nanmean(-1, keepdim=True), present)
            clusters = kmeans(filled, share + (unit < more), generator=generator)
            labels[slices, unit] = clusters + labels.max() + 1
    return labels[labels >= 0]


def shares(n_landmark: int, n_units: int) -> tuple[int, int]:
    """The landmarks of every unit, and the number of units that have one more."""
    if n_landmark < n_units:
        raise InputError(
            f"n_landmark={n_landmark} is less than one for each of {n_units} units; accepted with "
            f"landmarks='stratified': at least {n_units}"
        )
    return divmod(n_landmark, n_units)
