"""Solvers of `cupy.linalg`."""

from __future__ import annotations

import torch

from .arrays import Array


def eigvalsh(array: Array) -> Array:
    return Array(torch.linalg.eigvalsh(array.tensor))


def eigh(array: Array) -> tuple[Array, Array]:
    values, vectors = torch.linalg.eigh(array.tensor)
    return Array(values), Array(vectors)
