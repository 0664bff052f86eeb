"""The nodes of each slice, or of each unit, as points in sample space beside their places in a picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from ..embedding import Embedding
from ..errors import InputError
from ..linalg.safe_scale import safe_scale
from ..ops.chunks import row_chunks
from ..runtime.arrays import real_tensor
from ..trace import Trace
from ..trace.points import points_in_memory
from ..trace.stored import ALL, blocks, blockwise

# Numbers of a group of sets, 64 MiB in float64. A few copies of a group are made while it is scored.
GROUP_ELEMENTS = 2**23


class Sets(NamedTuple):
    """Some sets of nodes, in both spaces. A missing sample is NaN, and so is a node without a place."""

    points: torch.Tensor  # (B, n, p) float64
    places: torch.Tensor  # (B, n, C) float64


@dataclass(frozen=True, eq=False)
class NodeSets:
    """The sets of nodes of a trace and its picture, in groups, so that no copy of the trace is made.

    The nodes of ``slices`` are the query nodes, whose neighbors are compared: all nodes, or those of some slices.
    """

    trace: Trace
    places: torch.Tensor  # (S, M, C) float64
    slices: np.ndarray  # (B,) ascending
    normalize: bool = True

    @property
    def n_queries(self) -> int:
        """The number of query nodes of a unit; they are the first nodes of their set in `of_units`."""
        return len(self.slices)

    def of_slices(self) -> Iterator[Sets]:
        """The units of each slice of query nodes, slice by slice."""
        n_units, n_samples = self.trace.n_units, self.trace.n_samples
        for group in row_chunks(len(self.slices), n_units * n_samples, GROUP_ELEMENTS):
            slices = self.slices[group]
            nodes = (slices[:, None] * n_units + np.arange(n_units)).ravel()
            points = node_points(self.trace, nodes, self.normalize)
            yield Sets(points.unflatten(0, (len(slices), n_units)), self.places[torch.from_numpy(slices)])

    def of_units(self) -> Iterator[Sets]:
        """The slices of each unit, unit by unit. Those of query nodes come first."""
        others = np.setdiff1d(np.arange(self.trace.n_slices), self.slices)
        order = torch.from_numpy(np.concatenate([self.slices, others])).to(self.places.device)
        whole = not others.size  # nothing to reorder
        for units in row_chunks(self.trace.n_units, self.trace.n_slices * self.trace.n_samples, GROUP_ELEMENTS):
            pair = _unit_points(self.trace, units, self.normalize), self.places[:, units]
            yield Sets(*((part if whole else part[order]).transpose(0, 1).contiguous() for part in pair))


def node_sets(
    trace: Trace,
    embedding: Any,
    *,
    normalize: bool = True,
    n_slices: int | None = None,
    random_state: int | None = None,
) -> NodeSets:
    """The `NodeSets` of a trace and its picture, with a random sample of ``n_slices`` slices if the trace has more."""
    slices = np.arange(trace.n_slices)
    if n_slices is not None and n_slices < trace.n_slices:
        rng = np.random.default_rng(random_state)
        slices = np.sort(rng.choice(trace.n_slices, n_slices, replace=False))
    return NodeSets(trace, places_of(embedding, trace), slices, normalize)


def places_of(embedding: Any, trace: Trace) -> torch.Tensor:  # (S, M, C) float64
    """The coordinates of all nodes, checked, in a scale at which their squares neither overflow nor vanish."""
    if isinstance(embedding, Embedding) and embedding.layout.shape != trace.shape[:3]:
        sizes = f"embedding has the (epochs, timesteps, units) {embedding.layout.shape}"
        raise InputError(f"{sizes}; accepted: {trace.shape[:3]}, as the trace")
    coordinates = real_tensor("embedding", getattr(embedding, "coordinates", embedding))
    if coordinates.ndim != 2 or coordinates.shape[0] != trace.n_nodes or coordinates.shape[1] == 0:
        raise InputError(
            f"embedding has shape {tuple(coordinates.shape)}; accepted: ({trace.n_nodes}, n_components), "
            "one row per (slice, unit) of the trace"
        )
    good = coordinates.isfinite() | coordinates.isnan().all(1, keepdim=True)
    if not bool(good.all()):
        row = int(torch.nonzero(~good)[0, 0])
        accepted = "finite numbers, or NaN in the whole row"
        raise InputError(f"embedding is not finite in row {row} (the first such row); accepted: {accepted}")
    coordinates = coordinates.to(trace.data.device, torch.float64)
    coordinates = coordinates * safe_scale(coordinates.nan_to_num(0))  # neighbors do not depend on the scale
    return coordinates.reshape(trace.n_slices, trace.n_units, -1)


def node_points(trace: Trace, nodes: np.ndarray, normalize: bool = True) -> torch.Tensor:  # (n, P) float64
    """The points of ``nodes`` in sample space, from one pass over the trace."""
    slices, units = (torch.from_numpy(index) for index in np.divmod(nodes, trace.n_units))
    out = torch.empty(len(nodes), trace.n_samples, dtype=torch.float64, device=trace.data.device)
    for chunk, values, present in blocks(trace.data, trace.mask):
        rows = torch.nonzero(_within(slices, chunk.sets) & _within(units, chunk.rows)).squeeze(1)
        if not len(rows):
            continue
        index = slices[rows] - chunk.sets.start, units[rows] - chunk.rows.start
        taken = None if present is None else present[index][:, None]
        out[rows] = _sample_space(values[index][:, None], taken, normalize)[:, 0]
    return out if normalize else out * safe_scale(out.nan_to_num(0))


def _within(index: torch.Tensor, part: slice) -> torch.Tensor:
    return (index >= part.start) & (index < part.stop)


def _unit_points(trace: Trace, units: slice, normalize: bool) -> torch.Tensor:  # (S, m, P) float64
    arrays = [blockwise(array) for array in (trace.data, trace.mask) if array is not None]
    values, *present = (array.block(ALL, units) for array in arrays)
    for array in arrays:
        array.check()
    points = _sample_space(values, present[0] if present else None, normalize)
    return points if normalize else points * safe_scale(points.nan_to_num(0))


def _sample_space(values: torch.Tensor, present: torch.Tensor | None, normalize: bool) -> torch.Tensor:  # (B, m, P)
    """The points of some nodes in sample space, float64: their samples, z-scored if ``normalize``.

    A z-score is (x - mean) / (deviation + 1e-8) over the present samples, with ddof 1, and 0 for dead units. Masked
    samples are NaN, and so are all samples of a node that has fewer than two and is z-scored.
    """
    data, mask = values[:, None], None if present is None else present[:, None]
    points = points_in_memory(data, mask, normalize=False)[0]
    if not normalize:
        return points
    count = (~points.isnan()).sum(-1, keepdim=True)
    points -= points.nansum(-1, keepdim=True) / count
    squares = points.square_().nansum(-1, keepdim=True)
    population, sample = (squares / count).sqrt(), (squares / (count - 1).clamp_min(1)).sqrt()
    return points_in_memory(data, mask, normalize=True)[0].mul_(population / (sample + 1e-8))
