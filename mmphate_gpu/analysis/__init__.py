"""Analyses of a trace and its embedding."""

from ..trace.activity import most_active_class
from .communities import UnitCommunities, unit_communities
from .entropy import Entropy, entropy, trace_entropy
from .null_models import NullModels, null_models
from .preservation import neighborhood_preservation
from .spread import Displacement, Spread, displacement, spread
from .stability import CommunityStability, community_stability
from .subsample import SubsampleStudy, subsample_study
from .trust import Trust, trust

__all__ = [
    "CommunityStability",
    "Displacement",
    "Entropy",
    "NullModels",
    "Spread",
    "SubsampleStudy",
    "Trust",
    "UnitCommunities",
    "community_stability",
    "displacement",
    "entropy",
    "most_active_class",
    "neighborhood_preservation",
    "null_models",
    "spread",
    "subsample_study",
    "trace_entropy",
    "trust",
    "unit_communities",
]
