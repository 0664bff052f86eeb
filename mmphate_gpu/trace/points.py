"""Step 1 of docs/method.md for a whole trace: points in memory, or computed block by block for step 2."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import torch

from ..errors import InputError
from ..ops.chunks import Chunk
from .scale import ROUNDINGS, Scale, mean_filled, safe_mean, scale_of, standardized
from .stored import ALL, Array, Blocks, blocks, blockwise, column_mean

Points: TypeAlias = torch.Tensor | Blocks  # (S, M, P) float64: a tensor, or `LazyPoints`

# The least resolution of a z-score, and the least bandwidth of points whose resolution is not known.
FLOOR = torch.finfo(torch.float64).eps


class TracePoints(NamedTuple):
    """The points that step 2 of docs/method.md takes, and how finely they are known."""

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
        points = _filled(values, present) if scale is None else standardized(values, present, scale)
        out[chunk.sets, chunk.rows] = points
        resolution[chunk.sets, chunk.rows] = _resolution(points, present, scale, rounding)
    return out, _with_floor(resolution, rounding, normalize)


def normalized(values: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:  # (B, M, P)
    """`standardized` by the mean and the deviation of the samples, in the dtype of ``values``."""
    return standardized(values, present, scale_of(values, present))


def _filled(values: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:  # (B, M, P)
    return values if present is None else mean_filled(values, present, safe_mean(values, present))


def _resolution(
    points: torch.Tensor, present: torch.Tensor | None, scale: Scale | None, rounding: torch.finfo
) -> torch.Tensor:  # (B, M, P) -> (B, M) float64
    """The resolution of z-scores with ``scale``; the norms of points without one, for `_with_floor`."""
    if scale is None:
        return torch.linalg.vector_norm(points, dim=-1, dtype=torch.float64)
    n_samples = torch.full_like(points[..., 0], points.shape[-1]) if present is None else present.sum(-1)
    return scale.resolution(rounding).squeeze(-1).double() * n_samples.double().sqrt()


def _with_floor(resolution: torch.Tensor, rounding: torch.finfo, normalize: bool) -> torch.Tensor:  # (S, M)
    """Turn what `_resolution` returned for all nodes into distances > 0, in place."""
    if normalize:
        return resolution.clamp_min_(FLOOR)
    largest = float(resolution.max())
    return resolution.mul_(ROUNDINGS * rounding.eps).clamp_min_(FLOOR * (largest or 1))


# The largest norm of a point that is not standardized; the least is its inverse. Within these limits float64 holds the
# squares of distances, and so does float32 on CUDA, where pairs are screened in float32.
LARGEST_POINT = {"cpu": 1e100, "cuda": 1e15}


def check_size(points: TracePoints, rounding: torch.finfo) -> None:
    """Raise `InputError` if the squares of distances would overflow or vanish."""
    largest = float(points.resolution.max()) / (ROUNDINGS * rounding.eps)
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

    def __init__(self, data: Array, mask: Array | None, normalize: bool, rounding: torch.finfo) -> None:
        n_epochs, n_timesteps, n_units, n_samples = data.shape
        self.shape = (n_epochs * n_timesteps, n_units, n_samples)
        self.device = data.device
        # Behind a function, so that the bytes of the trace do not count as bytes of the points.
        sources = [blockwise(array) for array in (data, mask) if array is not None]
        self._sources = lambda: sources
        self._normalize, self._rounding = normalize, rounding
        empty = torch.empty((*self.shape[:2], 1), dtype=data.dtype, device=self.device)
        self._scale = Scale(empty, empty.clone(), empty.clone(), empty.bool())
        self.resolution = torch.empty(self.shape[:2], dtype=torch.float64, device=self.device)
        self._mean = column_mean(self.shape, self._first_pass(data, mask))
        _with_floor(self.resolution, rounding, normalize)

    @property
    def nbytes(self) -> int:
        fields = (*self._scale, self.resolution, self._mean)
        return sum(field.numel() * field.element_size() for field in fields)

    def __repr__(self) -> str:
        return f"float64 {self.shape} block by block"

    def block(self, slices: slice, units: slice, samples: slice = ALL) -> torch.Tensor:  # (B, m, d) float64
        values, *present = (source.block(slices, units, samples) for source in self._sources())
        return self._scaled(values, present[0] if present else None, slices, units).double()

    def check(self) -> None:
        """Raise `InputError` if the file behind the trace has changed."""
        for source in self._sources():
            source.check()

    def mean(self) -> torch.Tensor:  # (P,)
        return self._mean

    def _first_pass(self, data: Array, mask: Array | None) -> Iterator[torch.Tensor]:
        """Yield the blocks of points in order, and keep the scale and the resolution of each."""
        for chunk, values, present in blocks(data, mask):
            scale = self._keep_scale(chunk, values, present)
            points = self._scaled(values, present, chunk.sets, chunk.rows)
            self.resolution[chunk.sets, chunk.rows] = _resolution(points, present, scale, self._rounding)
            yield points.double()

    def _keep_scale(self, chunk: Chunk, values: torch.Tensor, present: torch.Tensor | None) -> Scale | None:
        if not self._normalize:
            if present is not None:
                self._scale.mean[chunk.sets, chunk.rows] = safe_mean(values, present)
            return None
        scale = scale_of(values, present)
        for field, part in zip(self._scale, scale, strict=True):
            field[chunk.sets, chunk.rows] = part
        return scale

    def _scaled(
        self, values: torch.Tensor, present: torch.Tensor | None, slices: slice, units: slice
    ) -> torch.Tensor:  # (B, m, d)
        scale = self._scale.part(slices, units)
        return standardized(values, present, scale) if self._normalize else mean_filled(values, present, scale.mean)
