"""Can a picture be trusted? What it keeps of sample space, region by region and seed by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import InputError, check_number
from ..linalg.components import components
from ..runtime.arrays import to_numpy
from ..runtime.isolation import isolated
from ..stages import Callback
from ..trace import Trace, as_trace
from .node_distances import geodesic_spearman, node_distances, picture_scale, placed_nodes, stress_of
from .node_sets import NodeSets, node_sets
from .preservation import checked_ks, preserved
from .progress import progress
from .rank_quality import rank_quality
from .refit import disparity, refitted, study_estimator
from .result import Result
from .seeds import drawn_seed, seeds_of

if TYPE_CHECKING:
    from ..estimator import MMPHATE

# Nodes of an epoch or a time step whose pairs have their stress measured: 2,016 pairs.
_REGION_NODES = 64
_SCOPES = ("intra", "inter")


@dataclass(frozen=True, eq=False, repr=False)
class Trust(Result):
    """What a picture keeps of sample space; made by `trust`, which defines the measures.

    Attributes
    ----------
    preservation_k : (k,) numbers of neighbors.
    intra, inter : (k,) share of the neighbors that are kept, among the units of a slice and among the slices of a unit.
    chance : (2, k) share of the neighbors that a random picture keeps; the first row is intra, and the second inter.
    trustworthiness, continuity : (2, k), 1 is perfect; the first row is intra, and the second inter.
    geodesic_spearman : rank correlation, from -1 to 1.
    geodesic_share : share of the pairs of nodes that a path connects; the others do not count.
    stress : stress of all regions, from 0 up.
    epoch, timestep : (E,) and (T,) labels.
    stress_by_epoch, stress_by_timestep : (E,) and (T,) stress of each region.
    islands : number of islands; None without a fitted estimator.
    island_shares : (islands,) shares of the nodes of the graph, the largest first; None without a fitted estimator.
    seed_procrustes : disparity of each pair of refits, from 0 (equal) to 1; None without refits.
    settings : what was asked.
    """

    preservation_k: np.ndarray
    intra: np.ndarray
    inter: np.ndarray
    chance: np.ndarray
    trustworthiness: np.ndarray
    continuity: np.ndarray
    geodesic_spearman: float
    geodesic_share: float
    stress: float
    epoch: np.ndarray
    stress_by_epoch: np.ndarray
    timestep: np.ndarray
    stress_by_timestep: np.ndarray
    islands: int | None
    island_shares: np.ndarray | None
    seed_procrustes: np.ndarray | None
    settings: Mapping[str, Any]

    def _columns(self) -> dict[str, np.ndarray]:
        return {
            "scope": np.repeat(_SCOPES, len(self.preservation_k)),
            "k": np.tile(self.preservation_k, 2),
            "preservation": np.concatenate([self.intra, self.inter]),
            "chance": self.chance.ravel(),
            "trustworthiness": self.trustworthiness.ravel(),
            "continuity": self.continuity.ravel(),
        }

    def _summary(self) -> str:
        intra, inter = (
            f"{kept[0]:.2f} (chance {chance[0]:.2f})"
            for kept, chance in zip((self.intra, self.inter), self.chance, strict=True)
        )
        parts = [f"of {self.preservation_k[0]} neighbors {intra} are kept within slices and {inter} within units"]
        parts += [f"geodesic Spearman {self.geodesic_spearman:.2f}", f"stress {self.stress:.2f}"]
        if self.islands is not None:
            parts += [f"{self.islands} island{'s' * (self.islands != 1)}"]
        if self.seed_procrustes is not None:
            parts += [f"Procrustes over seeds {self.seed_procrustes.mean():.2g}"]
        return ", ".join(parts)


@isolated()
def trust(
    trace: Any,
    embedding: Any,
    *,
    k: int | Sequence[int] = (10, 40),
    seeds: int = 0,
    estimator: MMPHATE | None = None,
    normalize: bool = True,
    n_slices: int | None = 200,
    n_nodes: int = 2000,
    random_state: int | None = None,
    verbose: int = 0,
    callback: Callback | None = None,
) -> Trust:
    """Compare a picture with the trace that it shows.

    Sample space has a point for each node: its samples, z-scored. Distances are Euclidean in both spaces. Intra
    compares the units of each slice, and inter the slices of each unit.

    * *Preservation* is the share of nearest neighbors that are kept: `neighborhood_preservation`, published. A random
      picture keeps k / (n - 1) of them among n slices or units; *chance* has this share.
    * *Trustworthiness* and *continuity* (published) say how far away false and lost neighbors are, by ranks: 1 is
      perfect, and about 0.5 is random.
    * *Geodesic Spearman* is the rank correlation of distances in the picture with shortest paths in sample space, in
      the graph of each node's 10 nearest among ``n_nodes`` random nodes. The idea is that of DEMaP, published.
    * *Stress* is this library's own definition: ``sqrt(sum (D - a d)^2 / sum D^2)`` for distances D in sample space
      and d in the picture. The factor ``a`` is the least squares fit over all pairs of the same random nodes. The
      stress of an epoch, or of a time step, uses the same ``a`` and the pairs of up to 64 of its nodes. So a region
      with more stress than others is drawn less faithfully.
    * *Islands* are the connected components of the diffusion graph. Their places relative to each other are arbitrary,
      unless the fit had ``islands="states"``. They are counted if ``estimator`` is fitted.
    * *Seed Procrustes* is the Procrustes disparity of each pair of refits that differ in the seed only: 0 for equal
      pictures.

    Parameters
    ----------
    trace : anything `as_trace` accepts
        E epochs, T time steps, M units and P samples. Masked samples leave the distances. A stored trace is read block
        by block.
    embedding : Embedding, or (N, C) array
        The picture of the trace. A node whose row is NaN has no place, and does not count.
    k : int or sequence of int
        Numbers of neighbors. They are lowered to at most S - 1, to M - 1 within a slice, and to half of the set for
        trustworthiness and continuity.
    seeds : int
        Number of refits: 0, or at least 2.
    estimator : MMPHATE, optional
        The refits have its settings. If it is fitted, the fit must be that of ``embedding``. By default the refits have
        1,000 landmarks.
    normalize : bool
        Whether sample space is z-scored. False takes the samples as they were recorded.
    n_slices : int or None
        Number of random slices for whose nodes the neighbors are compared; None takes all slices.
    n_nodes : int
        Number of random nodes for geodesics and stress.
    random_state : int, optional
        Seed of the draws and of the refits.
    verbose : int or bool
        Whether to draw a progress bar on stderr.
    callback : callable(stage, done, total), optional
        Called after each measure and each refit.

    Raises
    ------
    InputError, InputTypeError
        A picture of another shape, an estimator that was fitted to another trace, or numbers out of range.

    Notes
    -----
    O(n_slices M S (P + C + log S)) time for neighbors and O(n_nodes^2 P) for distances, and a fit for each of
    ``seeds``. Deterministic with a seed. Trustworthiness: Venna and Kaski, Neural Networks 19, 2006. DEMaP: Moon et
    al., Nature Biotechnology 37, 2019.

    Examples
    --------
    >>> from mmphate_gpu.datasets import random_walk
    >>> walk = random_walk(30, 6, 10)
    >>> trust(walk, walk.data.reshape(180, 10), k=3, random_state=0).islands is None
    True
    """
    trace = as_trace(trace)
    _check_numbers(seeds=seeds, n_slices=n_slices, n_nodes=n_nodes)
    random_state = drawn_seed(random_state)
    refit_seeds = seeds_of(random_state, seeds)
    sets = node_sets(trace, embedding, normalize=normalize, n_slices=n_slices, random_state=random_state)
    ks = np.unique(np.minimum(checked_ks(k, 2**31), trace.n_slices - 1)).tolist()
    islands = _islands(trace, estimator)
    model = study_estimator(estimator, sets.places.shape[-1])
    settings: dict[str, Any] = {"n_slices": sets.n_queries, "n_nodes": n_nodes, "normalize": normalize}
    settings |= {"random_state": random_state, "seeds": seeds, "estimator": repr(model) if seeds else None}
    with progress(3 + seeds, verbose, callback, "trust") as advance:
        intra, inter = np.array(preserved(sets, ks)).T
        advance()
        trustworthiness, continuity = rank_quality(sets, ks)
        advance()
        distances = _distance_measures(sets, n_nodes, np.random.default_rng(random_state))
        advance()
        spread = _seed_procrustes(trace, model, refit_seeds, advance) if seeds else None
    return Trust(
        preservation_k=np.array(ks),
        intra=intra,
        inter=inter,
        chance=_chance(trace, ks),
        trustworthiness=trustworthiness,
        continuity=continuity,
        epoch=trace.epoch,
        timestep=trace.timestep,
        islands=None if islands is None else len(islands),
        island_shares=islands,
        seed_procrustes=spread,
        settings=settings,
        **distances,
    )


def _chance(trace: Trace, ks: list[int]) -> np.ndarray:  # (2, k)
    """The share of ``ks`` neighbors that a random picture of all nodes keeps; NaN without neighbors."""
    others = np.array([[trace.n_units - 1], [trace.n_slices - 1]], dtype=float)
    return np.minimum(ks, others) / np.where(others > 0, others, np.nan)


def _check_numbers(seeds: int, n_slices: int | None, n_nodes: int) -> None:
    check_number("seeds", seeds, low=0, integer=True)
    if seeds == 1:
        raise InputError("seeds=1 gives no pair of pictures; accepted: 0, or an integer >= 2")
    if n_slices is not None:
        check_number("n_slices", n_slices, low=1, integer=True)
    check_number("n_nodes", n_nodes, low=3, integer=True)


def _distance_measures(sets: NodeSets, n_nodes: int, rng: np.random.Generator) -> dict[str, Any]:
    """The measures of distances between nodes of all slices and units."""
    nodes = rng.permutation(placed_nodes(sets))[None, :n_nodes]
    regions = [_region_nodes(sets.trace, axis, rng) for axis in ("epoch", "timestep")]
    distances, *of_regions = node_distances(sets, nodes, *regions)
    correlation, share = geodesic_spearman(distances)
    scale = picture_scale(distances)
    (stress,), by_epoch, by_timestep = (stress_of(part, scale) for part in (distances, *of_regions))
    measures = {"geodesic_spearman": correlation, "geodesic_share": share, "stress": float(stress)}
    return measures | {"stress_by_epoch": by_epoch, "stress_by_timestep": by_timestep}


def _region_nodes(trace: Trace, axis: str, rng: np.random.Generator) -> np.ndarray:  # (E, n) or (T, n)
    """Some nodes of each epoch or time step."""
    grid = np.arange(trace.n_nodes).reshape(trace.shape[:3])
    regions = np.moveaxis(grid, ("epoch", "timestep").index(axis), 0).reshape(trace.shape[axis == "timestep"], -1)
    return rng.permuted(regions, axis=1)[:, :_REGION_NODES]


def _islands(trace: Trace, estimator: MMPHATE | None) -> np.ndarray | None:  # (islands,)
    """The shares of the nodes of the diffusion graph in its components; None without a fit."""
    from ..estimator import MMPHATE  # loads scikit-learn

    if not isinstance(estimator, MMPHATE) or not estimator.__sklearn_is_fitted__():
        return None
    if estimator.result_.layout.shape != trace.shape[:3]:
        fitted = f"estimator was fitted to (epochs, timesteps, units) {estimator.result_.layout.shape}"
        raise InputError(f"{fitted}; accepted: a fit of this trace, with {trace.shape[:3]}")
    clusters = to_numpy("clusters_", estimator.clusters_)
    sizes = np.bincount(clusters, minlength=estimator.n_landmark_)
    groups = components(torch.from_numpy(to_numpy("landmark_op_", estimator.landmark_op_)))
    counts = np.concatenate([sizes[members.numpy()].sum(1) for members in groups])
    return np.sort(counts)[::-1] / len(clusters)


def _seed_procrustes(trace: Trace, estimator: MMPHATE, seeds: list[int], advance: Any) -> np.ndarray:
    pictures = []
    for seed in seeds:
        pictures.append(refitted(trace, estimator, seed).coordinates)
        advance()
    return np.array([disparity(*pair) for pair in combinations(pictures, 2)])
