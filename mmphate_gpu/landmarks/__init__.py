"""Landmark diffusion: N nodes condensed to n_landmark clusters (METHOD step 8)."""

from .operator import Landmarks, landmark_diffusion

__all__ = ["Landmarks", "landmark_diffusion"]
