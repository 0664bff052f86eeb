"""The method in dense float64 NumPy and SciPy: slow, plain, and the standard that the tests compare with.

Each function names its step of docs/method.md. Functions take and return arrays. The memory is O(N^2) and the time is
more, so the reference is meant for up to a few thousand nodes. It imports nothing from the package, so the two share no
error.

Shapes: S slices, M units, P samples, D features, N = S M nodes, L landmarks, C components.
"""

from .affinity import graph_nodes, interslice_affinity, interslice_bandwidth, intraslice_affinity, multislice_affinity
from .diffusion import (
    diffusion_potential,
    knee,
    optimal_t,
    potential_distances,
    von_neumann_entropy,
)
from .landmarks import Landmarks, diffusion_operators, landmark_diffusion, spectral_clusters, stratified_clusters
from .mds import MDSResult, classical_mds, interpolate, metric_mds, smacof, stress
from .pipeline import Result, mmphate
from .points import flat_points, normalize, reduce, resolution
from .preservation import neighborhood_preservation

__all__ = [
    "Landmarks",
    "MDSResult",
    "Result",
    "classical_mds",
    "diffusion_operators",
    "diffusion_potential",
    "flat_points",
    "graph_nodes",
    "interpolate",
    "interslice_affinity",
    "interslice_bandwidth",
    "intraslice_affinity",
    "knee",
    "landmark_diffusion",
    "metric_mds",
    "mmphate",
    "multislice_affinity",
    "neighborhood_preservation",
    "normalize",
    "optimal_t",
    "potential_distances",
    "reduce",
    "resolution",
    "smacof",
    "spectral_clusters",
    "stratified_clusters",
    "stress",
    "von_neumann_entropy",
]
