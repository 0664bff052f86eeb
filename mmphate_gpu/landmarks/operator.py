"""The landmark operator and the transitions between nodes and landmarks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..errors import InputError, InputTypeError, check_number
from ..linalg.components import Components, components
from ..linalg.random import seeded_generator
from ..linalg.sparse_gram import sparse_gram
from ..operators import AffinityOperator
from ..ops import csr as csr_ops
from ..ops.csr import Csr
from ..params import Labels, check_landmarks
from ..runtime.arrays import real_tensor
from ..runtime.isolation import isolated
from ..runtime.memory import check_fits
from .spectral import spectral_clusters
from .stratified import stratified_clusters


@dataclass(frozen=True, eq=False)
class Landmarks:
    """What the landmark stage hands on. Without landmarks L = N and the transitions are the identity."""

    landmark_op: torch.Tensor  # (L, L) float64, rows sum to 1
    transitions: torch.Tensor  # (N, L) sparse CSR, rows sum to 1
    clusters: torch.Tensor  # (N,) int64
    degrees: torch.Tensor | None = None  # (L,) float64: diag(degrees) @ landmark_op is symmetric
    groups: Components | None = None  # the connected components of landmark_op


@isolated()
def landmark_diffusion(
    operator: AffinityOperator,
    *,
    n_landmark: int | None = 4000,
    n_svd: int = 100,
    landmarks: Any = "spectral",
    points: Any = None,
    clusters: torch.Tensor | None = None,
    random_state: int | None = None,
) -> Landmarks:
    """Landmark operator of an affinity (METHOD step 8).

    With M = K onehot(clusters): ``transitions`` = row-normalised M, ``landmark_op`` = row-normalised M^T times
    transitions.

    Parameters
    ----------
    operator : AffinityOperator (N, N)
    n_landmark : int or None
        None, or a number of at least N: no landmarks, ``landmark_op`` = D^-1 K, dense.
    landmarks : {"spectral", "stratified"} or (N,) integers
        How nodes are put together: by k-means of the leading singular vectors of the diffusion affinity, or of the
        ``points`` of one unit after the other, or as given, whatever ``n_landmark``. Numbers that do not occur are
        dropped.
    points : (S, M, D), optional
        What the affinity was made of, which ``landmarks="stratified"`` needs.
    clusters : (N,) integers, optional
        ``landmarks`` that are given, by their other name.

    Raises
    ------
    InputError, InputTypeError
        Labels of another length, negative, or no integers; no ``points`` where they are needed, of another shape or
        not finite, or fewer landmarks than units; an N x N operator that does not fit in memory.

    Notes
    -----
    Cost: "spectral" about seven products with ``n_svd`` + 10 columns and k-means O(N n_landmark n_svd) a step,
    "stratified" k-means O(N D n_landmark / M) a step; then one aggregation.
    Deterministic for one ``random_state``, device, dtype and thread count.
    """
    if n_landmark is not None:
        check_number("n_landmark", n_landmark, low=2, integer=True)
    check_number("n_svd", n_svd, low=1, integer=True)
    if not isinstance(operator, AffinityOperator):
        raise InputTypeError(f"operator is a {type(operator).__name__}; accepted: an AffinityOperator")
    n_nodes = operator.shape[0]
    chosen = _chosen(landmarks, clusters)
    if isinstance(chosen, Labels):
        labels = torch.unique(chosen.of_nodes(n_nodes), return_inverse=True)[1]
        return _from_clusters(operator, labels.to(operator.device))
    if chosen == "stratified":  # wrong points are an error where no landmarks are needed too
        points = _checked(points, operator)
    if n_landmark is None or n_landmark >= n_nodes:
        return _without_landmarks(operator)
    generator = seeded_generator(random_state)
    if chosen == "stratified":
        labels = stratified_clusters(points, n_landmark, generator=generator)
    else:
        labels = spectral_clusters(operator, operator.row_sums(), n_landmark, n_svd=n_svd, generator=generator)
    return _from_clusters(operator, labels)


def _chosen(landmarks: Any, clusters: Any) -> str | Labels:
    if clusters is None:
        return check_landmarks(landmarks)
    if not (isinstance(landmarks, str) and landmarks == "spectral"):
        raise InputError("landmarks and clusters are both given; accepted: one of them")
    return Labels(clusters, "clusters")


def _checked(points: Any, operator: AffinityOperator) -> torch.Tensor:  # (S, M, D) float64
    if points is None:
        raise InputTypeError("landmarks='stratified' needs points; accepted: those of the affinity, (S, M, D)")
    found, n_nodes = real_tensor("points", points), operator.shape[0]
    if found.ndim != 3 or found.shape[0] * found.shape[1] != n_nodes or found.shape[2] == 0:
        raise InputError(f"points has shape {tuple(found.shape)}; accepted: (S, M, D) with S * M = {n_nodes} nodes")
    if not all(bool(extreme.isfinite()) for extreme in torch.aminmax(found)):  # NaN is both extremes
        place = tuple(torch.nonzero(~found.isfinite())[0].tolist())
        raise InputError(f"points is not finite at {place} (the first such place); accepted: finite numbers")
    # Products of float32 points would not tell slices apart that differ in their last digits.
    return found.to(device=operator.device, dtype=torch.float64)


def _from_clusters(operator: AffinityOperator, labels: torch.Tensor) -> Landmarks:
    n = int(labels.max()) + 1
    aggregated = operator.aggregate(labels, n)
    degrees = csr_ops.row_sums(aggregated)
    gram = sparse_gram(aggregated, 1 / degrees)
    # Column sums of M are the row sums of M^T D^-1 M, since D^-1 M has rows that sum to 1.
    landmark_degrees = gram.sum(1)
    transitions = csr_ops.scale(aggregated, rows=1 / degrees)
    landmark_op = gram.div_(landmark_degrees[:, None])
    groups = components(landmark_op)
    return Landmarks(landmark_op, csr_ops.to_torch(transitions), labels, landmark_degrees, groups)


def _without_landmarks(operator: AffinityOperator) -> Landmarks:
    n = operator.shape[0]
    check_fits(
        f"the dense diffusion operator of {n:,} nodes",
        3 * n * n * 8,
        operator.device,
        remedy="a smaller n_landmark helps",
    )
    # Not `to_dense`, which shows what a form multiplies with: tiles round that to half.
    dense = csr_ops.to_torch(operator.to_csr()).to_dense().double()
    nodes = torch.arange(n, device=operator.device)
    ones = torch.ones(n, dtype=operator.dtype, device=operator.device)
    identity = Csr(torch.arange(n + 1, device=operator.device), nodes, ones, (n, n))
    degrees = dense.sum(1)
    landmark_op = dense.div_(degrees[:, None])
    return Landmarks(landmark_op, csr_ops.to_torch(identity), nodes, degrees, components(landmark_op))
