"""Sparse matrices from dense ones and back."""

from __future__ import annotations

import numpy as np
import torch

from mmphate_gpu.ops import csr as csr_ops
from mmphate_gpu.ops.csr import Csr


def of_dense(dense: np.ndarray, step: int = 5) -> Csr:
    return csr_ops.of_dense_rows(torch.from_numpy(dense).split(step), dense.shape[1])


def dense_of(csr: Csr) -> np.ndarray:
    return csr_ops.to_torch(csr).to_dense().numpy()
