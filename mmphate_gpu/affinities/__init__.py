"""Bandwidths and affinities of a trace (METHOD steps 3 to 6)."""

from .multislice import MultisliceAffinity, affinity_of_points

__all__ = ["MultisliceAffinity", "affinity_of_points"]
