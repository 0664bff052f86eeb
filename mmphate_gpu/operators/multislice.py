"""The multislice affinity of a trace, in the form that suits the device and its free memory (steps 1 to 6)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from ..affinities import Interslice, interslice_bandwidth, intraslice_affinity
from ..affinities.equal_points import merge_equal_slices
from ..errors import check_choice
from ..ops.csr import Csr
from ..ops.point_tiles import n_tiles
from ..params import STORAGES, Params
from ..runtime.devices import resolve_device
from ..runtime.isolation import isolated
from ..runtime.memory import available_bytes
from ..slices import unit_major
from ..trace import as_trace, trace_points
from ..trace.pca import reduce
from ..trace.points import least_samples
from .assemble import assembled_bytes
from .choose import choose_engine, choose_form, half_precision_works, stored_forms
from .graph_nodes import GraphNodes, check_graph, graph_nodes, over_graph_nodes
from .lazy import LazyAffinity
from .lazy_fused import LazyFusedAffinity
from .lazy_keops import LazyKeopsAffinity
from .protocol import AffinityOperator
from .sparse import SparseAffinity
from .tiles import TiledAffinity, tiles_bytes


class MultisliceAffinity(NamedTuple):
    """What the affinity stage hands on."""

    operator: AffinityOperator  # (N, N), or (N', N') over ``nodes``
    bandwidth: torch.Tensor  # () float64, the interslice bandwidth
    nodes: torch.Tensor | None = None  # (N',) int64, those of the graph; None if all N are
    n_unlinked: int = 0  # nodes of the graph without an interslice entry

    def stored_shares(self, n_nodes: int) -> dict[str, float]:
        """What a stored form has: entries beside the diagonal, as a share of the interslice pairs, or active tiles.

        ``n_nodes`` is N, the number of all nodes.
        """
        operator = self.operator.whole if isinstance(self.operator, GraphNodes) else self.operator
        if isinstance(operator, SparseAffinity):
            beside = operator.nnz - operator.shape[0]
            return {"interslice": beside / (n_nodes * (n_nodes // operator.interleave - 1))}
        if isinstance(operator, TiledAffinity):
            return {"tiles": operator.layout.n_active / (operator.n_units * n_tiles(operator.n_slices) ** 2)}
        return {}


def affinity_of_points(
    points: torch.Tensor,  # (S, M, D) float64, normalized and reduced
    *,
    intraslice_knn: int = 2,
    interslice_knn: int = 25,
    decay: float | None = 5,
    thresh: float = 1e-4,
    storage: str = "auto",
    knn_backend: str = "auto",
    dtype: torch.dtype = torch.float64,
    resolution: torch.Tensor | None = None,  # (S, M) float64, of `trace_points`
    masked: bool = False,
) -> MultisliceAffinity:
    """Affinity operator over the N = S M nodes, values in ``dtype`` (steps 3 to 6).

    In ``masked`` points NaN is a missing sample: a distance is over the samples that both nodes have, scaled to all.
    Nodes without any sample are left out of the operator.

    ``storage="auto"`` counts the entries and stores them if they take at most 40 % of the free memory: as CSR, or, on a
    GPU with Triton, as tiles if more than 1 % of the pairs of slices have an entry. If they take more, the interslice
    part stays matrix-free. Points that are nearer than their ``resolution`` count as equal; without ``resolution``
    every distance counts. O(M S^2 D + S M^2 D) time, twice for the stored forms (count, fill).

    Raises
    ------
    InputError
        ``storage`` is "sparse" or "tiles" and the entries do not fit. Nothing has been allocated for them then.
    """
    check_choice("storage", storage, STORAGES)
    search: dict[str, Any] = {"backend": knn_backend, "masked": masked}
    options: dict[str, Any] = {"decay": decay, "thresh": thresh, "dtype": dtype, "resolution": resolution}
    intraslice = intraslice_affinity(points, knn=intraslice_knn, **options, **search)
    unit_points, unit_resolution = unit_major(points), None if resolution is None else resolution.T
    bandwidth = interslice_bandwidth(unit_points, interslice_knn, unit_resolution, **search)
    if unit_resolution is not None:
        unit_points = merge_equal_slices(unit_points, unit_resolution, bandwidth, masked)
    interslice = Interslice(unit_points, bandwidth, thresh, masked)
    form = auto_form(intraslice, interslice, points.device) if storage == "auto" else storage
    operator = FORMS[form](intraslice, interslice)
    nodes = graph_nodes(points) if masked else None
    n_unlinked = int((interslice.counts == 0).sum())
    if nodes is None:
        return MultisliceAffinity(operator, bandwidth, nodes, n_unlinked)
    n_unlinked -= operator.shape[0] - len(nodes)  # nodes that are left out have no entries
    return MultisliceAffinity(over_graph_nodes(operator, nodes), bandwidth, nodes, n_unlinked)


def auto_form(intraslice: Csr, interslice: Interslice, device: torch.device) -> str:
    """The form that ``storage="auto"`` means on ``device``, with its free memory."""
    n_nodes, n_entries = intraslice.shape[0], int(interslice.counts.sum())
    pair_share = n_entries / (n_nodes * (interslice.counts.shape[1] - 1))
    form_bytes = {
        "tiles": lambda: tiles_bytes(interslice.tile_layout.n_stored),
        "sparse": lambda: assembled_bytes(intraslice.nnz + n_entries, n_nodes, intraslice.values.dtype),
    }
    forms = stored_forms(pair_share, tiles=half_precision_works(device, interslice.thresh))
    return choose_form(forms, lambda form: form_bytes[form](), available_bytes(device))


LAZY_FORMS = {"torch": LazyAffinity, "keops": LazyKeopsAffinity, "fused": LazyFusedAffinity}


def lazy_affinity(intraslice: Csr, interslice: Interslice) -> AffinityOperator:
    """The matrix-free form with the fastest products on its device."""
    return LAZY_FORMS[choose_engine(interslice, interslice.unit_points.device)](intraslice, interslice)


FORMS = {"sparse": SparseAffinity.of_parts, "tiles": TiledAffinity, "lazy": lazy_affinity}


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
    """The multislice affinity K of a trace (steps 1 to 6 of docs/method.md), as an operator over its N nodes.

    Parameters
    ----------
    T : Trace or array, (epoch, timestep, unit, sample) or (slice, unit, sample)
        Float64 input gives float64 values, everything else float32.
    storage : {"auto", "sparse", "tiles", "lazy"}
        Stored as CSR or as dense tiles in half precision, or matrix-free. "auto" stores the affinity while it takes at
        most 40 % of the free memory: on a GPU in tiles if more than 1 % of the pairs of slices have an entry.

    See Also
    --------
    to_scipy, to_torch_csr, to_cupy, as_linear_operator : hand the operator to other tools.

    Examples
    --------
    >>> import numpy as np
    >>> multislice_affinity(np.random.default_rng(0).normal(size=(30, 4, 10)), device="cpu")
    SparseAffinity(shape=(120, 120), dtype=torch.float64, device='cpu')
    """
    p = Params(
        intraslice_knn=intraslice_knn,
        interslice_knn=interslice_knn,
        decay=decay,
        thresh=thresh,
        n_pca=n_pca,
        normalize=normalize,
        storage=storage,
        knn_backend=knn_backend,
    )
    trace = as_trace(T)
    trace = trace.to(resolve_device(device, trace.data))
    points, resolution = trace_points(trace, **p.of("normalize"))
    check_graph(resolution, least_samples(p.normalize, trace.n_samples))
    points, masked = reduce(points, **p.of("reduce")), trace.mask is not None
    options = {"resolution": resolution, "dtype": trace.data.dtype, "masked": masked, **p.of("affinity")}
    return affinity_of_points(points, **options).operator
