"""Analyses of a trace and its embedding."""

from ..trace.activity import most_active_class
from .label_information import LabelInformation, label_information
from .linear_probe import LinearProbe, linear_probe
from .preservation import neighborhood_preservation

__all__ = [
    "LabelInformation",
    "label_information",
    "LinearProbe",
    "linear_probe",
    "most_active_class",
    "neighborhood_preservation",
]
