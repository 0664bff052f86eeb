"""Affinities of the cases of conftest.py, for the tests of landmarks."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_matrix

from mmphate_gpu.operators import AffinityOperator, SparseAffinity, affinity_of_points
from mmphate_gpu.ops.csr import Csr

# Required: 1e-6, and 1e-12 where all is float64. Worst measured over the cases and clusters of test_operator.py:
# landmark_op 1e-8 and 3e-15, transitions (rounded to the dtype) 1.4e-7 and 3e-16.
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
DTYPES = [torch.float32, torch.float64]


def affinity(case, dtype=torch.float64, device="cpu", storage="sparse") -> AffinityOperator:
    options = {"storage": storage, "dtype": dtype, "resolution": case.resolution(device)} | case.options
    return affinity_of_points(case.points(device), **options).operator


def of_dense(dense: np.ndarray) -> SparseAffinity:
    matrix = csr_matrix(dense)
    return SparseAffinity(
        Csr(*(torch.from_numpy(part) for part in (matrix.indptr, matrix.indices, matrix.data)), dense.shape)
    )
