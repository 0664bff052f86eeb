"""The forms that the conformance suite compares with a dense matrix, and the points they are made of.

A new form joins by a line in `FORMS`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from mmphate_gpu import reference
from mmphate_gpu.affinities import Interslice, intraslice_affinity
from mmphate_gpu.operators import AffinityOperator, LazyAffinity, SparseAffinity, TiledAffinity
from mmphate_gpu.operators.lazy_fused import LazyFusedAffinity
from mmphate_gpu.operators.lazy_keops import LazyKeopsAffinity
from mmphate_gpu.ops.csr import Csr
from mmphate_gpu.slices import unit_major

N_SLICES, N_UNITS, N_FEATURES = 23, 4, 5
N_NODES = N_SLICES * N_UNITS
LONG = 300  # slices: three tiles, the last one not full
BANDWIDTH, THRESH = 0.6, 1e-4

# Entries, sums and products are compared with float64 ones. Worst measured over all forms and 20 right-hand sides:
# float32 2.9e-6 in products (rows that sum to as much as 25, times standard normal numbers), 2.5e-6 in aggregated sums,
# 2e-7 in row sums (float32 entries, float64 sums); float64 5.3e-15 in all three.
TOLERANCE = {torch.float32: 8e-6, torch.float64: 5e-14}
# Forms that multiply in half precision: entries and right-hand sides are rounded to 11 bits, 2^-11 of themselves at
# most, and sums are float32, whatever the dtype. Worst measured over the same: 3.6e-3 in products, 2.4e-4 in row sums.
HALF_FORMS = ("tiles", "lazy fused")
HALF_TOLERANCE = 8e-3


def sparse_int64(intraslice: Csr, interslice: Interslice) -> SparseAffinity:
    """With the offsets that more than 2^31 entries need."""
    csr = SparseAffinity.of_parts(intraslice, interslice).csr
    return SparseAffinity(csr._replace(indptr=csr.indptr.long(), indices=csr.indices.long()))


FORMS: dict[str, Callable[[Csr, Interslice], AffinityOperator]] = {
    "sparse": SparseAffinity.of_parts,
    "sparse int64": sparse_int64,
    "lazy": LazyAffinity,
    "lazy keops": LazyKeopsAffinity,
    "lazy fused": LazyFusedAffinity,
    "tiles": TiledAffinity,
}


def points() -> torch.Tensor:
    """(S, M, D) float64, with a repeated slice, a repeated unit and a dead one."""
    rng = np.random.default_rng(5)
    walk = 0.4 * np.cumsum(rng.normal(size=(N_SLICES, N_UNITS, N_FEATURES)), axis=0)
    walk[7] = walk[8]
    walk[:5, 2] = walk[:5, 1]
    walk[:, 3] = 0
    return torch.from_numpy(walk)


def long_points() -> torch.Tensor:
    """(S, M, D) float64, a walk long enough for tiles without entries."""
    rng = np.random.default_rng(0)
    walk = 0.4 * np.cumsum(rng.normal(size=(LONG, 3, 5)), axis=0)
    walk[7] = walk[8]
    walk[:, 2, 1:] = 0  # a curve that comes back: here the kd-tree pays
    return torch.from_numpy(walk)


def parts(dtype: torch.dtype, device: torch.device, stack: torch.Tensor | None = None) -> tuple[Csr, Interslice]:
    """Both parts of the affinity of ``stack``, without it of `points`."""
    stack = (points() if stack is None else stack).to(device)
    bandwidth = torch.tensor(BANDWIDTH, dtype=torch.float64, device=device)
    return intraslice_affinity(stack, thresh=THRESH, dtype=dtype), Interslice(unit_major(stack), bandwidth, THRESH)


def make(form: str, dtype: torch.dtype, device: torch.device) -> AffinityOperator:
    return FORMS[form](*parts(dtype, device))


def make_long(form: str, dtype: torch.dtype, device: torch.device) -> AffinityOperator:
    return FORMS[form](*parts(dtype, device, long_points()))


def dense_affinity() -> np.ndarray:
    """(N, N) float64: steps 3, 5 and 6 by the reference on whole arrays, which shares no code with the operators."""
    stack = points().numpy()
    intraslice = reference.intraslice_affinity(stack, thresh=THRESH)
    interslice = reference.interslice_affinity(stack, BANDWIDTH, thresh=THRESH)
    dense = np.zeros((N_SLICES, N_UNITS, N_SLICES, N_UNITS))
    for row in range(N_SLICES):
        dense[row, :, row, :] += intraslice[row]
    for unit in range(N_UNITS):
        dense[:, unit, :, unit] += interslice[unit]
    dense = dense.reshape(N_NODES, N_NODES)
    dense[dense < THRESH] = 0
    return dense


GROUPS = {
    "random": lambda: torch.randint(0, 9, (N_NODES,), generator=torch.Generator().manual_seed(3)),
    "all nodes": lambda: torch.zeros(N_NODES, dtype=torch.int64),
    "single nodes": lambda: torch.arange(N_NODES).flip(0),
    "with gaps": lambda: 3 * torch.randint(0, 3, (N_NODES,), generator=torch.Generator().manual_seed(4)) + 1,
    "int32": lambda: torch.randint(0, 9, (N_NODES,), generator=torch.Generator().manual_seed(3), dtype=torch.int32),
}


def right_hand_side(*shape: int, dtype: torch.dtype, device: torch.device, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def assert_near(actual: torch.Tensor, expected: np.ndarray | torch.Tensor, tolerance: float) -> None:
    expected = torch.as_tensor(expected).cpu().double().numpy()
    np.testing.assert_allclose(actual.cpu().double().numpy(), expected, rtol=0, atol=tolerance)
