"""Analyses of a trace and its embedding."""

from ..trace.activity import most_active_class
from .ablation import TimestepAblation, UnitAblation, ablate_timesteps, ablate_units
from .baselines import Baselines, baselines
from .communities import UnitCommunities, unit_communities
from .compression import CompressionKinds, compression_kind
from .entropy import Entropy, entropy, trace_entropy
from .follows import Follows, follows
from .importance import UnitImportance, unit_importance
from .label_information import LabelInformation, label_information
from .linear_probe import LinearProbe, linear_probe
from .null_models import NullModels, null_models
from .phases import Phases, phases
from .preservation import neighborhood_preservation
from .spread import Displacement, Spread, displacement, spread
from .stability import CommunityStability, community_stability
from .subsample import SubsampleStudy, subsample_study
from .trust import Trust, trust

__all__ = [
    "Baselines",
    "CommunityStability",
    "CompressionKinds",
    "Displacement",
    "Entropy",
    "Follows",
    "LabelInformation",
    "LinearProbe",
    "NullModels",
    "Phases",
    "Spread",
    "SubsampleStudy",
    "TimestepAblation",
    "Trust",
    "UnitAblation",
    "UnitCommunities",
    "UnitImportance",
    "ablate_timesteps",
    "ablate_units",
    "baselines",
    "community_stability",
    "compression_kind",
    "displacement",
    "entropy",
    "follows",
    "label_information",
    "linear_probe",
    "most_active_class",
    "neighborhood_preservation",
    "null_models",
    "phases",
    "spread",
    "subsample_study",
    "trace_entropy",
    "trust",
    "unit_communities",
    "unit_importance",
]
