"""A sparse matrix that several tests read."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import random_array

from mmphate_gpu.ops.csr import Csr

from .sparse import of_dense


@pytest.fixture
def sparse_and_dense() -> tuple[Csr, np.ndarray]:
    """A matrix of 17 x 11 with an empty row and int32 indices, and the same matrix as an array."""
    matrix = random_array((17, 11), density=0.3, rng=np.random.default_rng(0), format="csr")
    dense = matrix.toarray()
    dense[4] = 0
    return of_dense(dense), dense
