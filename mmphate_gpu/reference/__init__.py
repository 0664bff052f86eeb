"""The method in dense float64 NumPy and SciPy: slow, plain, and the oracle of every test.

Read it beside docs/method.md; each function names its step. Everything is an array in, an array out, O(N^2)
memory and more time, for up to a few thousand nodes. It imports nothing from the package, so that the
two can be held against each other.

Shapes: L slices, m units, p samples, N = L m nodes, J landmarks, C components.
"""

from .affinity import interslice_affinity, interslice_bandwidth, intraslice_affinity, multislice_affinity
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
