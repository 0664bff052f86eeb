"""Multidimensional scaling of the landmark distances (step 12 of docs/method.md)."""

from .metric import MDSResult, embed_landmarks, metric_mds
from .place import Placement
from .stress import stress

__all__ = ["MDSResult", "Placement", "embed_landmarks", "metric_mds", "stress"]
