"""What the affinity is: bandwidths, and the affinities within a slice and between slices (steps 3 to 5)."""

from .bandwidth import interslice_bandwidth
from .interslice import Interslice
from .intraslice import intraslice_affinity

__all__ = ["Interslice", "interslice_bandwidth", "intraslice_affinity"]
