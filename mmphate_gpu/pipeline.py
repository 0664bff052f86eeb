"""The algorithm MM-PHATE: the numbered steps of docs/method.md. The imports and comments name its files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch

from .diagnosis import Diagnosis
from .diffusion.entropy import EntropyEstimate, entropy_of_components
from .diffusion.potential import allows_low_rank, collapsed, potential_distances, potential_of_power
from .diffusion.power import diffuse
from .errors import InputError
from .landmarks.operator import Landmarks, landmark_diffusion, masked_landmark_diffusion
from .mds.islands import distances_by_states, mean_states, with_gaps
from .mds.metric import MDSResult, embed_landmarks
from .mds.refine import refined_nodes
from .operators.graph_nodes import check_graph, of_all_nodes
from .operators.multislice import MultisliceAffinity, affinity_of_points
from .params import Labels, Params
from .stages import Stages
from .trace import Trace
from .trace.normalize import trace_points
from .trace.pca import PrincipalAxes, on_axes, principal_axes
from .trace.points import Points, least_samples


class Run(NamedTuple):
    """The results of all stages of a run."""

    points: torch.Tensor  # (S, M, D) float64; NaN where a sample is missing
    axes: PrincipalAxes | None
    affinity: MultisliceAffinity
    landmarks: Landmarks
    entropy: torch.Tensor  # (t_max,)
    t: int
    t_range: tuple[int, int] | None  # the error bar of a t that the entropy has chosen
    potential: torch.Tensor  # (L, L)
    mds: MDSResult
    coordinates: torch.Tensor  # (N, C); NaN for nodes that are left out of the graph
    diagnosis: Diagnosis


def mmphate(trace: Trace, p: Params, stage: Stages) -> Run:
    """Embed ``trace``: steps 1 to 14. ``stage`` runs and times each stage, or reuses the result of an earlier run."""
    # 1 Normalize over samples: in memory, or block by block within step 2 if that reduces the samples
    points, resolution = stage("normalize", trace_points, trace, **p.of("normalize"))
    check_graph(resolution, least_samples(p.normalize, trace.n_samples), p.n_components)
    # 2 Reduce the samples by PCA if there are many
    points, axes = stage("reduce", _reduced, points, **p.of("reduce"))
    # 3 Intraslice affinity: affinities/intraslice.py
    # 4 Interslice bandwidth: affinities/bandwidth.py
    # 5 Interslice affinity exp(-(d / epsilon)^2): affinities/interslice.py
    # 6 The sum of both affinities, as an operator: operators/multislice.py
    affinity = stage("affinity", _affinity, points, resolution, trace, **p.of("affinity"))
    # 7 Diffusion operator, which is applied and not stored: landmarks/spectral.py
    # 8 Landmarks: landmarks/operator.py
    landmarks = stage("landmarks", _landmarks, affinity, points, trace, **p.of("landmarks"))
    _check_labels(landmarks, p)
    # 9 Diffusion time: the knee of the von Neumann entropy
    estimate = stage("entropy", _entropy, landmarks, symmetric=p.t == "eigenvalues", **p.of("entropy"))
    chosen = p.chooses_t
    t = estimate.t if chosen else int(p.t)
    p = replace(p, t=t)
    # 10 Potential of the power: diffusion/power.py, diffusion/potential.py
    potential = stage("potential", _potential, landmarks, **p.of("potential"))
    # 11 Distances: diffusion/potential.py
    distances = stage("distances", _distances, potential, landmarks, points, affinity.nodes, **p.of("distances"))
    same_potential = collapsed(distances, p.mds_dist, potential, landmarks.groups or [])
    # 12 MDS
    mds = stage("mds", _mds, distances, landmarks, **p.of("mds"))
    # 13 Interpolate from the landmarks to all nodes
    # 14 Refine, if asked for: mds/refine.py
    inputs = landmarks, mds, affinity.nodes, points, trace
    coordinates = stage("interpolate", _coordinates, *inputs, **p.of("interpolate"))
    signs = {"t_at_end": chosen and t >= p.t_max - 2, "collapsed": same_potential}
    diagnosis = Diagnosis.of(points, resolution, affinity, landmarks, **signs)
    t_range = (estimate.t_low, estimate.t_high) if chosen else None
    return Run(points, axes, affinity, landmarks, estimate.entropy, t, t_range, potential, mds, coordinates, diagnosis)


def _reduced(points: Points, n_pca: int | None) -> tuple[torch.Tensor, PrincipalAxes | None]:
    axes = principal_axes(points, n_pca)
    return on_axes(points, axes), axes


def _affinity(points: torch.Tensor, resolution: torch.Tensor, trace: Trace, **options: Any) -> MultisliceAffinity:
    masked, dtype = trace.mask is not None, trace.data.dtype
    return affinity_of_points(points, resolution=resolution, dtype=dtype, masked=masked, **options)


def _landmarks(affinity: MultisliceAffinity, points: torch.Tensor, trace: Trace, **options: Any) -> Landmarks:
    if trace.mask is None:
        return landmark_diffusion(affinity.operator, points=points, **options)
    return masked_landmark_diffusion(affinity.operator, points, affinity.nodes, **options)


def _check_labels(landmarks: Landmarks, p: Params) -> None:
    """Raise `InputError` if the labels of the nodes in the graph name too few landmarks for ``n_components``."""
    n_landmark = len(landmarks.landmark_op)
    if isinstance(p.landmarks, Labels) and n_landmark <= p.n_components:
        raise InputError(
            f"landmarks has {n_landmark} different number(s) for the nodes in the graph; accepted: "
            f"at least {p.n_components + 1} for n_components={p.n_components}"
        )


def _entropy(landmarks: Landmarks, symmetric: bool, t_max: int) -> EntropyEstimate:
    operator = landmarks.symmetric_op if symmetric else landmarks.landmark_op
    return entropy_of_components(operator, landmarks.groups, t_max)


def _potential(landmarks: Landmarks, t: int, gamma: float) -> torch.Tensor:  # (L, L)
    low_rank = allows_low_rank(gamma)
    power = diffuse(landmarks.landmark_op, t, landmarks.degrees, groups=landmarks.groups, low_rank=low_rank)
    return potential_of_power(power, gamma)


def _distances(
    potential: torch.Tensor,  # (L, L)
    landmarks: Landmarks,
    points: torch.Tensor,  # (S, M, D)
    nodes: torch.Tensor | None,
    mds_dist: str,
    islands: str,
) -> torch.Tensor:  # (L, L)
    distances = potential_distances(potential, mds_dist)
    if not _apart(landmarks, islands):
        return distances
    of_nodes = points.flatten(0, 1) if nodes is None else points.flatten(0, 1)[nodes]
    states = mean_states(of_nodes, landmarks.clusters, len(distances))
    return distances_by_states(distances, states, landmarks.groups or [])


def _mds(distances: torch.Tensor, landmarks: Landmarks, mds_solver: str, islands: str, **options: Any) -> MDSResult:
    result = embed_landmarks(distances, solver=mds_solver, **options)
    return with_gaps(result, distances, landmarks.groups or []) if _apart(landmarks, islands) else result


def _apart(landmarks: Landmarks, islands: str) -> bool:
    """Whether there are islands whose places ``islands`` takes from their states."""
    return islands == "states" and landmarks.n_islands > 1


def _coordinates(
    landmarks: Landmarks,
    mds: MDSResult,
    nodes: torch.Tensor | None,
    points: torch.Tensor,
    trace: Trace,
    refine_knn: int,
    knn_backend: str,
) -> torch.Tensor:  # (N, C)
    rows = of_all_nodes(interpolate(landmarks.transitions, mds.coordinates), nodes, trace.n_nodes, torch.nan)
    return refined_nodes(rows, points, refine_knn, backend=knn_backend, masked=trace.mask is not None)


def interpolate(transitions: torch.Tensor, landmarks: torch.Tensor) -> torch.Tensor:  # (N, L), (L, C) -> (N, C)
    """Coordinates of the nodes: means of the landmark coordinates, weighted by the transitions of each node."""
    return transitions @ landmarks.to(transitions.dtype)
