"""Sparse matrices of CuPy: the parts of a CSR matrix, kept as arrays of the pretended GPU."""

from __future__ import annotations

from typing import Any

import scipy.sparse
import torch
from cupy import ndarray


class spmatrix:
    pass


class csc_matrix(spmatrix):
    pass


class csr_matrix(spmatrix):
    def __init__(self, parts: tuple[Any, Any, Any], shape: tuple[int, int]) -> None:
        self.data, self.indices, self.indptr = parts
        self.shape, self.nnz, self.dtype = shape, len(self.data), self.data.dtype

    def toarray(self) -> ndarray:
        dense = torch.from_numpy(self.get().toarray())
        return ndarray(dense.to(self.data.tensor.device))

    def get(self) -> scipy.sparse.csr_matrix:
        return scipy.sparse.csr_matrix(tuple(part.get() for part in (self.data, self.indices, self.indptr)), self.shape)
