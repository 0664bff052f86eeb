"""Diffusion over the landmarks: time, power, potential and its distances (steps 9 to 11 of docs/method.md)."""

from .entropy import EntropyEstimate, entropy_with_error, optimal_t, von_neumann_entropy
from .knee import knee
from .potential import diffusion_potential, potential_distances
from .power import diffuse

__all__ = [
    "EntropyEstimate",
    "diffuse",
    "diffusion_potential",
    "entropy_with_error",
    "knee",
    "optimal_t",
    "potential_distances",
    "von_neumann_entropy",
]
