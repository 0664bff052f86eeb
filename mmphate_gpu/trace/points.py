"""Step 1 of docs/method.md for a whole trace: points in memory, or made anew block by block for step 2."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from ..errors import InputError
from ..ops.chunks import Chunk, row_chunks
from .scale import ROUNDINGS, Scale, mean_filled, safe_mean, scale_of, standardized
from .stored import ALL, BLOCK_ELEMENTS, Array, blocks, check_unchanged, chunks_of, part_of

# The least resolution of a z-score, and the least bandwidth of points whose resolution is not known.
FLOOR = torch.finfo(torch.float64).eps


class TracePoints(NamedTuple):
    """The points that step 2 of docs/method.md takes, and how finely they are known."""

    points: torch.Tensor | LazyPoints  # (S, M, P) float64
    resolution: torch.Tensor  # (S, M) float64, > 0: points that are nearer to each other may be equal but for rounding


def points_in_memory(
    data: Array, mask: Array | None, normalize: bool, rounding: torch.finfo | None = None
) -> TracePoints:
    """One point per node: its samples, standardized if ``normalize``."""
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
    return TracePoints(out, _with_floor(resolution, rounding, normalize))


def normalized(values: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:  # (B, M, P)
    """`standardized` by the samples' own mean and deviation, in the dtype of ``values``."""
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
    """Points (L, M, D) of a trace with more samples than the PCA keeps: never in memory as a whole.

    Mean and deviation of every node are found in one pass; the values are read again in every pass of the PCA and
    scaled, which is cheap beside its products. Every block has the bits that the points in memory have.
    """

    def __init__(self, data: Array, mask: Array | None, normalize: bool, rounding: torch.finfo) -> None:
        n_epochs, n_timesteps, n_units, n_samples = data.shape
        self.shape = (n_epochs * n_timesteps, n_units, n_samples)
        self.device = data.device
        # Behind a function: whoever counts what the points hold does not count the trace.
        self._read = lambda *where: (part_of(data, *where), None if mask is None else part_of(mask, *where))
        self._check = lambda: check_unchanged(data, mask)
        self._normalize, self._rounding = normalize, rounding
        empty = torch.empty((*self.shape[:2], 1), dtype=data.dtype, device=self.device)
        self._scale = Scale(empty, empty.clone(), empty.clone(), empty.bool())
        self.resolution = torch.empty(self.shape[:2], dtype=torch.float64, device=self.device)
        self.mean = column_mean(self.shape, self._first_pass(data, mask))  # (D,)
        _with_floor(self.resolution, rounding, normalize)

    @property
    def nbytes(self) -> int:
        fields = (*self._scale, self.resolution, self.mean)
        return sum(field.numel() * field.element_size() for field in fields)

    def __repr__(self) -> str:
        return f"float64 {self.shape} by blocks"

    def block(self, slices: slice, units: slice, samples: slice = ALL) -> torch.Tensor:  # (B, m, d) float64
        return self._scaled(*self._read(slices, units, samples), slices, units).double()

    def check(self) -> None:
        """Raise `InputError` if the file behind the trace has changed."""
        self._check()

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


Points = torch.Tensor | LazyPoints


def point_blocks(points: Points) -> Iterator[torch.Tensor]:  # (n, D) float64
    """The points of a stack (L, M, D), in order and a bounded number at a time."""
    for chunk in chunks_of((points.shape[0], 1, *points.shape[1:])):
        yield _some(points, chunk.sets, chunk.rows, ALL)
    _check(points)


def point_columns(points: Points) -> Iterator[tuple[slice, torch.Tensor]]:  # (N, d) float64
    """(features, those of all points) side by side, a bounded number of entries at a time."""
    n_slices, n_units, n_features = points.shape
    for features in row_chunks(n_features, n_slices * n_units, BLOCK_ELEMENTS):
        yield features, _some(points, ALL, ALL, features)
    _check(points)


def _some(points: Points, slices: slice, units: slice, samples: slice) -> torch.Tensor:  # (n, d) float64
    lazy = isinstance(points, LazyPoints)
    block = points.block(slices, units, samples) if lazy else points[slices, units, samples].double()
    return block.reshape(-1, block.shape[-1])


def _check(points: Points) -> None:
    if isinstance(points, LazyPoints):
        points.check()


def column_mean(shape: tuple[int, ...], rows: Iterator[torch.Tensor]) -> torch.Tensor:  # (D,)
    """The mean of ``rows`` that come block by block, added in their order."""
    return sum(block.reshape(-1, shape[-1]).sum(0) for block in rows) / (shape[0] * shape[1])
