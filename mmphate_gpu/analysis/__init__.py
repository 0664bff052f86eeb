"""Analyses of a trace and its embedding."""

from ..trace.activity import most_active_class
from .entropy import Entropy, entropy, trace_entropy
from .communities import UnitCommunities, unit_communities
from .preservation import neighborhood_preservation
from .spread import Displacement, Spread, displacement, spread
from .stability import CommunityStability, community_stability

__all__ = ["Entropy", "entropy", "most_active_class", "neighborhood_preservation", "trace_entropy"]
__all__ = [
    "CommunityStability",
    "Displacement",
    "Spread",
    "UnitCommunities",
    "community_stability",
    "displacement",
    "most_active_class",
    "neighborhood_preservation",
    "spread",
    "unit_communities",
]
