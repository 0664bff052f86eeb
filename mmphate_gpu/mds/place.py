"""Out-of-sample placement: the coordinates of new slices of the fitted units."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..operators.graph_nodes import warn_left_out
from ..ops.chunks import row_chunks
from ..ops.distances import distances_by_difference
from ..runtime.arrays import tensor_of
from ..runtime.atomic import whole_file
from ..runtime.devices import resolve_device
from ..runtime.isolation import isolated
from ..runtime.memory import check_fits
from ..runtime.paths import check_files, expanded
from ..slices import unit_major
from ..trace import PrincipalAxes, Trace, trace_points
from ..trace.formats.arrays import naming, readable
from ..trace.formats.npy import npz_members
from ..trace.pca import on_axes
from ..trace.points import least_samples

# The entries of a file of a placement; those of `PrincipalAxes` are there if PCA reduced the samples.
_TENSORS = ("points", "targets", "bandwidth")
_NUMBERS: dict[str, type] = {"n_samples": np.int64, "normalize": np.bool_, "thresh": np.float64, "masked": np.bool_}


@dataclass(frozen=True, eq=False, repr=False)
class Placement:
    """Places new slices of the fitted units into a fitted picture, and needs neither the trace nor the affinity.

    A new node of a unit goes to the mean of the places of the fitted slices of that unit, weighted by the interslice
    affinity exp(-(d / bandwidth)^2) of step 5: later epochs, the run of another seed, a finer grid of time steps. The
    samples are the fitted ones, in their order. `MMPHATE.fit` makes this object, ``placement_``, and
    `MMPHATE.transform` is `coordinates` for arrays of any library.

    Parameters
    ----------
    n_samples : int
        P of the fitted trace.
    normalize : bool
        Whether nodes are z-scored over their samples (step 1).
    axes : PrincipalAxes or None
        What step 2 subtracts and multiplies by. None if it does not reduce the samples.
    points : (M, S, D) float64
        The fitted points of every unit; NaN where a sample is missing.
    targets : (M, S, C) float64
        The place of every fitted node: the coordinates of its landmark. It does not matter where a node has no sample.
    bandwidth : () float64
        The interslice bandwidth.
    thresh : float
        Weights below it are 0, if a larger one is not.
    masked : bool
        Whether samples of the fitted trace are missing. Distances are then over the samples that both nodes have,
        scaled to all, and so they are for a masked trace of new slices.

    Examples
    --------
    >>> import numpy as np
    >>> from mmphate_gpu import MMPHATE, as_trace
    >>> walk = np.random.default_rng(0).normal(size=(40, 4, 10)).cumsum(0)  # (slice, unit, sample)
    >>> placement = MMPHATE(random_state=0).fit(walk[:30]).placement_
    >>> placement.coordinates(as_trace(walk[30:])).shape
    torch.Size([40, 2])
    """

    n_samples: int
    normalize: bool
    axes: PrincipalAxes | None
    points: torch.Tensor
    targets: torch.Tensor
    bandwidth: torch.Tensor
    thresh: float
    masked: bool = False

    @isolated()
    def coordinates(self, trace: Trace) -> torch.Tensor:  # (S_new M, C) float64
        """Coordinates of the nodes of ``trace``, in their order, on the device of ``points``.

        Up to rounding, a row does not depend on other nodes. A node with fewer than two present samples (one without
        normalization), or with no sample in common with a fitted node of its unit, has a row of NaN. O(S_new M S D)
        time; chunks of memory beside the points of ``trace``. Deterministic.

        Raises
        ------
        InputError
            ``trace`` has other units or samples than the fitted trace, or is masked where PCA reduced the fitted one.
        """
        self._check(trace)
        n_pca = None if self.axes is None else self.axes.loadings.shape[1]
        points, resolution = trace_points(trace.to(self.points.device), normalize=self.normalize, n_pca=n_pca)
        warn_left_out(resolution, least_samples(self.normalize, trace.n_samples))
        new, masked = unit_major(on_axes(points, self.axes)), self.masked or trace.mask is not None
        rows = place(new, self.points, self.targets, self.bandwidth, thresh=self.thresh, masked=masked)
        return rows.transpose(0, 1).reshape(-1, rows.shape[-1])

    def __repr__(self) -> str:
        (n_units, n_slices), n_components = self.points.shape[:2], self.targets.shape[2]
        return f"Placement({n_slices} slices, {n_units} units, {self.n_samples} samples; {n_components} components)"

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write an .npz file, from which `load` makes the same placement in another process. It appears whole or not.

        Raises
        ------
        InputError
            A suffix other than .npz, a folder that does not exist, a file that exists already (unless ``overwrite``),
            or a write that the file system refuses.
        """
        path = expanded(path)
        if path.suffix != ".npz":
            raise InputError(f"path={str(path)!r} ends in {path.suffix!r}; accepted: '.npz'")
        fields: dict[str, Any] = {name: getattr(self, name) for name in (*_TENSORS, *_NUMBERS)}
        fields |= {} if self.axes is None else self.axes._asdict()
        arrays: dict[str, Any] = {
            name: np.asarray(value.cpu() if torch.is_tensor(value) else value) for name, value in fields.items()
        }
        with whole_file(path, overwrite=overwrite) as new, new.open("wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: Any = "cpu") -> Placement:
        """Read a file that `save` wrote, with its tensors on ``device``. Nothing is ever unpickled.

        Raises
        ------
        InputError
            The file is missing, truncated, of another format, inconsistent, or does not fit in memory.
        """
        path = expanded(path)
        arrays = _read(path)
        numbers = {name: arrays.pop(name).item() for name in _NUMBERS}
        tensors: dict[str, Any] = {name: tensor_of(array).to(resolve_device(device)) for name, array in arrays.items()}
        axes = PrincipalAxes(tensors.pop("mean"), tensors.pop("loadings")) if "mean" in tensors else None
        return cls(axes=axes, **tensors, **numbers)

    def _check(self, trace: Trace) -> None:
        fitted = (self.points.shape[0], self.n_samples)
        if trace.shape[2:] != fitted:
            raise InputError(f"X has (units, samples) = {trace.shape[2:]}; accepted: {fitted}, as fitted")
        if trace.mask is not None and self.axes is not None:
            raise InputError(
                "X is masked, and the fit reduced the samples by PCA; accepted: no mask, or n_pca=None at fit"
            )


def _read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file that `Placement.save` wrote. Their headers are checked before any values are read."""
    with readable(path), naming(path):
        check_files(path)
        with npz_members(path) as members:
            _check_headers({name: (member.shape, member.dtype) for name, member in members.items() if member.is_array})
            needed = sum(member.header.nbytes for member in members.values())
            check_fits("the placement", needed, torch.device("cpu"), remedy="accepted: a placement that fits in memory")
            return {name: member.read() for name, member in members.items()}


def _check_headers(headers: dict[str, tuple[tuple[int, ...], np.dtype]]) -> None:
    names, shape_of = set(headers), {name: shape for name, (shape, _) in headers.items()}
    if names not in ({*_TENSORS, *_NUMBERS}, {*_TENSORS, *_NUMBERS, *PrincipalAxes._fields}):
        raise InputError(f"it holds {', '.join(sorted(names))}; accepted: an .npz written by Placement.save")
    if len(shape_of["points"]) != 3:
        raise InputError(f"points has shape {shape_of['points']}; accepted: three axes (unit, slice, feature)")
    (n_units, n_slices, n_features), n_components = shape_of["points"], shape_of["targets"][-1:]
    wanted = {name: () for name in ("bandwidth", *_NUMBERS)} | {"targets": (n_units, n_slices, *n_components)}
    if "mean" in shape_of:
        wanted |= {"loadings": (*shape_of["mean"], n_features)}
    for name, shape in wanted.items():
        if shape_of[name] != shape:
            raise InputError(f"{name} has shape {shape_of[name]}; accepted: {shape}")
    for name, (_, dtype) in headers.items():
        if dtype != _NUMBERS.get(name, np.float64):
            raise InputError(f"{name} has dtype {dtype}; accepted: {np.dtype(_NUMBERS.get(name, np.float64))}")


def place(
    points: torch.Tensor,  # (M, S_new, D) float64
    fitted: torch.Tensor,  # (M, S, D) float64
    targets: torch.Tensor,  # (M, S, C)
    bandwidth: torch.Tensor,  # ()
    *,
    thresh: float,
    masked: bool = False,
) -> torch.Tensor:  # (M, S_new, C)
    """Means of ``targets`` with the weights exp(-(d / bandwidth)^2), which are 0 below ``thresh``.

    If all weights of a point are below ``thresh``, none is set to 0, so a point far from all fitted points has
    coordinates too. Up to rounding, a row depends only on its point. In ``masked`` points NaN is a missing sample; a
    point that shares no sample with a fitted point has NaN. O(M S_new S (D + C)) time; chunks of memory. Deterministic.
    """
    coordinates = targets.new_empty(*points.shape[:2], targets.shape[-1])
    least = math.log(thresh) if thresh > 0 else -math.inf
    for unit in range(points.shape[0]):
        for rows in row_chunks(points.shape[1], fitted.shape[1]):
            distances = distances_by_difference(points[unit, rows], fitted[unit], masked)
            scores = -(distances / bandwidth).square()
            best = scores.amax(1, keepdim=True)
            cut = (scores < least) & (best >= least)
            weights = (scores - best).exp_().masked_fill_(cut, 0)  # only the ratios of the weights matter
            coordinates[unit, rows] = (weights / weights.sum(1, keepdim=True)) @ targets[unit]
    return coordinates
