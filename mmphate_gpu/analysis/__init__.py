"""Analyses of a trace and its embedding."""

from ..trace.activity import most_active_class
from .ablation import TimestepAblation, UnitAblation, ablate_timesteps, ablate_units
from .communities import UnitCommunities, unit_communities
from .preservation import neighborhood_preservation
from .spread import Displacement, Spread, displacement, spread
from .stability import CommunityStability, community_stability

__all__ = [
    "TimestepAblation",
    "UnitAblation",
    "ablate_timesteps",
    "ablate_units",
    "most_active_class",
    "neighborhood_preservation",
]
from .entropy import Entropy, entropy, trace_entropy
from .preservation import neighborhood_preservation

__all__ = ["Entropy", "entropy", "most_active_class", "neighborhood_preservation", "trace_entropy"]
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
from .linear_probe import LinearProbe, linear_probe
from .preservation import neighborhood_preservation

__all__ = ["LinearProbe", "linear_probe", "most_active_class", "neighborhood_preservation"]
