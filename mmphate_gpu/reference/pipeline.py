"""All steps of docs/method.md, in order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .affinity import graph_nodes, multislice_affinity
from .diffusion import diffusion_potential, knee, potential_distances, von_neumann_entropy
from .landmarks import landmark_diffusion
from .mds import interpolate, metric_mds


@dataclass(frozen=True, eq=False)
class Result:
    """The results of all steps."""

    embedding: np.ndarray  # (N, C), NaN for nodes that are left out of the graph
    nodes: np.ndarray  # (N',), those of the graph: all N of them, if no sample is masked
    affinity: np.ndarray  # (N', N')
    landmark_op: np.ndarray  # (L, L)
    transitions: np.ndarray  # (N', L)
    clusters: np.ndarray  # (N',)
    entropy: np.ndarray  # (t_max,)
    t: int
    diff_potential: np.ndarray  # (L, L)
    distances: np.ndarray  # (L, L)
    landmark_embedding: np.ndarray  # (L, C)
    stress: float


def mmphate(
    trace: np.ndarray,
    *,
    n_components: int = 2,
    intraslice_knn: int = 2,
    interslice_knn: int = 25,
    decay: float | None = 5,
    t: int | str = "auto",
    t_max: int = 100,
    gamma: float = 0,
    n_landmark: int | None = 4000,
    normalize: bool = True,
    mds_solver: str = "smacof",
    mds_dist: str = "euclidean",
    n_pca: int | None = 100,
    n_svd: int = 100,
    thresh: float = 1e-4,
    random_state: int | None = None,
    clusters: np.ndarray | None = None,
    mask: np.ndarray | None = None,
) -> Result:
    """Steps 1 to 13 of a (epoch, timestep, unit, sample) or (slice, unit, sample) trace; ``clusters`` (N,)."""
    affinity = multislice_affinity(
        trace,
        intraslice_knn=intraslice_knn,
        interslice_knn=interslice_knn,
        decay=decay,
        thresh=thresh,
        n_pca=n_pca,
        normalize=normalize,
        mask=mask,
    )
    nodes = graph_nodes(trace, normalize=normalize, mask=mask)
    clusters = None if clusters is None else clusters[nodes]
    landmark_op, transitions, clusters = landmark_diffusion(
        affinity, n_landmark=n_landmark, n_svd=n_svd, clusters=clusters, random_state=random_state
    )
    entropy = von_neumann_entropy(landmark_op, t_max)
    t = knee(entropy) if t == "auto" else int(t)
    potential = diffusion_potential(landmark_op, t, gamma)
    distances = potential_distances(potential, mds_dist)
    mds = metric_mds(distances, n_components, solver=mds_solver)
    embedding = np.full((np.prod(trace.shape[:-1]), n_components), np.nan)
    embedding[nodes] = interpolate(transitions, mds.coordinates)
    return Result(
        embedding=embedding,
        nodes=nodes,
        affinity=affinity,
        landmark_op=landmark_op,
        transitions=transitions,
        clusters=clusters,
        entropy=entropy,
        t=t,
        diff_potential=potential,
        distances=distances,
        landmark_embedding=mds.coordinates,
        stress=mds.stress,
    )
