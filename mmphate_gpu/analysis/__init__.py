"""Analyses of a trace and its embedding."""

from .preservation import neighborhood_preservation

__all__ = ["neighborhood_preservation"]
