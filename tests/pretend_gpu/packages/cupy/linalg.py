"""Solvers of `cupy.linalg`."""

from __future__ import annotations

import torch

from .arrays import ndarray


def eigvalsh(array: ndarray) -> ndarray:
    return ndarray(torch.linalg.eigvalsh(array.tensor))


def eigh(array: ndarray) -> tuple[ndarray, ndarray]:
    values, vectors = torch.linalg.eigh(array.tensor)
    return ndarray(values), ndarray(vectors)
