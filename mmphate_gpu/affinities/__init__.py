"""Bandwidths and affinities of a trace (METHOD steps 3 to 6)."""

from .multislice import MultisliceAffinity, affinity_of_points, multislice_affinity

__all__ = ["MultisliceAffinity", "affinity_of_points", "multislice_affinity"]
