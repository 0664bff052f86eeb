"""How the affinity is held: one protocol, several forms, and free functions that convert it."""

from .convert import as_linear_operator, to_cupy, to_scipy, to_torch_csr
from .lazy import LazyAffinity
from .multislice import MultisliceAffinity, affinity_of_points, multislice_affinity
from .protocol import AffinityOperator
from .sparse import SparseAffinity
from .tiles import TiledAffinity

__all__ = [
    "AffinityOperator",
    "LazyAffinity",
    "MultisliceAffinity",
    "SparseAffinity",
    "TiledAffinity",
    "affinity_of_points",
    "as_linear_operator",
    "multislice_affinity",
    "to_cupy",
    "to_scipy",
    "to_torch_csr",
]
