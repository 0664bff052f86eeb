"""The landmark operator and the transitions between nodes and landmarks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch

from ..errors import InputError, InputTypeError, check_number
from ..linalg.components import Components, components
from ..linalg.random import seeded_generator
from ..linalg.sparse_gram import sparse_gram
from ..operators.protocol import AffinityOperator, check_operator
from ..ops import csr as csr_ops
from ..ops.csr import Csr
from ..params import Labels, check_landmarks
from ..runtime.arrays import real_tensor
from ..runtime.isolation import isolated
from ..runtime.memory import check_fits
from .spectral import spectral_clusters
from .stratified import masked_stratified_clusters, stratified_clusters


@dataclass(frozen=True, eq=False)
class Landmarks:
    """The result of the landmark stage. Without landmarks L = N, and the transitions are the identity."""

    landmark_op: torch.Tensor  # (L, L) float64, rows sum to 1
    transitions: torch.Tensor  # (N, L) sparse CSR, rows sum to 1
    clusters: torch.Tensor  # (N,) int64
    degrees: torch.Tensor | None = None  # (L,) float64: diag(degrees) @ landmark_op is symmetric
    groups: Components | None = None  # the connected components of landmark_op

    @property
    def symmetric_op(self) -> torch.Tensor:  # (L, L) float64
        """`symmetric_form` of the operator, for landmarks that know their ``degrees``."""
        return symmetric_form(self.landmark_op, cast(torch.Tensor, self.degrees))

    @property
    def n_islands(self) -> int:
        """The number of connected components, for landmarks that know their ``groups``."""
        return sum(map(len, self.groups or []))

    def island_sizes(self) -> torch.Tensor:  # (k,) int64
        """The number of nodes in every connected component, for landmarks that know their ``groups``."""
        nodes = torch.bincount(self.clusters, minlength=len(self.landmark_op))
        return torch.cat([nodes[members].sum(1) for members in self.groups or []])


def symmetric_form(landmark_op: torch.Tensor, degrees: torch.Tensor) -> torch.Tensor:  # (L, L), (L,) -> (L, L)
    """diag(degrees)^1/2 @ landmark_op @ diag(degrees)^-1/2, a symmetric matrix with the eigenvalues of ``landmark_op``.

    Its singular values are the absolute values of these eigenvalues.
    """
    root = degrees.sqrt()
    return (root[:, None] * landmark_op).div_(root)


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
    """Landmark operator of an affinity (step 8 of docs/method.md).

    With the affinity K and the one-hot matrix O of the clusters, ``transitions`` is K O with rows normalized to sum 1,
    and ``landmark_op`` is (K O)^T with rows normalized, times ``transitions``.

    Parameters
    ----------
    operator : AffinityOperator (N, N)
    n_landmark : int or None
        None, or at least N: no landmarks, and ``landmark_op`` is diag(d)^-1 K, dense.
    landmarks : {"spectral", "stratified"} or (N,) integers
        How nodes become clusters: by k-means of the leading singular vectors of the diffusion affinity, by k-means of
        the ``points`` of every unit, or by these numbers, whatever ``n_landmark`` is. Numbers that do not occur are
        dropped.
    points : (S, M, D), optional
        The points of the affinity; ``landmarks="stratified"`` needs them.
    clusters : (N,) integers, optional
        Another name for ``landmarks`` that are numbers.

    Raises
    ------
    InputError, InputTypeError
        Labels of another length, negative labels, labels that are no integers; ``points`` that are missing, of another
        shape or not finite; fewer landmarks than units; an N x N operator that does not fit in memory.

    Notes
    -----
    Cost: "spectral" about seven products with ``n_svd`` + 10 columns and k-means O(N n_landmark n_svd) a step,
    "stratified" k-means O(N D n_landmark / M) a step; then one aggregation.
    Deterministic for one ``random_state``, device, dtype and thread count.
    """
    if n_landmark is not None:
        check_number("n_landmark", n_landmark, low=2, integer=True)
    check_number("n_svd", n_svd, low=1, integer=True)
    n_nodes = check_operator(operator).shape[0]
    chosen = _chosen(landmarks, clusters)
    if isinstance(chosen, Labels):
        labels = torch.unique(chosen.of_nodes(n_nodes), return_inverse=True)[1]
        return _from_clusters(operator, labels.to(operator.device))
    if chosen == "stratified":  # wrong points are an error also if no landmarks are needed
        points = _checked(points, operator)
    if n_landmark is None or n_landmark >= n_nodes:
        return _without_landmarks(operator)
    generator = seeded_generator(random_state)
    if chosen == "stratified":
        labels = stratified_clusters(points, n_landmark, generator=generator)
    else:
        labels = spectral_clusters(operator, operator.row_sums(), n_landmark, n_svd=n_svd, generator=generator)
    return _from_clusters(operator, labels)


def masked_landmark_diffusion(
    operator: AffinityOperator,
    points: torch.Tensor,  # (S, M, D), NaN where a sample is missing
    nodes: torch.Tensor | None,  # (N',) int64, those of ``operator``; None if all are
    *,
    landmarks: str | Labels,
    n_landmark: int | None,
    random_state: int | None,
    **options: Any,
) -> Landmarks:
    """`landmark_diffusion` of the affinity of a masked trace. The labels and ``points`` are those of all N nodes.

    "stratified" takes 0, the mean, for a missing z-score. Without normalization it takes the mean of the samples.
    """
    if isinstance(landmarks, Labels):
        labels = landmarks.of_nodes(points.shape[0] * points.shape[1])
        landmarks = Labels(labels if nodes is None else labels[nodes.cpu()])
    elif landmarks == "stratified":
        if n_landmark is None or n_landmark >= operator.shape[0]:
            return _without_landmarks(operator)
        landmarks = Labels(masked_stratified_clusters(points, n_landmark, generator=seeded_generator(random_state)))
    return landmark_diffusion(
        operator, landmarks=landmarks, n_landmark=n_landmark, random_state=random_state, **options
    )


def _chosen(landmarks: Any, clusters: Any) -> str | Labels:
    if clusters is None:
        return check_landmarks(landmarks)
    if not (isinstance(landmarks, str) and landmarks == "spectral"):
        raise InputError("landmarks and clusters are both given; accepted: one of them")
    return Labels(clusters, "clusters")


def _checked(points: Any, operator: AffinityOperator) -> torch.Tensor:  # (S, M, D) float64
    if points is None:
        raise InputTypeError("landmarks='stratified' needs points; accepted: those of the affinity, (S, M, D)")
    tensor, n_nodes = real_tensor("points", points), operator.shape[0]
    if tensor.ndim != 3 or tensor.shape[0] * tensor.shape[1] != n_nodes or tensor.shape[2] == 0:
        raise InputError(f"points has shape {tuple(tensor.shape)}; accepted: (S, M, D) with S * M = {n_nodes} nodes")
    if not all(bool(extreme.isfinite()) for extreme in torch.aminmax(tensor)):  # a NaN makes both extremes NaN
        place = tuple(torch.nonzero(~tensor.isfinite())[0].tolist())
        raise InputError(f"points is not finite at {place} (the first such place); accepted: finite numbers")
    # Products of float32 points cannot distinguish slices that differ in their last digits.
    return tensor.to(device=operator.device, dtype=torch.float64)


def _from_clusters(operator: AffinityOperator, labels: torch.Tensor) -> Landmarks:
    n = int(labels.max()) + 1
    aggregated = operator.aggregate(labels, n)
    degrees = csr_ops.row_sums(aggregated)
    gram = sparse_gram(aggregated, 1 / degrees)
    # The rows of diag(d)^-1 K O sum to 1, so the row sums of (K O)^T diag(d)^-1 (K O) are the column sums of K O.
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
    # `to_dense` would give the entries that a form multiplies, which tiles round to half precision.
    dense = csr_ops.to_torch(operator.to_csr()).to_dense().double()
    nodes = torch.arange(n, device=operator.device)
    ones = torch.ones(n, dtype=operator.dtype, device=operator.device)
    identity = Csr(torch.arange(n + 1, device=operator.device), nodes, ones, (n, n))
    degrees = dense.sum(1)
    landmark_op = dense.div_(degrees[:, None])
    return Landmarks(landmark_op, csr_ops.to_torch(identity), nodes, degrees, components(landmark_op))
