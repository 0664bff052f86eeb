"""Step 1 of docs/method.md for a whole trace: points in memory, or computed block by block for step 2."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import torch

from ..errors import InputError
from ..ops.chunks import Chunk
from .scale import ROUNDINGS, Scale, scale_of, standardized
from .stored import ALL, Array, Blocks, blocks, blockwise, column_mean

Points: TypeAlias = torch.Tensor | Blocks  # (S, M, P) float64: a tensor, or `LazyPoints`

# The least resolution of a z-score, and the least bandwidth of points whose resolution is not known.
FLOOR = torch.finfo(torch.float64).eps


class TracePoints(NamedTuple):
    """The points that step 2 of docs/method.md takes, and how finely they are known.

    Missing samples are NaN. A node with too few samples to have a point has NaN only, and its resolution is NaN.
    """

    points: Points
    resolution: torch.Tensor  # (S, M) float64, > 0: points that are nearer to each other may differ by rounding only


def points_in_memory(
    data: Array, mask: Array | None, normalize: bool, rounding: torch.finfo | None = None
) -> tuple[torch.Tensor, torch.Tensor]:  # (S, M, P), (S, M) float64
    """One point per node: its samples, standardized if ``normalize``; and the resolution of each."""
    n_epochs, n_timesteps, n_units, n_samples = data.shape
    shape = n_epochs * n_timesteps, n_units, n_samples
    out = torch.empty(shape, dtype=torch.float64, device=data.device)
    resolution = out.new_empty(shape[:2])
    rounding = rounding or torch.finfo(data.dtype)
    for chunk, values, present in blocks(data, mask):
        scale = scale_of(values, present) if normalize else None
        points = values if scale is None else standardized(values, scale)
        if present is not None:
            points = _missing_as_nan(points, present, normalize)
        out[chunk.sets, chunk.rows] = points
        resolution[chunk.sets, chunk.rows] = _resolution(points, present, scale, rounding)
    return out, _with_floor(resolution, rounding, normalize)


def normalized(values: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:  # (B, M, P)
    """`standardized` by the mean and the deviation of the present samples, in the dtype of ``values``."""
    points = standardized(values, scale_of(values, present))
    return points if present is None else points.masked_fill_(~present, 0)


def least_samples(normalize: bool, n_samples: int) -> int:
    """The present samples, of ``n_samples``, that a node needs to have a point: two have a deviation."""
    return min(2, n_samples) if normalize else 1


def _missing_as_nan(points: torch.Tensor, present: torch.Tensor, normalize: bool) -> torch.Tensor:  # (B, M, P)
    enough = present.sum(-1, keepdim=True) >= least_samples(normalize, present.shape[-1])
    return points.masked_fill(~(present & enough), torch.nan)


def _resolution(
    points: torch.Tensor, present: torch.Tensor | None, scale: Scale | None, rounding: torch.finfo
) -> torch.Tensor:  # (B, M, P) -> (B, M) float64
    """The resolution of z-scores with ``scale``; the norms of points without one, for `_with_floor`.

    Distances over the samples that two nodes have are scaled to all samples, and so is the resolution.
    """
    n_samples = points.shape[-1]
    if scale is None:
        norms = torch.linalg.vector_norm(points.nan_to_num(0), dim=-1, dtype=torch.float64)
        return norms if present is None else norms * (n_samples / present.sum(-1).double()).sqrt()
    resolution = scale.resolution(rounding).squeeze(-1).double() * n_samples**0.5
    return resolution if present is None else resolution.masked_fill_(points.isnan().all(-1), torch.nan)


def _with_floor(resolution: torch.Tensor, rounding: torch.finfo, normalize: bool) -> torch.Tensor:  # (S, M)
    """Turn what `_resolution` returned for all nodes into distances > 0, in place."""
    if normalize:
        return resolution.clamp_min_(FLOOR)
    largest = float(resolution.nan_to_num(0).max())
    return resolution.mul_(ROUNDINGS * rounding.eps).clamp_min_(FLOOR * (largest or 1))


# The largest norm of a point that is not standardized; the least is its inverse. Within these limits float64 holds the
# squares of distances, and so does float32 on CUDA, where pairs are screened in float32.
LARGEST_POINT = {"cpu": 1e100, "cuda": 1e15}


def check_size(points: TracePoints, rounding: torch.finfo) -> None:
    """Raise `InputError` if the squares of distances would overflow or vanish."""
    if bool(points.resolution.isnan().all()):  # no node has a point
        return
    largest = float(points.resolution.nan_to_num(0).max()) / (ROUNDINGS * rounding.eps)
    limit = LARGEST_POINT["cuda" if points.resolution.is_cuda else "cpu"]
    if not 1 / limit <= largest <= limit:
        raise InputError(
            f"data has points of norm up to {largest:g}; accepted with normalize=False: {1 / limit:g} to {limit:g}. "
            "Multiply data by a constant: no affinity depends on it"
        )


class LazyPoints:
    """Points (S, M, P) of a trace with more samples than the PCA keeps: never in memory as a whole.

    One pass computes the mean and the deviation of every node. Every pass of the PCA reads the values again and scales
    them, which is cheap beside its products. A block has the same bits as the points in memory.
    """

    dtype = torch.float64

    def __init__(self, data: Array, normalize: bool, rounding: torch.finfo) -> None:
        n_epochs, n_timesteps, n_units, n_samples = data.shape
        self.shape = (n_epochs * n_timesteps, n_units, n_samples)
        self.device = data.device
        # Behind a function, so that the bytes of the trace do not count as bytes of the points.
        source = blockwise(data)
        self._source = lambda: source
        self._normalize, self._rounding = normalize, rounding
        empty = torch.empty((*self.shape[:2], 1), dtype=data.dtype, device=self.device)
        self._scale = Scale(empty, empty.clone(), empty.clone(), empty.bool())
        self.resolution = torch.empty(self.shape[:2], dtype=torch.float64, device=self.device)
        self._mean = column_mean(self.shape, self._first_pass(data))
        _with_floor(self.resolution, rounding, normalize)

    @property
    def nbytes(self) -> int:
        fields = (*self._scale, self.resolution, self._mean)
        return sum(field.numel() * field.element_size() for field in fields)

    def __repr__(self) -> str:
        return f"float64 {self.shape} block by block"

    def block(self, slices: slice, units: slice, samples: slice = ALL) -> torch.Tensor:  # (B, m, d) float64
        return self._scaled(self._source().block(slices, units, samples), slices, units).double()

    def check(self) -> None:
        """Raise `InputError` if the file behind the trace has changed."""
        self._source().check()

    def mean(self) -> torch.Tensor:  # (P,)
        return self._mean

    def _first_pass(self, data: Array) -> Iterator[torch.Tensor]:
        """Yield the blocks of points in order, and keep the scale and the resolution of each."""
        for chunk, values, _ in blocks(data, None):
            scale = self._keep_scale(chunk, values)
            points = self._scaled(values, chunk.sets, chunk.rows)
            self.resolution[chunk.sets, chunk.rows] = _resolution(points, None, scale, self._rounding)
            yield points.double()

    def _keep_scale(self, chunk: Chunk, values: torch.Tensor) -> Scale | None:
        if not self._normalize:
            return None
        scale = scale_of(values, None)
        for field, part in zip(self._scale, scale, strict=True):
            field[chunk.sets, chunk.rows] = part
        return scale

    def _scaled(self, values: torch.Tensor, slices: slice, units: slice) -> torch.Tensor:  # (B, m, d)
        return standardized(values, self._scale.part(slices, units)) if self._normalize else values
