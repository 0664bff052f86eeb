"""Analyses of a trace and its embedding."""

from ..trace.activity import most_active_class
from .preservation import neighborhood_preservation

__all__ = ["most_active_class", "neighborhood_preservation"]
