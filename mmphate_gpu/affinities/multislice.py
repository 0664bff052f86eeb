"""The multislice affinity: both parts, in the form that suits the memory there is (METHOD steps 3 to 6)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from ..errors import check_choice
from ..operators import AffinityOperator, LazyAffinity, SparseAffinity, TiledAffinity
from ..operators.assemble import assembled_bytes, assembled_nnz
from ..operators.choose import choose_form, stored_forms, suits_half
from ..operators.tiles import tiles_bytes
from ..ops.launch.twins import TRITON
from ..params import STORAGES, Params
from ..runtime.devices import resolve_device
from ..runtime.isolation import isolated
from ..runtime.memory import available_bytes, check_fits
from ..slices import unit_major
from ..trace import as_trace, trace_points
from ..trace.pca import reduce
from .bandwidth import interslice_bandwidth
from .equal_points import merge_equal_slices
from .intraslice import intraslice_affinity


class MultisliceAffinity(NamedTuple):
    """What the affinity stage hands on."""

    operator: AffinityOperator  # (N, N)
    bandwidth: torch.Tensor  # () float64, the interslice bandwidth


def affinity_of_points(
    points: torch.Tensor,  # (S, M, D) float64, normalised and reduced
    *,
    intraslice_knn: int = 2,
    interslice_knn: int = 25,
    decay: float | None = 5,
    thresh: float = 1e-4,
    storage: str = "auto",
    knn_backend: str = "auto",
    dtype: torch.dtype = torch.float64,
    resolution: torch.Tensor | None = None,  # (S, M) float64, of `trace_points`
) -> MultisliceAffinity:
    """Affinity operator over the N = S*M nodes, values in ``dtype``.

    ``storage="auto"`` counts the entries first and stores them (CSR; on a GPU where Triton serves, in tiles if more
    than 1 % of the pairs of slices have one) if they take at most 40 % of the free memory, else leaves the interslice
    part matrix-free. Points that are nearer than their ``resolution`` count as equal; without ``resolution`` every
    distance counts. O(M S^2 D + S M^2 D) time, twice for the stored forms (count, fill).

    Raises
    ------
    InputError
        If ``storage="sparse"`` or ``"tiles"`` was asked for and the entries do not fit; nothing has been allocated for
        them then.
    """
    check_choice("storage", storage, STORAGES)
    intraslice = intraslice_affinity(
        points,
        knn=intraslice_knn,
        decay=decay,
        thresh=thresh,
        backend=knn_backend,
        dtype=dtype,
        resolution=resolution,
    )
    by_unit = unit_major(points)
    by_unit_resolution = None if resolution is None else resolution.T
    bandwidth = interslice_bandwidth(by_unit, interslice_knn, by_unit_resolution, backend=knn_backend)
    if by_unit_resolution is not None:
        by_unit = merge_equal_slices(by_unit, by_unit_resolution, bandwidth)
    lazy = LazyAffinity(by_unit, bandwidth, intraslice, thresh=thresh, dtype=dtype)
    make = {"lazy": lambda one: one, "tiles": TiledAffinity, "sparse": _sparse}
    return MultisliceAffinity(make[_best_storage(lazy) if storage == "auto" else storage](lazy), bandwidth)


def _best_storage(lazy: LazyAffinity) -> str:
    """The form for the free memory; tiles only where tensor cores multiply them."""
    counts = lazy.interslice_counts()
    tiles = lazy.device.type == "cuda" and suits_half(lazy.thresh) and TRITON.serves()
    forms = stored_forms(int(counts.sum()) / (counts.numel() * (lazy.n_slices - 1)), tiles=tiles)
    sizes = {
        "tiles": lambda: tiles_bytes(lazy.tile_layout().n_stored),
        "sparse": lambda: assembled_bytes(assembled_nnz(lazy.intraslice, counts), lazy.shape[0], lazy.dtype),
    }
    return choose_form(forms, lambda form: sizes[form](), available_bytes(lazy.device))


def _sparse(lazy: LazyAffinity) -> SparseAffinity:
    nnz = assembled_nnz(lazy.intraslice, lazy.interslice_counts())
    needed = assembled_bytes(nnz, lazy.shape[0], lazy.dtype)
    check_fits(f"the affinity with {nnz:,} entries", needed, lazy.device, remedy='storage="lazy" stores none of them')
    return SparseAffinity(lazy.assembled(), interleave=lazy.n_units)


@isolated()
def multislice_affinity(
    T: Any,
    *,
    intraslice_knn: int = 2,
    interslice_knn: int = 25,
    decay: float | None = 5,
    thresh: float = 1e-4,
    n_pca: int | None = 100,
    normalize: bool = True,
    storage: str = "auto",
    knn_backend: str = "auto",
    device: Any = "auto",
) -> AffinityOperator:
    """The multislice affinity K of a trace (METHOD steps 1 to 6), as an operator over its N nodes.

    Parameters
    ----------
    T : Trace or array, (epoch, timestep, unit, sample) or (slice, unit, sample)
        Float64 input gives float64 values, everything else float32.
    storage : {"auto", "sparse", "tiles", "lazy"}
        Stored as CSR or as dense tiles in half precision, or matrix-free; "auto" stores it while it takes at most 40 %
        of the free memory, on a GPU in tiles if more than 1 % of the pairs of slices have an entry.

    See Also
    --------
    to_scipy, to_torch_csr, to_cupy, as_linear_operator : hand the operator to other tools.

    Examples
    --------
    >>> import numpy as np
    >>> multislice_affinity(np.random.default_rng(0).normal(size=(30, 4, 10)), device="cpu")
    SparseAffinity(shape=(120, 120), dtype=torch.float64, device='cpu')
    """
    options: dict[str, Any] = {
        "intraslice_knn": intraslice_knn,
        "interslice_knn": interslice_knn,
        "decay": decay,
        "thresh": thresh,
    }
    params = Params(**options, n_pca=n_pca, normalize=normalize, storage=storage, knn_backend=knn_backend)
    trace = as_trace(T)
    trace = trace.to(resolve_device(device, trace.data))
    points, resolution = trace_points(trace, normalize=params.normalize, n_pca=params.n_pca)
    options |= {"storage": storage, "knn_backend": knn_backend, "dtype": trace.data.dtype, "resolution": resolution}
    affinity = affinity_of_points(reduce(points, params.n_pca), **options)
    return affinity.operator
