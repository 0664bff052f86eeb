"""Analyses of a trace and its embedding."""

from ..trace.activity import most_active_class
from .compression import CompressionKinds, compression_kind
from .follows import Follows, follows
from .phases import Phases, phases
from .preservation import neighborhood_preservation

__all__ = [
    "CompressionKinds",
    "Follows",
    "Phases",
    "compression_kind",
    "follows",
    "most_active_class",
    "neighborhood_preservation",
    "phases",
]
