"""Trustworthiness and continuity of many sets of nodes: how far away false and lost neighbors are."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from ..ops.chunks import Chunk, pair_chunks
from .node_sets import NodeSets, Sets
from .preservation import distance_pair

# Pairs per chunk. A pair takes at most 40 bytes for two float64 distances, their sorted copies and masks.
_CHUNK_PAIRS = 2**20


def rank_quality(sets: NodeSets, ks: list[int]) -> tuple[np.ndarray, np.ndarray]:  # (2, k), (2, k)
    """Trustworthiness and continuity of a picture, intra and inter, for each of ``ks``.

    Trustworthiness lowers its score for neighbors in the picture that are far away in sample space, by the rank of
    their distance beyond k. Continuity does so for neighbors in sample space that are far away in the picture. Both
    are 1 for a picture that keeps all neighbors, and near 0.5 for a random one with small k. The mean is over the
    query nodes: of sets that are slices (intra), or units (inter).

    k is at most (n - 1) // 2 for a node of a set of n nodes, the largest for which the score is defined. Nodes with
    k = 0 do not count, and NaN means that none counts. Equally near nodes share the lowest rank. Source: Venna and
    Kaski, Neural Networks 19, 2006. scikit-learn's `trustworthiness` has the values of a single set.

    O(n log n) time for each query node.
    """
    pairs = [_of_groups(sets.of_slices(), ks, None), _of_groups(sets.of_units(), ks, sets.n_queries)]
    trustworthiness, continuity = np.array(pairs).transpose(1, 0, 2)
    return trustworthiness, continuity


def _of_groups(groups: Iterable[Sets], ks: list[int], n_queries: int | None) -> np.ndarray:  # (2, k)
    totals, counts = np.zeros((2, len(ks))), np.zeros(len(ks))
    for sets in groups:
        masked = any(bool(stack.isnan().any()) for stack in sets)
        n_sets, n, _ = sets.points.shape
        for chunk in pair_chunks(n_sets, n, _CHUNK_PAIRS, rows=slice(0, n_queries or n)):
            sums, counted = _chunk_scores(sets, chunk, masked, ks)
            totals, counts = totals + sums, counts + counted
    return np.divide(totals, counts, out=np.full_like(totals, np.nan), where=counts > 0)


def _chunk_scores(sets: Sets, chunk: Chunk, masked: bool, ks: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """The scores of both directions, added up over the nodes of a chunk, and the number of nodes, for each k."""
    in_samples, in_picture = distance_pair(sets, chunk, masked)
    others = in_samples.isfinite().sum(-1)  # (B, r)
    most = min(max(ks), max(in_samples.shape[-1] // 2, 1))
    ranks = [_ranks(in_samples, _neighbors(in_picture, most)), _ranks(in_picture, _neighbors(in_samples, most))]
    allowed = [torch.minimum(others // 2, others.new_tensor(k)) for k in ks]
    scores = [[_scores(rank, k, others).sum().item() for k in allowed] for rank in ranks]
    return np.array(scores), np.array([int((k > 0).sum()) for k in allowed])


def _neighbors(distances: torch.Tensor, k: int) -> torch.Tensor:  # (B, r, n) -> (B, r, k)
    """The indices of the k nearest, the nearest first."""
    return torch.topk(distances, k, dim=-1, largest=False, sorted=True).indices


def _ranks(distances: torch.Tensor, nodes: torch.Tensor) -> torch.Tensor:  # (B, r, n), (B, r, k) -> (B, r, k)
    """The rank of the distance to each of ``nodes`` among all distances: 1 for the nearest."""
    return torch.searchsorted(_sorted(distances), distances.gather(-1, nodes)) + 1


def _sorted(distances: torch.Tensor) -> torch.Tensor:
    # On the CPU torch takes seven times as long as NumPy to sort float64 numbers.
    if distances.device.type == "cpu":
        return torch.from_numpy(np.sort(distances.numpy(), -1))
    return distances.sort(-1).values


def _scores(ranks: torch.Tensor, k: torch.Tensor, others: torch.Tensor) -> torch.Tensor:  # (B, r, n), (B, r) -> (B, r)
    """1 - (ranks beyond k, added up over the k neighbors) / (the largest such sum); 0 where k is 0."""
    beyond = (ranks - k[..., None]).clamp_min(0)
    beyond.masked_fill_(torch.arange(ranks.shape[-1], device=ranks.device) >= k[..., None], 0)
    worst = (k * (2 * (others + 1) - 3 * k - 1)).double() / 2
    return torch.where(k > 0, 1 - beyond.sum(-1) / worst.clamp_min(1), 0.0)
