"""MM-PHATE, the algorithm: the steps of docs/method.md, each in the room that carries its name."""

from __future__ import annotations

from typing import NamedTuple

import torch

from .diffusion import diffuse, knee
from .diffusion.entropy import entropy_of_components
from .diffusion.potential import allows_low_rank, potential_distances, potential_of_power, warn_if_collapsed
from .landmarks import Landmarks, landmark_diffusion
from .mds import MDSResult, embed_landmarks
from .operators import MultisliceAffinity, affinity_of_points
from .params import Params
from .stages import Stages
from .trace import Trace, trace_points
from .trace.pca import PrincipalAxes, principal_axes
from .trace.points import Points


class Run(NamedTuple):
    """Everything a run computes, stage by stage."""

    points: torch.Tensor  # (S, M, D) float64
    axes: PrincipalAxes | None
    affinity: MultisliceAffinity
    landmarks: Landmarks
    entropy: torch.Tensor  # (t_max,)
    t: int
    potential: torch.Tensor  # (L, L)
    mds: MDSResult
    coordinates: torch.Tensor  # (N, n_components)


def mmphate(trace: Trace, p: Params, stage: Stages) -> Run:
    """Embed ``trace``: steps 1 to 13. ``stage`` times each and keeps what another run can use again."""
    # 1 Normalise over samples: in memory, or block by block within step 2 where that reduces them
    how = {"normalize": p.normalize, "n_pca": p.n_pca}
    points, resolution = stage("normalize", tuple(how.values()), lambda: trace_points(trace, **how))
    # 2 Reduce the samples by PCA where there are many
    points, axes = stage("reduce", (p.n_pca,), lambda: _reduced(points, p.n_pca))
    # 3-7 Bandwidths, both affinities, the operator
    names = ("intraslice_knn", "interslice_knn", "decay", "thresh", "storage", "knn_backend")
    kernel = {name: getattr(p, name) for name in names}
    known = {"dtype": trace.data.dtype, "resolution": resolution}
    affinity = stage("affinity", tuple(kernel.values()), lambda: affinity_of_points(points, **kernel, **known))
    # 8 Landmarks
    names = ("n_landmark", "n_svd", "landmarks", "random_state")
    choice = {name: getattr(p, name) for name in names}
    landmarks = stage(
        "landmarks", tuple(choice.values()), lambda: landmark_diffusion(affinity.operator, **choice, points=points)
    )
    # 9 Diffusion time: the knee of the von Neumann entropy
    pieces = (landmarks.landmark_op, landmarks.groups)
    entropy = stage("entropy", (p.t_max,), lambda: entropy_of_components(*pieces, p.t_max))
    t = knee(entropy) if p.t == "auto" else p.t
    # 10 Potential
    diffusion = {"groups": landmarks.groups, "low_rank": allows_low_rank(p.gamma)}
    potential = stage(
        "potential",
        (t, p.gamma),
        lambda: potential_of_power(diffuse(landmarks.landmark_op, t, landmarks.degrees, **diffusion), p.gamma),
    )
    # 11 Distances
    distances = stage("distances", (p.mds_dist,), lambda: potential_distances(potential, p.mds_dist))
    warn_if_collapsed(distances, p.mds_dist, potential, landmarks.groups, t)
    # 12 MDS
    solver = {"n_components": p.n_components, "solver": p.mds_solver, "random_state": p.random_state}
    mds = stage("mds", tuple(solver.values()), lambda: embed_landmarks(distances, **solver))
    # 13 Interpolate from the landmarks to all nodes
    coordinates = stage("interpolate", (), lambda: interpolate(landmarks.transitions, mds.coordinates))
    return Run(points, axes, affinity, landmarks, entropy, t, potential, mds, coordinates)


def _reduced(points: Points, n_pca: int | None) -> tuple[torch.Tensor, PrincipalAxes | None]:
    axes = principal_axes(points, n_pca)
    return (points if axes is None else axes.scores(points)), axes


def interpolate(transitions: torch.Tensor, landmarks: torch.Tensor) -> torch.Tensor:  # (N, L), (L, C) -> (N, C)
    """Every node at the mean of the landmark coordinates, weighted by its transitions."""
    return transitions @ landmarks.to(transitions.dtype)
