"""Free functions that hand an affinity to other tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from .._arrays import tensor_of
from .._optional import require_cupy
from ..ops import csr as csr_ops
from ..ops.isolation import isolated
from ..params import InputTypeError
from .protocol import AffinityOperator

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import LinearOperator


def _checked(operator: AffinityOperator) -> AffinityOperator:
    if not isinstance(operator, AffinityOperator):
        raise InputTypeError(f"operator is a {type(operator).__name__}; accepted: an AffinityOperator")
    return operator


@isolated()
def to_torch_csr(operator: AffinityOperator) -> torch.Tensor:
    """The affinity as a torch sparse CSR tensor on its device; the sparse form shares its memory."""
    return csr_ops.to_torch(_checked(operator).to_csr())


@isolated()
def to_scipy(operator: AffinityOperator) -> csr_matrix:
    """The affinity as a SciPy CSR matrix in host memory."""
    return csr_to_scipy(_checked(operator).to_csr())


def csr_to_scipy(csr: csr_ops.Csr) -> csr_matrix:
    """A `Csr` as a SciPy matrix in host memory; shares memory with a CPU tensor."""
    from scipy.sparse import csr_matrix

    parts = (csr.values.cpu().numpy(), csr.indices.cpu().numpy(), csr.indptr.cpu().numpy())
    return csr_matrix(parts, shape=csr.shape, copy=False)


@isolated()
def to_cupy(operator: AffinityOperator) -> Any:
    """The affinity as a CuPy CSR matrix on the same GPU; shares memory through DLPack."""
    cupy = require_cupy(purpose="to_cupy")
    sparse = require_cupy("cupyx.scipy.sparse", purpose="to_cupy")
    csr = _checked(operator).to_csr()
    parts = tuple(cupy.from_dlpack(part) for part in (csr.values, csr.indices, csr.indptr))
    return sparse.csr_matrix(parts, shape=csr.shape)


def as_linear_operator(operator: AffinityOperator) -> LinearOperator:
    """The affinity as SciPy's LinearOperator: NumPy in, NumPy out; symmetric, so adjoint and transpose are itself."""
    from scipy.sparse.linalg import LinearOperator

    _checked(operator)

    @isolated()
    def product(block: np.ndarray) -> np.ndarray:
        return (operator @ tensor_of(block)).cpu().numpy()

    kind = torch.empty(0, dtype=operator.dtype, device="cpu").numpy().dtype
    return LinearOperator(operator.shape, matvec=product, rmatvec=product, matmat=product, rmatmat=product, dtype=kind)
