"""Analyses of a trace and its embedding."""

from ..trace.activity import most_active_class
from .ablation import TimestepAblation, UnitAblation, ablate_timesteps, ablate_units
from .communities import UnitCommunities, unit_communities
from .entropy import Entropy, entropy, trace_entropy
from .label_information import LabelInformation, label_information
from .label_information import LabelInformation, label_information
from .linear_probe import LinearProbe, linear_probe
from .compression import CompressionKinds, compression_kind
from .follows import Follows, follows
from .phases import Phases, phases
from .preservation import neighborhood_preservation
from .spread import Displacement, Spread, displacement, spread
from .stability import CommunityStability, community_stability

__all__ = [
    "CommunityStability",
    "Displacement",
    "Entropy",
    "LabelInformation",
    "LabelInformation",
    "LinearProbe",
    "Spread",
    "TimestepAblation",
    "UnitAblation",
    "UnitCommunities",
    "ablate_timesteps",
    "ablate_units",
    "community_stability",
    "displacement",
    "entropy",
    "label_information",
    "label_information",
    "linear_probe",
    "most_active_class",
    "neighborhood_preservation",
    "spread",
    "trace_entropy",
    "unit_communities",
    "CompressionKinds",
    "Follows",
    "Phases",
    "compression_kind",
    "follows",
    "most_active_class",
    "neighborhood_preservation",
    "phases",
]
