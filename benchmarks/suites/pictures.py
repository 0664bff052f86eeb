"""The picture of some landmarks, and how far two pictures are apart."""

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
    """The embedding of a run, with its landmarks."""

    landmarks: Landmarks
    embedding: torch.Tensor  # (N, C)
    distances: torch.Tensor  # (L, L), between the potentials of the landmarks
    t: int
    stress: float

    def islands(self) -> np.ndarray:  # (N,) int
        """The connected component of the landmark operator in which the landmark of each node lies: 0, 1, ..."""
        operator = csr_matrix(self.landmarks.landmark_op.cpu().numpy())
        return connected_components(operator, directed=False)[1][self.landmarks.clusters.cpu().numpy()]


def picture(landmarks: Landmarks) -> Picture:
    """Steps 9 to 13 of docs/method.md."""
    t = optimal_t(landmarks.landmark_op)
    potential = potential_of_power(diffuse(landmarks.landmark_op, t, landmarks.degrees), 0)
    distances = potential_distances(potential)
    mds = embed_landmarks(distances, N_COMPONENTS, n_init=1)
    return Picture(landmarks, interpolate(landmarks.transitions, mds.coordinates), distances, t, mds.stress)


def disparity(wanted: torch.Tensor, picture: torch.Tensor) -> float:
    """The Procrustes disparity: what the best shift, turn and scale leave, as a share of the size."""
    return float(procrustes(_numbers(wanted), _numbers(picture))[2])


def disparity_within(wanted: torch.Tensor, picture: torch.Tensor, islands: np.ndarray) -> float:
    """The disparity if every island is aligned separately: a mean, weighted by the squared sizes of the islands.

    It is 0 if every island of ``wanted`` is a point.
    """
    left, size = 0.0, 0.0
    places, others = _numbers(wanted), _numbers(picture)
    for island in range(islands.max() + 1):
        place, other = (points[islands == island] for points in (places, others))
        squares = float(np.square(place - place.mean(0)).sum())
        if squares > 0:
            left += squares * (procrustes(place, other)[2] if np.ptp(other, axis=0).any() else 1.0)
            size += squares
    return left / size if size else 0.0


def _numbers(points: torch.Tensor) -> np.ndarray:
    return points.cpu().double().numpy()
