"""Analyses of a trace and its embedding."""

from ..trace.activity import most_active_class
from .entropy import Entropy, entropy, trace_entropy
from .preservation import neighborhood_preservation

__all__ = ["Entropy", "entropy", "most_active_class", "neighborhood_preservation", "trace_entropy"]
