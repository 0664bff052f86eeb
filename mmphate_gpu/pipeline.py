"""The algorithm MM-PHATE: the numbered steps of docs/method.md. The imports name the module of each step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch

from .diffusion import diffuse, knee, potential_distances
from .diffusion.entropy import entropy_of_components
from .diffusion.potential import allows_low_rank, potential_of_power, warn_if_collapsed
from .landmarks import Landmarks, landmark_diffusion
from .mds import MDSResult, embed_landmarks
from .operators import MultisliceAffinity, affinity_of_points
from .params import Params
from .stages import Stages
from .trace import Points, PrincipalAxes, Trace, principal_axes, trace_points
from .trace.pca import on_axes


class Run(NamedTuple):
    """The results of all stages of a run."""

    points: torch.Tensor  # (S, M, D) float64
    axes: PrincipalAxes | None
    affinity: MultisliceAffinity
    landmarks: Landmarks
    entropy: torch.Tensor  # (t_max,)
    t: int
    potential: torch.Tensor  # (L, L)
    mds: MDSResult
    coordinates: torch.Tensor  # (N, C)


def mmphate(trace: Trace, p: Params, stage: Stages) -> Run:
    """Embed ``trace``: steps 1 to 13. ``stage`` runs and times each stage, or reuses the result of an earlier run."""
    # 1 Normalize over samples: in memory, or block by block within step 2 if that reduces the samples
    points, resolution = stage("normalize", trace_points, trace, **p.of("normalize"))
    # 2 Reduce the samples by PCA if there are many
    points, axes = stage("reduce", _reduced, points, **p.of("reduce"))
    # 3-7 Bandwidths, both affinities, the operator
    affinity = stage("affinity", _affinity, points, resolution, trace.data.dtype, **p.of("affinity"))
    # 8 Landmarks
    landmarks = stage("landmarks", _landmarks, affinity, points, **p.of("landmarks"))
    # 9 Diffusion time: the knee of the von Neumann entropy
    entropy = stage("entropy", entropy_of_components, landmarks.landmark_op, landmarks.groups, **p.of("entropy"))
    if p.t == "auto":
        p = replace(p, t=knee(entropy))
    t = int(p.t)
    # 10 Potential
    potential = stage("potential", _potential, landmarks, **p.of("potential"))
    # 11 Distances
    distances = stage("distances", _distances, potential, **p.of("distances"))
    warn_if_collapsed(distances, p.mds_dist, potential, landmarks.groups or [], t)
    # 12 MDS
    mds = stage("mds", _mds, distances, **p.of("mds"))
    # 13 Interpolate from the landmarks to all nodes
    coordinates = stage("interpolate", interpolate, landmarks.transitions, mds.coordinates, **p.of("interpolate"))
    return Run(points, axes, affinity, landmarks, entropy, t, potential, mds, coordinates)


def _reduced(points: Points, n_pca: int | None) -> tuple[torch.Tensor, PrincipalAxes | None]:
    axes = principal_axes(points, n_pca)
    return on_axes(points, axes), axes


def _affinity(points: torch.Tensor, resolution: torch.Tensor, dtype: torch.dtype, **options: Any) -> MultisliceAffinity:
    return affinity_of_points(points, resolution=resolution, dtype=dtype, **options)


def _landmarks(affinity: MultisliceAffinity, points: torch.Tensor, **options: Any) -> Landmarks:
    return landmark_diffusion(affinity.operator, points=points, **options)


def _potential(landmarks: Landmarks, t: int, gamma: float) -> torch.Tensor:  # (L, L)
    low_rank = allows_low_rank(gamma)
    power = diffuse(landmarks.landmark_op, t, landmarks.degrees, groups=landmarks.groups, low_rank=low_rank)
    return potential_of_power(power, gamma)


def _distances(potential: torch.Tensor, mds_dist: str) -> torch.Tensor:  # (L, L) -> (L, L)
    return potential_distances(potential, mds_dist)


def _mds(distances: torch.Tensor, mds_solver: str, **options: Any) -> MDSResult:
    return embed_landmarks(distances, solver=mds_solver, **options)


def interpolate(transitions: torch.Tensor, landmarks: torch.Tensor) -> torch.Tensor:  # (N, L), (L, C) -> (N, C)
    """Coordinates of the nodes: means of the landmark coordinates, weighted by the transitions of each node."""
    return transitions @ landmarks.to(transitions.dtype)
