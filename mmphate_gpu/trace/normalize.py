"""Step 1 of docs/method.md: one point per node, its samples standardized or as they are."""

from __future__ import annotations

import torch

from .points import LazyPoints, TracePoints, check_size, points_in_memory
from .trace import Trace


def normalize(trace: Trace) -> torch.Tensor:  # (S, M, P) float64
    """Each (slice, unit) centered over its present samples and divided by their deviation: step 1 of docs/method.md.

    ``z = (x - mean) / std`` with the population deviation (ddof 0); a deviation of zero divides by 1, so dead units
    give zero vectors. Masked entries are NaN, and so is a node with fewer than two present samples, which has no
    deviation. The dtype of the computation is that of the trace, and sums are in NumPy's order, as in the published
    implementation: other roundings change the affinity of nearly equal units (by 1e-5 in float32). The bits are the
    same on every device, from memory or block by block, and for a trace times a power of two. O(N P) time; temporaries
    are bounded by a block.
    """
    return points_in_memory(trace.data, trace.mask, normalize=True)[0]


def flat_points(trace: Trace) -> torch.Tensor:  # (S, M, P) float64
    """The trace as one point per node, not normalized; masked entries are NaN."""
    return points_in_memory(trace.data, trace.mask, normalize=False)[0]


def trace_points(trace: Trace, *, normalize: bool = True, n_pca: int | None = None) -> TracePoints:
    """The points (S, M, P) that step 2 takes, and their resolution: nearer points may differ by rounding only.

    The points are a tensor, or `LazyPoints` if step 2 will reduce them to ``n_pca`` features. Step 2 does not reduce
    the points of a masked trace, because a score needs every sample. O(N P) time. Memory: a few blocks of 32 MiB, and
    8 N P bytes for the points, or four numbers per node for `LazyPoints`.

    Raises
    ------
    InputError
        The file of a trace that is read block by block has changed since it was opened; with ``normalize=False`` values
        so large or small that the squares of their distances overflow or vanish.
    """
    rounding = torch.finfo(trace.recorded or trace.data.dtype)
    if n_pca is not None and trace.n_samples > n_pca and trace.mask is None:
        lazy = LazyPoints(trace.data, normalize, rounding)
        points = TracePoints(lazy, lazy.resolution)
    else:
        points = TracePoints(*points_in_memory(trace.data, trace.mask, normalize, rounding))
    if not normalize:
        check_size(points, rounding)
    return points
