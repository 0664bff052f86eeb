"""The points of units, slice by slice, in a picture or a trace; and the distances and affinities of their paths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..affinities import intraslice_affinity
from ..embedding import Embedding
from ..errors import InputTypeError
from ..ops import csr
from ..ops.chunks import row_chunks
from ..slices import SliceLayout
from ..trace import Trace, as_trace
from ..trace.points import least_samples, points_in_memory
from ..trace.stored import ALL, BLOCK_ELEMENTS, Blocks, blockwise

# Squared distances that are a smaller share of the largest are rounding: the two units are at the same place.
_EQUAL = 1e-12


@dataclass(frozen=True, eq=False)
class Members:
    """Slices of a trace, and the units whose paths through them are compared."""

    slices: slice
    units: np.ndarray  # (m,) indices of the units that have a point in one of the slices or more
    counted: np.ndarray  # (s,) bool: the slices in which all of these units have a point


@dataclass(frozen=True, eq=False)
class UnitPoints:
    """The points (S, M, p) of units in slices, read block by block."""

    layout: SliceLayout
    width: int  # p
    present: np.ndarray  # (S, M) bool: whether the node has a point
    read: Callable[[slice], tuple[torch.Tensor, torch.Tensor | None]]  # points (B, M, p) and their resolution (B, M)
    check: Callable[[], None]  # raises `InputError` if the file behind the points has changed
    masked: bool

    def members(self, slices: slice) -> Members:
        present = self.present[slices]
        units = np.flatnonzero(present.any(0))
        return Members(slices, units, np.all(present[:, units], axis=1) & (len(units) > 0))

    def counted_blocks(self, members: Members) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        """Points (B, M, p) and resolution (B, M) of the slices that count, a bounded number at a time."""
        n_units = self.present.shape[1]
        for part in row_chunks(len(members.counted), n_units * max(n_units, self.width), BLOCK_ELEMENTS):
            kept, start = torch.from_numpy(members.counted[part]), members.slices.start
            if bool(kept.any()):
                points, resolution = self.read(slice(start + part.start, start + part.stop))
                yield points[kept], None if resolution is None else resolution[kept]
        self.check()


def unit_points(of: Any) -> UnitPoints:
    """The positions of an `Embedding`, or the states of anything `as_trace` accepts, z-scored as in step 1."""
    return _of_embedding(of) if isinstance(of, Embedding) else _of_trace(as_trace(of))


def positions(embedding: Any) -> np.ndarray:  # (E, T, M, C) float64
    """The coordinates of an `Embedding` by epoch, time step and unit; NaN for nodes without a place."""
    if not isinstance(embedding, Embedding):
        raise InputTypeError(f"embedding is a {type(embedding).__name__}; accepted: an Embedding, such as op.result_")
    return embedding.coordinates.reshape(*embedding.layout.shape, -1).astype(np.float64)


def _of_embedding(embedding: Embedding) -> UnitPoints:
    points = torch.from_numpy(positions(embedding)).flatten(0, 1)
    # No measure depends on the scale, and the intraslice affinity takes smaller distances than 1e-16 as rounding.
    points = points / (float(points.nan_to_num(0).abs().max()) or 1.0)
    present = ~points.isnan().any(-1).numpy()
    return UnitPoints(
        layout=embedding.layout,
        width=points.shape[-1],
        present=present,
        read=lambda slices: (points[slices], None),
        check=lambda: None,
        masked=not present.all(),
    )


def _of_trace(trace: Trace) -> UnitPoints:
    arrays: list[Blocks] = [blockwise(array) for array in (trace.data, trace.mask) if array is not None]
    rounding = torch.finfo(trace.recorded or trace.data.dtype)

    def read(slices: slice) -> tuple[torch.Tensor, torch.Tensor]:
        values, *mask = (array.block(slices, ALL, ALL).unsqueeze(1) for array in arrays)
        return points_in_memory(values, mask[0] if mask else None, True, rounding)

    def check() -> None:
        for array in arrays:
            array.check()

    return UnitPoints(
        layout=SliceLayout(trace.epoch, trace.timestep, trace.unit),
        width=trace.n_samples,
        present=_with_enough_samples(trace),
        read=read,
        check=check,
        masked=trace.mask is not None,
    )


def _with_enough_samples(trace: Trace) -> np.ndarray:  # (S, M) bool
    """Whether a node has the samples that its z-score needs."""
    least, mask = least_samples(True, trace.n_samples), trace.mask
    if mask is None:
        return np.ones((trace.n_slices, trace.n_units), dtype=bool)
    parts = row_chunks(trace.n_slices, trace.n_units * trace.n_samples, BLOCK_ELEMENTS)
    counts = [blockwise(mask).block(part, ALL, ALL).sum(-1) for part in parts]
    return (torch.cat(counts) >= least).cpu().numpy()


# ---------------------------------------------------------------- paths of units through slices


def _path_blocks(points: UnitPoints, members: Members) -> Iterator[np.ndarray]:  # (B, m, p)
    """The points of the members, centered in each slice. A sample that a member lacks is 0 for all of them."""
    for block, _ in points.counted_blocks(members):
        block = block[:, torch.from_numpy(members.units)]
        block = (block - block.mean(1, keepdim=True)).masked_fill_(block.isnan().any(1, keepdim=True), 0)
        yield block.cpu().numpy()


def path_squares(points: UnitPoints, members: Members) -> np.ndarray:  # (m, m)
    """Squared Euclidean distances between the paths of the members: sums over slices and coordinates."""
    grams = (_gram(block) for block in _path_blocks(points, members))
    return squares_of_gram(sum(grams, np.zeros((len(members.units),) * 2)))


def shuffled_squares(points: UnitPoints, members: Members, n: int, rng: np.random.Generator) -> np.ndarray:  # (n, m, m)
    """`path_squares` after the units of each slice have been shuffled, ``n`` times over."""
    grams = np.zeros((n, len(members.units), len(members.units)))
    for block in map(_shortened, _path_blocks(points, members)):
        nodes = np.arange(block.shape[0] * block.shape[1]).reshape(block.shape[:2])
        for gram in grams:
            order = rng.permuted(nodes, axis=1)
            paths = block.reshape(nodes.size, -1).take(order.T, axis=0).reshape(len(gram), -1)
            gram += paths @ paths.T
    return squares_of_gram(grams)


def _shortened(block: np.ndarray) -> np.ndarray:  # (B, m, p) -> (B, m, p)
    """Points with the same scalar products within each slice, and with at most as many coordinates as points."""
    if block.shape[2] <= block.shape[1]:
        return block
    squares, axes = np.linalg.eigh(block @ block.swapaxes(1, 2))
    return axes * np.sqrt(squares.clip(0))[:, None]


def _gram(block: np.ndarray) -> np.ndarray:  # (B, m, p) -> (m, m)
    paths = block.swapaxes(0, 1).reshape(block.shape[1], -1)
    return paths @ paths.T


def squares_of_gram(gram: np.ndarray) -> np.ndarray:  # (..., m, m)
    """Squared distances from scalar products; those that are rounding are 0."""
    norms = np.diagonal(gram, axis1=-2, axis2=-1)
    squares = norms[..., :, None] + norms[..., None, :] - 2 * gram
    squares = (squares + squares.swapaxes(-1, -2)) / 2
    largest = squares.max((-2, -1), keepdims=True, initial=0)
    return np.where(squares <= _EQUAL * largest, 0, squares)


def summed_affinity(points: UnitPoints, members: Members) -> np.ndarray:  # (m, m)
    """The intraslice affinity between the members (step 3 of docs/method.md), summed over the slices that count."""
    total = np.zeros((points.present.shape[1],) * 2)
    for block, resolution in points.counted_blocks(members):
        rows = csr.to_torch(intraslice_affinity(block, resolution=resolution, masked=points.masked)).to_dense()
        total += rows.reshape(len(block), *total.shape).sum(0).cpu().numpy()
    return total[np.ix_(members.units, members.units)]
