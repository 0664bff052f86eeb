"""Multidimensional scaling of the landmark distances (METHOD step 12)."""

from .metric import MDSResult, metric_mds
from .stress import stress

__all__ = ["MDSResult", "metric_mds", "stress"]
