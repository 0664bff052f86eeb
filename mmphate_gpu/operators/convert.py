"""Free functions that hand an affinity to other tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ..ops import csr as csr_ops
from ..runtime.arrays import real_tensor
from ..runtime.isolation import isolated
from ..runtime.memory import check_fits
from ..runtime.optional import require_cupy
from .protocol import AffinityOperator, check_operator
from .sparse import SparseAffinity

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import LinearOperator


def _entries(operator: AffinityOperator, device: torch.device | None = None) -> csr_ops.Csr:
    """All entries on ``device`` (None: the operator's), in memory that nothing else uses.

    An estimator keeps its operator for the next fit. A user who wrote into its memory would change that fit.

    Raises
    ------
    InputError
        The copy does not fit in memory.
    """
    device = check_operator(operator).device if device is None else device
    if not isinstance(operator, SparseAffinity):
        return csr_ops.moved(operator.to_csr(), device)
    remedy = "as_linear_operator multiplies without a copy"
    check_fits(f"a copy of the affinity with {operator.nnz:,} entries", operator.nbytes, device, remedy=remedy)
    return csr_ops.moved(operator.csr, device, copy=True)  # one copy, also from one device to another


@isolated()
def to_torch_csr(operator: AffinityOperator) -> torch.Tensor:
    """The affinity as a torch sparse CSR tensor on its device; a copy."""
    return csr_ops.to_torch(_entries(operator))


@isolated()
def to_scipy(operator: AffinityOperator) -> csr_matrix:
    """The affinity as a SciPy CSR matrix in host memory; a copy."""
    from scipy.sparse import csr_matrix

    csr = _entries(operator, torch.device("cpu"))
    return csr_matrix((csr.values.numpy(), csr.indices.numpy(), csr.indptr.numpy()), shape=csr.shape, copy=False)


@isolated()
def to_cupy(operator: AffinityOperator) -> Any:
    """The affinity as a CuPy CSR matrix on the same GPU; a copy."""
    cupy = require_cupy(purpose="to_cupy")
    sparse = require_cupy("cupyx.scipy.sparse", purpose="to_cupy")
    csr = _entries(operator)
    parts = tuple(cupy.from_dlpack(part) for part in (csr.values, csr.indices, csr.indptr))
    return sparse.csr_matrix(parts, shape=csr.shape)


def as_linear_operator(operator: AffinityOperator) -> LinearOperator:
    """The affinity as SciPy's LinearOperator: NumPy in, NumPy out. It is symmetric, so its adjoint is itself."""
    from scipy.sparse.linalg import LinearOperator

    check_operator(operator)

    @isolated()
    def product(block: np.ndarray) -> np.ndarray:
        return (operator @ real_tensor("the right-hand side", block)).cpu().numpy()

    dtype = torch.empty(0, dtype=operator.dtype, device="cpu").numpy().dtype
    return LinearOperator(operator.shape, matvec=product, rmatvec=product, matmat=product, rmatmat=product, dtype=dtype)
