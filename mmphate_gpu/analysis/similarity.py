"""Similarity of the states of two epochs, or of two time steps: linear CKA and SVCCA."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from ..errors import InputError, check_choice
from ..ops.chunks import row_chunks
from ..trace import Trace

AXES = ("epochs", "timesteps")
# Numbers of a group of cells, 64 MiB in float64.
_GROUP_ELEMENTS = 2**23
# SVCCA keeps the directions that hold this share of the variance (Raghu et al., 2017).
_KEPT_VARIANCE = 0.99

States = Callable[[slice], torch.Tensor]  # the centered states of some cells, (b, n, M) float64


def similarity(trace: Trace, method: str, over: str) -> np.ndarray:  # (E, E) or (T, T)
    """Similarity of the states at every two epochs, or at every two time steps, from 0 to 1.

    A cell is an epoch or a time step. Its states are a matrix X with a column for each unit. Its rows are the samples
    at all steps of the epoch, or at all epochs of the step, and each column has mean 0. "cka" is linear CKA:
    ||X' Y||^2 / (||X' X|| ||Y' Y||), which rotations of the units and a common scale do not change. "svcca" is the mean
    canonical correlation of the leading singular directions of X and Y, which hold 99 % of the variance. Linear maps
    of these directions do not change it. A cell whose states are constant has no similarity (NaN).

    Notes
    -----
    A cell has n samples. O(cells^2 n M^2) time, and temporaries of some 64 MiB. Sources: Kornblith et al., arXiv
    1905.00414 (CKA); Raghu et al., arXiv 1706.05806 (SVCCA).

    Examples
    --------
    >>> from mmphate_gpu.trace import as_trace
    >>> states = np.random.default_rng(0).normal(size=(3, 2, 4, 10))
    >>> similarity(as_trace(np.concatenate([states, 2 * states[:1]])), "cka", "epochs")[0, 3].round(6).item()
    1.0
    """
    check_choice("method", method, _METHODS)
    check_choice("over", over, AXES)
    if trace.mask is not None:
        raise InputError("the trace is masked; accepted: a trace without missing samples for CKA and SVCCA")
    return _METHODS[method](_states(trace, over), trace.shape[AXES.index(over)], trace)


def _states(trace: Trace, over: str) -> States:
    data: Any = trace.load().data
    cells = data.movedim(AXES.index(over), 0)  # (cells, others, M, P)

    def of(part: slice) -> torch.Tensor:
        states = cells[part].double().transpose(2, 3).flatten(1, 2)  # (b, n, M)
        return states - states.mean(1, keepdim=True)

    return of


def _cka(states: States, n_cells: int, trace: Trace) -> np.ndarray:
    values = torch.empty(n_cells, n_cells, dtype=torch.float64, device=trace.data.device)
    for row in range(n_cells):
        left = states(slice(row, row + 1))[0].T  # (M, n)
        for part in _groups(n_cells, trace):
            values[row, part] = (left @ states(part)).square().sum((1, 2))
    norms = values.diagonal().sqrt()
    return (values / (norms[:, None] * norms)).cpu().numpy()


def _svcca(states: States, n_cells: int, trace: Trace) -> np.ndarray:
    """The mean of the singular values of U' V, for orthonormal bases U and V of the leading directions."""
    maps, counts = zip(*(_leading(states(slice(cell, cell + 1))[0]) for cell in range(n_cells)), strict=True)
    whiten, kept = torch.stack(maps), torch.stack(counts)  # (cells, M, M), (cells,)
    values = torch.empty(n_cells, n_cells, dtype=torch.float64, device=trace.data.device)
    for row in range(n_cells):
        left = (states(slice(row, row + 1))[0] @ whiten[row]).T  # (M, n), its rows orthonormal or 0
        for part in _groups(n_cells, trace):
            cosines = torch.linalg.svdvals(left @ (states(part) @ whiten[part]))
            values[row, part] = cosines.sum(1) / torch.minimum(kept[row], kept[part])
    return values.clamp(max=1.0).cpu().numpy()  # NaN stays


def _leading(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # (n, M) -> (M, M), ()
    """The map of the states to an orthonormal basis of their leading directions, padded with 0; and their number."""
    variance, directions = torch.linalg.eigh(states.T @ states)
    variance = variance.flip(0).clamp_min(0)
    before = torch.cat([variance.new_zeros(1), variance.cumsum(0)[:-1]])
    # The first direction is kept in any case; of constant states none is.
    keep = (before < _KEPT_VARIANCE * variance.sum()) & (variance > 0)
    scale = torch.where(keep, variance.clamp_min(torch.finfo(variance.dtype).tiny).rsqrt(), 0.0)
    return directions.flip(1) * scale, keep.sum()


def _groups(n_cells: int, trace: Trace) -> Iterator[slice]:
    return iter(row_chunks(n_cells, math.prod(trace.shape) // n_cells, _GROUP_ELEMENTS))


_METHODS: dict[str, Callable[[States, int, Trace], np.ndarray]] = {"cka": _cka, "svcca": _svcca}
METHODS = tuple(_METHODS)
