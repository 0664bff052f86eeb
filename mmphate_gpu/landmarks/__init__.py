"""Landmarks: the diffusion between N nodes becomes one between clusters of nodes (steps 7 and 8 of docs/method.md)."""

from .operator import Landmarks, landmark_diffusion

__all__ = ["Landmarks", "landmark_diffusion"]
