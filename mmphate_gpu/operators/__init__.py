"""The affinity as an operator: one protocol, several forms, and free functions that convert it."""

from .convert import as_linear_operator, to_cupy, to_scipy, to_torch_csr
from .lazy import LazyAffinity
from .protocol import AffinityOperator
from .sparse import SparseAffinity
from .tiles import TiledAffinity

__all__ = [
    "AffinityOperator",
    "LazyAffinity",
    "SparseAffinity",
    "TiledAffinity",
    "as_linear_operator",
    "to_cupy",
    "to_scipy",
    "to_torch_csr",
]
