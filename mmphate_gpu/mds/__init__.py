"""Multidimensional scaling of the landmark distances (METHOD step 12)."""

from .metric import MDSResult, embed_landmarks, metric_mds
from .stress import stress

__all__ = ["MDSResult", "embed_landmarks", "metric_mds", "stress"]
