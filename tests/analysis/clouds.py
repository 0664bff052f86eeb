"""Embeddings made of clouds of points, for the tests of entropy."""

from __future__ import annotations

import numpy as np

from mmphate_gpu.embedding import Embedding
from mmphate_gpu.slices import SliceLayout


def embedding(points: np.ndarray) -> Embedding:  # (E, T, M, C), or (B, n, C): a cloud of n units in every epoch
    points = points if points.ndim == 4 else points[:, None]
    return Embedding(np.ascontiguousarray(points.reshape(-1, points.shape[3])), SliceLayout.of_shape(*points.shape[:3]))


def gaussians(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def rotated(points: np.ndarray, seed: int = 0) -> np.ndarray:
    """``points`` after a random rotation and a shift."""
    size = points.shape[-1]
    rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))[0]
    return points @ rotation + np.arange(1, size + 1)
