"""METHOD step 1 over a whole trace: points in memory, or made anew block by block for the step that reduces them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from ._trace_parts import ALL, BLOCK_ELEMENTS, Array, blocks, check_unchanged, chunks_of, part_of
from ._trace_scale import Scale, mean_filled, present_mean, scale_of, standardised
from .ops.chunks import Chunk, row_chunks

Function = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]


def points_in_memory(data: Array, mask: Array | None, normalize: bool) -> torch.Tensor:  # (L, M, S) float64
    """One point per node, standardised over its samples or as it is."""
    n_epochs, n_timesteps, n_units, n_samples = data.shape
    shape = n_epochs * n_timesteps, n_units, n_samples
    out = torch.empty(shape, dtype=torch.float64, device=data.device)
    function: Function = normalized if normalize else _filled
    for chunk, values, present in blocks(data, mask):
        out[chunk.sets, chunk.rows] = function(values, present)
    return out


def normalized(values: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:  # (B, M, S)
    """`standardised` by the samples' own mean and deviation, in the dtype of ``values``."""
    return standardised(values, present, scale_of(values, present))


def _filled(values: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:  # (B, M, S)
    return values if present is None else mean_filled(values, present, present_mean(values, present))


class LazyPoints:
    """Points (L, M, D) of a trace with more samples than the PCA keeps: never in memory as a whole.

    Mean and deviation of every node are found in one pass; the values are read again in every pass of the PCA and
    scaled, which is cheap beside its products. Every block has the bits that the points in memory have.
    """

    def __init__(self, data: Array, mask: Array | None, normalize: bool) -> None:
        n_epochs, n_timesteps, n_units, n_samples = data.shape
        self.shape = (n_epochs * n_timesteps, n_units, n_samples)
        self.device = data.device
        # Behind a function: whoever counts what the points hold does not count the trace.
        self._read = lambda *where: (part_of(data, *where), None if mask is None else part_of(mask, *where))
        self._check = lambda: check_unchanged(data, mask)
        self._normalize = normalize
        empty = torch.empty((*self.shape[:2], 1), dtype=data.dtype, device=self.device)
        self._scale = Scale(empty, empty.clone(), empty.bool())
        self.mean = column_mean(self.shape, self._first_pass(data, mask))  # (D,)

    @property
    def nbytes(self) -> int:
        return sum(field.numel() * field.element_size() for field in (*self._scale, self.mean))

    def __repr__(self) -> str:
        return f"float64 {self.shape} by blocks"

    def block(self, slices: slice, units: slice, samples: slice = ALL) -> torch.Tensor:  # (B, m, d) float64
        return self._scaled(*self._read(slices, units, samples), slices, units)

    def check(self) -> None:
        """Raise `InputError` if the file behind the trace has changed."""
        self._check()

    def _first_pass(self, data: Array, mask: Array | None) -> Iterator[torch.Tensor]:
        """The blocks in order; leaves their mean and deviation behind."""
        for chunk, values, present in blocks(data, mask):
            self._keep_scale(chunk, values, present)
            yield self._scaled(values, present, chunk.sets, chunk.rows)

    def _keep_scale(self, chunk: Chunk, values: torch.Tensor, present: torch.Tensor | None) -> None:
        if self._normalize:
            for field, part in zip(self._scale, scale_of(values, present), strict=True):
                field[chunk.sets, chunk.rows] = part
        elif present is not None:
            self._scale.mean[chunk.sets, chunk.rows] = present_mean(values, present)

    def _scaled(
        self, values: torch.Tensor, present: torch.Tensor | None, slices: slice, units: slice
    ) -> torch.Tensor:  # (B, m, d) float64
        scale = self._scale.part(slices, units)
        if self._normalize:
            return standardised(values, present, scale).double()
        return mean_filled(values, present, scale.mean).double()


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
