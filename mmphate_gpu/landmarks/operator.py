"""The landmark operator and the transitions between nodes and landmarks."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..operators import AffinityOperator
from ..ops import csr as csr_ops
from ..ops.csr import Csr
from ..ops.memory import check_fits
from ..ops.random import seeded_generator
from ..ops.sparse_gram import sparse_gram
from ..params import InputError, InputTypeError, check_number
from .spectral import spectral_clusters


@dataclass(frozen=True, eq=False)
class Landmarks:
    """What the landmark stage hands on. Without landmarks L = N and the transitions are the identity."""

    landmark_op: torch.Tensor  # (L, L) float64, rows sum to 1
    transitions: torch.Tensor  # (N, L) sparse CSR, rows sum to 1
    clusters: torch.Tensor  # (N,) int64
    degrees: torch.Tensor | None = None  # (L,) float64: diag(degrees) @ landmark_op is symmetric


def landmark_diffusion(
    operator: AffinityOperator,
    *,
    n_landmark: int | None = 4000,
    n_svd: int = 100,
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
    clusters : (N,) integers, optional
        Landmark of every node; None finds them by spectral clustering. Numbers that do not occur are dropped.

    Raises
    ------
    InputError
        Clusters of another length or negative; an N x N operator that does not fit in memory.

    Notes
    -----
    Cost: about seven products with ``n_svd`` + 10 columns, k-means O(N n_landmark n_svd) a step, one aggregation.
    Deterministic for one ``random_state``, device, dtype and thread count.
    """
    if n_landmark is not None:
        check_number("n_landmark", n_landmark, low=2, integer=True)
    check_number("n_svd", n_svd, low=1, integer=True)
    if not isinstance(operator, AffinityOperator):
        raise InputTypeError(f"operator is a {type(operator).__name__}; accepted: an AffinityOperator")
    n_nodes = operator.shape[0]
    if clusters is not None:
        return _from_clusters(operator, _checked(clusters, operator))
    if n_landmark is None or n_landmark >= n_nodes:
        return _without_landmarks(operator)
    generator = seeded_generator(random_state)
    labels = spectral_clusters(operator, operator.row_sums(), n_landmark, n_svd=n_svd, generator=generator)
    return _from_clusters(operator, labels)


def _checked(clusters: torch.Tensor, operator: AffinityOperator) -> torch.Tensor:
    labels = torch.as_tensor(clusters, device=operator.device)
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InputTypeError(f"clusters has dtype {labels.dtype}; accepted: integers")
    if labels.shape != (operator.shape[0],):
        raise InputError(f"clusters has shape {tuple(labels.shape)}; accepted: ({operator.shape[0]},), one per node")
    if bool((labels < 0).any()):
        raise InputError(f"clusters contains {int(labels.min())}; accepted: numbers from 0")
    return torch.unique(labels.long(), return_inverse=True)[1]


def _from_clusters(operator: AffinityOperator, labels: torch.Tensor) -> Landmarks:
    n = int(labels.max()) + 1
    aggregated = operator.aggregate(labels, n)
    degrees = csr_ops.row_sums(aggregated)
    gram = sparse_gram(aggregated, 1 / degrees)
    # Column sums of M are the row sums of M^T D^-1 M, since D^-1 M has rows that sum to 1.
    landmark_degrees = gram.sum(1)
    transitions = csr_ops.scale(aggregated, rows=1 / degrees)
    landmark_op = gram / landmark_degrees[:, None]
    return Landmarks(landmark_op, csr_ops.to_torch(transitions), labels, landmark_degrees)


def _without_landmarks(operator: AffinityOperator) -> Landmarks:
    n = operator.shape[0]
    check_fits(
        f"the dense diffusion operator of {n:,} nodes",
        3 * n * n * 8,
        operator.device,
        remedy="a smaller n_landmark helps",
    )
    dense = operator.to_dense().double()
    nodes = torch.arange(n, device=operator.device)
    ones = torch.ones(n, dtype=operator.dtype, device=operator.device)
    identity = Csr(torch.arange(n + 1, device=operator.device), nodes, ones, (n, n))
    degrees = dense.sum(1)
    return Landmarks(dense / degrees[:, None], csr_ops.to_torch(identity), nodes, degrees)
