"""Pictures made stage by stage, and how far two of them are apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import procrustes

from mmphate_gpu.diffusion import diffuse, optimal_t
from mmphate_gpu.diffusion.potential import potential_distances, potential_of_power
from mmphate_gpu.landmarks import Landmarks
from mmphate_gpu.mds import embed_landmarks
from mmphate_gpu.pipeline import interpolate

N_COMPONENTS = 3


@dataclass(frozen=True)
class Picture:
    """What a run ends with."""

    landmarks: Landmarks
    embedding: torch.Tensor  # (N, C)
    distances: torch.Tensor  # (L, L), between the landmarks' potentials
    t: int
    stress: float

    def islands(self) -> np.ndarray:  # (N,) int
        """The connected component of the landmark operator that each node's landmark lies in: 0, 1, ..."""
        operator = csr_matrix(self.landmarks.landmark_op.cpu().numpy())
        return connected_components(operator, directed=False)[1][self.landmarks.clusters.cpu().numpy()]


def picture(landmarks: Landmarks) -> Picture:
    """Steps 9 to 13 of the method."""
    t = optimal_t(landmarks.landmark_op)
    potential = potential_of_power(diffuse(landmarks.landmark_op, t, landmarks.degrees), 0)
    distances = potential_distances(potential)
    mds = embed_landmarks(distances, N_COMPONENTS, solver="smacof", random_state=0)
    return Picture(landmarks, interpolate(landmarks.transitions, mds.coordinates), distances, t, mds.stress)


def disparity(wanted: torch.Tensor, found: torch.Tensor) -> float:
    """Of the two pictures after the best shift, turn and scale, as a share of their size."""
    return float(procrustes(_numbers(wanted), _numbers(found))[2])


def disparity_within(wanted: torch.Tensor, found: torch.Tensor, islands: np.ndarray) -> float:
    """The same with every island put in place on its own; their mean by the squares of their sizes.

    0 where all islands of ``wanted`` are points.
    """
    left, size = 0.0, 0.0
    places, moved = _numbers(wanted), _numbers(found)
    for island in range(islands.max() + 1):
        own, other = (points[islands == island] for points in (places, moved))
        squares = float(np.square(own - own.mean(0)).sum())
        if squares > 0:
            left += squares * (procrustes(own, other)[2] if np.ptp(other, axis=0).any() else 1.0)
            size += squares
    return left / size if size else 0.0


def _numbers(points: torch.Tensor) -> np.ndarray:
    return points.cpu().double().numpy()
