"""Similarity of the states of two epochs, or of two time steps: linear CKA and SVCCA."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import InputError, check_choice
from ..ops.chunks import row_chunks
from ..trace import Trace

AXES = ("epochs", "timesteps")
# Numbers of a group of cells, and of the products of two groups: 64 MiB in float64.
_GROUP_ELEMENTS = 2**23
# SVCCA keeps the directions that hold this share of the variance (Raghu et al., 2017).
_KEPT_VARIANCE = 0.99


def similarity(trace: Trace, method: str, over: str) -> np.ndarray:  # (E, E) or (T, T)
    """Similarity of the states at every two epochs, or at every two time steps, from 0 to 1.

    A cell is an epoch or a time step. Its states are a matrix X with a column for each unit. Its rows are the samples
    at all time steps of the epoch, or at all epochs of the time step, and each column has mean 0. "cka" is linear CKA,
    ||X' Y||^2 / (||X' X|| ||Y' Y||), which rotations of the units and a common scale do not change. "svcca" is the mean
    canonical correlation of the leading singular directions of X and Y, which hold 99 % of the variance. Linear maps
    of these directions do not change it. Both are published. A cell whose states are constant has NaN.

    Neither is corrected for chance. CKA of n independent samples of p and q units is about
    sqrt(p q / ((n + p) (n + q))), so compare it with 0 only if n is much larger than the number of units.

    Parameters
    ----------
    trace : Trace
        Without a mask.
    method : {"cka", "svcca"}
    over : {"epochs", "timesteps"}

    Raises
    ------
    InputError
        Another method or axis, or a masked trace.

    Notes
    -----
    A cell has n samples. O(cells^2 n M^2) time, or O(cells^2 n^2) for CKA with at most as many samples as units, and
    temporaries of some 64 MiB. SVCCA also takes the singular values of a matrix for every two cells, with a row and a
    column for each direction that is kept. A stored trace is loaded. Sources: Kornblith et al., arXiv 1905.00414 (CKA);
    Raghu et al., arXiv 1706.05806 (SVCCA).

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
    data: Any = trace.load().data
    return _METHODS[method](_States(data.movedim(AXES.index(over), 0))).clamp(max=1.0).cpu().numpy()  # NaN stays


@dataclass(frozen=True)
class _States:
    """The states of all cells, with samples as rows and units as columns."""

    data: torch.Tensor  # (cells, others, M, P)

    @property
    def n_cells(self) -> int:
        return len(self.data)

    @property
    def n_units(self) -> int:
        return self.data.shape[2]

    @property
    def n_rows(self) -> int:
        return self.data.shape[1] * self.data.shape[3]

    def __call__(self, part: slice) -> torch.Tensor:  # (b, n, M) float64
        """The centered states of some cells. The scale of a cell is free, and here its largest number is near 1."""
        states = self.data[part].double().transpose(2, 3).flatten(1, 2)
        size = states.abs().amax((1, 2), keepdim=True)
        states = states / torch.where(size > 0, size, 1.0)
        # Without the first step, the mean of equal numbers may differ from them by rounding.
        states = states - states[:, :1]
        return states - states.mean(1, keepdim=True)

    def empty(self) -> torch.Tensor:  # (cells, cells)
        return self.data.new_empty(self.n_cells, self.n_cells, dtype=torch.float64)

    def groups(self) -> list[slice]:
        """Cells whose states, and whose products with those of another group, have at most `_GROUP_ELEMENTS`."""
        return list(
            row_chunks(self.n_cells, max(self.n_rows, math.isqrt(_GROUP_ELEMENTS)) * self.n_units, _GROUP_ELEMENTS)
        )


Bases = Callable[[slice], torch.Tensor]  # columns that stand for the states of some cells, (b, n, k)
Score = Callable[[torch.Tensor], torch.Tensor]  # (cells, cells, k, k) -> (cells, cells)


def _of_pairs(states: _States, bases: Bases, score: Score) -> torch.Tensor:  # (cells, cells)
    """The symmetric ``score`` of the products X' Y of the bases of every two cells."""
    values, groups = states.empty(), states.groups()
    for index, first in enumerate(groups):
        left = bases(first)
        for second in groups[index:]:
            products = torch.einsum("anm,bnk->abmk", left, bases(second))
            values[first, second] = part = score(products)
            values[second, first] = part.T
    return values


def _cka(states: _States) -> torch.Tensor:
    if states.n_rows <= states.n_units:
        grams = torch.cat([_grams(states(group)) for group in states.groups()])
        values = grams @ grams.T
    else:
        values = _of_pairs(states, states, lambda products: products.square().sum((2, 3)))
    norms = values.diagonal().sqrt()
    return values / (norms[:, None] * norms)


def _grams(states: torch.Tensor) -> torch.Tensor:  # (b, n, M) -> (b, n n)
    """X X' of each cell. The product of two of them, entry by entry, sums to ||X' Y||^2."""
    return (states @ states.mT).flatten(1)


def _svcca(states: _States) -> torch.Tensor:
    """The mean of the singular values of U' V, for orthonormal bases U and V of the leading directions."""
    cells = [_leading(states(slice(cell, cell + 1))[0]) for cell in range(states.n_cells)]
    whiten, kept = (torch.stack(parts) for parts in zip(*cells, strict=True))  # (cells, M, M), (cells,)
    whiten = whiten[:, :, : max(int(kept.max()), 1)]
    sums = _of_pairs(
        states, lambda part: states(part) @ whiten[part], lambda cosines: torch.linalg.svdvals(cosines).sum(-1)
    )
    return sums / torch.minimum(kept[:, None], kept)


def _leading(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # (n, M) -> (M, M), ()
    """The map of the states to an orthonormal basis of their leading directions, padded with 0; and their number."""
    variance, directions = torch.linalg.eigh(states.T @ states)
    variance = variance.flip(0).clamp_min(0)
    before = torch.cat([variance.new_zeros(1), variance.cumsum(0)[:-1]])
    # The first direction is kept in any case; of constant states none is.
    keep = (before < _KEPT_VARIANCE * variance.sum()) & (variance > 0)
    scale = torch.where(keep, variance.clamp_min(torch.finfo(variance.dtype).tiny).rsqrt(), 0.0)
    return directions.flip(1) * scale, keep.sum()


_METHODS: dict[str, Callable[[_States], torch.Tensor]] = {"cka": _cka, "svcca": _svcca}
METHODS = tuple(_METHODS)
