"""The result of a run: coordinates of every node, with its epoch, time step and unit."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .errors import InputError, InputTypeError, check_number
from .interactive import framed, page
from .runtime.arrays import to_numpy
from .runtime.atomic import whole_file
from .runtime.memory import check_fits
from .runtime.paths import check_files, expanded
from .slices import SliceLayout
from .trace.coordinates import as_coordinate
from .trace.dims import check_length, check_text
from .trace.formats.arrays import naming, readable
from .trace.formats.npy import NpzMember, npz_members

if TYPE_CHECKING:
    import anndata
    import xarray

AXES = ("epoch", "timestep", "unit")
# The entries that `Embedding.load` reads. The axes determine the labels of the nodes, so it does not read the labels.
_NEEDED = ("embedding", "shape", *(f"{axis}_values" for axis in AXES))
_OPTIONAL = ("most_active", "entropy", "t", "t_range", "stress")
NOTEBOOK_NODES = 50_000  # a notebook keeps its pictures in its file


@dataclass(frozen=True, eq=False, repr=False)
class Embedding:
    """Coordinates of N nodes in C components, with the place of every node in the trace.

    Parameters
    ----------
    coordinates : (N, C) real, finite
        The order of the rows is that of ``layout``. A node without a place, because too few of its samples were
        recorded, has a row of NaN.
    layout : SliceLayout
        The (epoch, timestep, unit) of every row; ``layout.n_nodes`` is N.
    most_active : (N,), optional
        The class whose samples activate the node most; None for a trace without labels.
    entropy : (t_max,) real, finite, optional
        Von Neumann entropy of the landmark operator, in nats.
    t : int, optional
        Diffusion time.
    t_range : (int, int), optional
        The lowest and the highest t that other landmarks could give, of a ``t`` that an entropy has chosen.
    stress : float, optional
        Kruskal's normalized stress-1 of the landmark distances.

    Raises
    ------
    InputError, InputTypeError
        Shapes that do not fit one another, values that are not finite real numbers, masked entries, or classes
        that no file can hold.
    """

    coordinates: np.ndarray  # (N, C)
    layout: SliceLayout
    most_active: np.ndarray | None = None  # (N,)
    entropy: np.ndarray | None = None  # (t_max,)
    t: int | None = None
    stress: float | None = None
    t_range: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.layout, SliceLayout):
            raise InputTypeError(f"layout is a {type(self.layout).__name__}; accepted: a SliceLayout")
        coordinates = _real("coordinates", self.coordinates, ndim=2, whole_rows=True)
        object.__setattr__(self, "coordinates", coordinates)
        _check_rows("coordinates", self.coordinates, self.layout)
        if self.coordinates.shape[1] < 1:
            raise InputError("coordinates has no columns; accepted: at least one component")
        if self.most_active is not None:
            object.__setattr__(
                self, "most_active", as_coordinate("most_active", _array("most_active", self.most_active))
            )
            _check_rows("most_active", self.most_active, self.layout)
        if self.entropy is not None:
            object.__setattr__(self, "entropy", _real("entropy", self.entropy, ndim=1))
        if self.t is not None:
            object.__setattr__(self, "t", check_number("t", self.t, low=1, integer=True))
        if self.t_range is not None:
            object.__setattr__(self, "t_range", _time_range(self.t_range, self.t))
        if self.stress is not None:
            object.__setattr__(self, "stress", check_number("stress", self.stress, low=0))

    def __repr__(self) -> str:
        epochs, timesteps, units = self.layout.shape
        size = f"{self.n_nodes} nodes x {self.n_components} components"
        return f"Embedding({size}; {epochs} epochs, {timesteps} timesteps, {units} units)"

    def _repr_html_(self) -> str | None:
        """The interactive picture for notebooks; None if no node has a place, or a slice has too many units."""
        try:
            text = page(self.coordinates, self.layout, most_active=self.most_active, max_nodes=NOTEBOOK_NODES)
        except InputError:
            return None
        return framed(text, f"{self._caption()}. plots.interactive(result, 'picture.html') writes a file to send.")

    def _caption(self) -> str:
        facts = [f"{self.n_nodes:,} nodes", f"{self.n_components} components"]
        facts += [] if self.t is None else [f"t = {self.t_text}"]
        facts += [] if self.stress is None else [f"stress {self.stress:.3g}"]
        return ", ".join(facts)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """The text and, where nodes have places, the picture; IPython picks by ``include`` and ``exclude``."""
        picture = self._repr_html_()
        return {"text/plain": repr(self)} | ({"text/html": picture} if picture else {})

    @property
    def n_nodes(self) -> int:
        return self.coordinates.shape[0]

    @property
    def n_components(self) -> int:
        return self.coordinates.shape[1]

    @property
    def t_text(self) -> str:
        """The diffusion time with its range, such as "31 (28 to 35)"; for an embedding with a ``t``."""
        return time_text(self.t, self.t_range)

    def by(self, axis: str) -> np.ndarray:  # (N,)
        """Label of every node along ``axis``: "epoch", "timestep" or "unit".

        Examples
        --------
        >>> Embedding(np.zeros((4, 2)), SliceLayout.of_shape(2, 1, 2)).by("epoch").tolist()
        [0, 0, 1, 1]
        """
        return self.layout.labels(axis)

    def at(self, epochs: np.ndarray, timesteps: np.ndarray) -> Embedding:
        """The part with some epochs and time steps, and with all units.

        Entropy, t and stress are those of the whole. Raises `InputError` for anything but indices from 0 on.

        Parameters
        ----------
        epochs : (e,) integers
            Indices of epochs, in the order that the part has.
        timesteps : (s,) integers
            Indices of time steps, in the order that the part has.

        Returns
        -------
        Embedding
            Its coordinates are a copy, (e s M, C).

        Raises
        ------
        IndexError
            An index is out of range.

        Examples
        --------
        >>> whole = Embedding(np.arange(12.0).reshape(6, 2), SliceLayout.of_shape(3, 2, 1))
        >>> whole.at(np.array([0, 2]), np.array([1])).coordinates.tolist()
        [[2.0, 3.0], [10.0, 11.0]]
        """
        epochs = _checked_indices("epochs", epochs, self.layout.n_epochs)
        timesteps = _checked_indices("timesteps", timesteps, self.layout.n_timesteps)
        layout = SliceLayout(self.layout.epoch[epochs], self.layout.timestep[timesteps], self.layout.unit)
        rows = np.arange(self.n_nodes).reshape(self.layout.shape)[np.ix_(epochs, timesteps)].ravel()
        active = None if self.most_active is None else self.most_active[rows]
        return replace(self, coordinates=self.coordinates[rows], layout=layout, most_active=active)

    def to_xarray(self) -> xarray.DataArray:
        """A DataArray with dims (epoch, timestep, unit, component) and their coordinates.

        It shares the memory of ``coordinates``. Entropy, t and stress are in ``attrs``, and the most active class is
        another coordinate. Raises `InputError` without xarray.
        """
        try:
            import xarray
        except ImportError as error:
            raise _missing("to_xarray", "xarray") from error
        coords: dict[str, Any] = {axis: getattr(self.layout, axis) for axis in AXES}
        coords["component"] = np.arange(self.n_components)
        if self.most_active is not None:
            coords["most_active"] = (AXES, self.most_active.reshape(self.layout.shape))
        data = self.coordinates.reshape(*self.layout.shape, self.n_components)
        return xarray.DataArray(data, coords, (*AXES, "component"), name="mmphate", attrs=self._extras())

    def to_anndata(self) -> anndata.AnnData:
        """An AnnData of N observations, with the coordinates in ``obsm["X_mmphate"]``.

        ``obs`` has the columns epoch, timestep, unit and, if known, most_active. Entropy, t and stress are in
        ``uns["mmphate"]``. Raises `InputError` without anndata.
        """
        try:
            import anndata
            import pandas
        except ImportError as error:
            raise _missing("to_anndata", "anndata") from error
        columns = {axis: self.by(axis) for axis in AXES}
        if self.most_active is not None:
            columns["most_active"] = self.most_active
        obs = pandas.DataFrame(columns, index=np.arange(self.n_nodes).astype(str))
        return anndata.AnnData(obs=obs, obsm={"X_mmphate": self.coordinates}, uns={"mmphate": self._extras()})

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write an .npz file. The file appears whole or not at all.

        Its entries are ``embedding`` (N, C); ``epoch``, ``timestep`` and ``unit`` (N,) of every node; ``shape`` (3,);
        ``epoch_values``, ``timestep_values`` and ``unit_values`` of the axes; and those of ``entropy``, ``t``,
        ``t_range`` (2,), ``stress`` and ``most_active`` that are set.

        Raises
        ------
        InputError
            A suffix other than .npz, a folder that does not exist, a file that exists already (unless
            ``overwrite``), or a write that the file system refuses.
        """
        path = expanded(path)
        if path.suffix != ".npz":
            raise InputError(f"path={str(path)!r} ends in {path.suffix!r}; accepted: '.npz'")
        with whole_file(path, overwrite=overwrite) as new, new.open("wb") as file:
            np.savez(file, **self._arrays())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Embedding:
        """Read a file that `save` wrote. Nothing is ever unpickled.

        Raises
        ------
        InputError
            The file is missing, truncated, of another format, inconsistent, or does not fit in memory.
        """
        path = expanded(path)
        arrays = _read(path)
        with naming(path):
            return cls._of_arrays(arrays)

    @classmethod
    def _of_arrays(cls, arrays: dict[str, np.ndarray]) -> Embedding:
        layout = SliceLayout(*(_axis_values(arrays, axis) for axis in AXES))
        if arrays["shape"].tolist() != list(layout.shape):
            raise InputError(f"shape is {arrays['shape'].tolist()}; accepted: {list(layout.shape)}, as its axes")
        scalars = {name: arrays[name].item() for name in ("t", "stress") if name in arrays}
        vectors: dict[str, Any] = {name: arrays.get(name) for name in ("most_active", "entropy")}
        vectors["t_range"] = tuple(arrays["t_range"].tolist()) if "t_range" in arrays else None
        return cls(arrays["embedding"], layout, **vectors, **scalars)

    def _extras(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in ("entropy", "t", "stress")}
        values["t_range"] = None if self.t_range is None else np.array(self.t_range)
        return {name: value for name, value in values.items() if value is not None}

    def _arrays(self) -> dict[str, Any]:
        arrays = {"embedding": self.coordinates, "shape": np.array(self.layout.shape, dtype=np.int64), **self._extras()}
        for axis in AXES:
            arrays[axis] = self.by(axis)
            arrays[f"{axis}_values"] = getattr(self.layout, axis)
        if self.most_active is not None:
            arrays["most_active"] = self.most_active
        return arrays


def time_text(t: int | None, t_range: tuple[int, int] | None) -> str:
    """The diffusion time ``t`` with its range.

    Examples
    --------
    >>> time_text(31, (28, 35)), time_text(31, None)
    ('31 (28 to 35)', '31')
    """
    return f"{t:,}" + ("" if t_range is None else f" ({t_range[0]:,} to {t_range[1]:,})")


def _time_range(times: Any, t: int | None) -> tuple[int, int]:
    """``times`` as two whole numbers with ``t`` between them."""
    if t is None or not isinstance(times, tuple) or len(times) != 2:
        raise InputError(f"t_range={times!r} with t={t}; accepted: a pair of times with t between them")
    low, high = (int(check_number("t_range", time, low=1, integer=True)) for time in times)
    if not low <= t <= high:
        raise InputError(f"t_range={times!r} with t={t}; accepted: a pair of times with t between them")
    return low, high


def _checked_indices(name: str, indices: np.ndarray, size: int) -> np.ndarray:
    array = np.asarray(indices)
    if array.ndim != 1 or array.dtype.kind not in "iu" or not ((array >= 0) & (array < size)).all():
        raise InputError(f"{name} is {indices!r}; accepted: a row of whole numbers from 0 to {size - 1}")
    return array


def _array(name: str, array: Any, ndim: int = 1) -> np.ndarray:
    if not isinstance(array, np.ndarray):
        raise InputTypeError(f"{name} is a {type(array).__name__}; accepted: a NumPy array")
    if array.ndim != ndim:
        raise InputError(f"{name} has shape {array.shape}; accepted: {ndim} {'axis' if ndim == 1 else 'axes'}")
    return to_numpy(name, array)  # without a mask


def _real(name: str, array: Any, *, ndim: int, whole_rows: bool = False) -> np.ndarray:
    """``array``, checked; ``whole_rows`` accepts rows in which every number is NaN."""
    array = _array(name, array, ndim)
    if array.dtype.kind != "f":
        raise InputTypeError(f"{name} has dtype {array.dtype}; accepted: real floating-point numbers")
    good = np.isfinite(array)
    if whole_rows:
        good |= np.isnan(array).all(-1, keepdims=True)
    if not good.all():
        place = tuple(int(i) for i in np.unravel_index(np.argmin(good), array.shape))
        rows = ", or NaN in the whole row" if whole_rows else ""
        raise InputError(f"{name} holds {array[place]} at {place}; accepted: finite numbers{rows}")
    return array


def _check_rows(name: str, array: np.ndarray, layout: SliceLayout) -> None:
    if len(array) != layout.n_nodes:
        raise InputError(f"{name} has {len(array)} rows; accepted: {layout.n_nodes}, a row for each node")


def _missing(method: str, package: str) -> InputError:
    return InputError(f"{method}() needs {package}; run: pip install {package} (or 'mmphate-gpu[{package}]')")


def _read(path: Path) -> dict[str, np.ndarray]:
    """Read the entries of an embedding from ``path``. All headers are checked before any values are read."""
    with readable(path), naming(path):
        check_files(path)
        if not path.is_file():
            raise InputError(f"{path} is no file; accepted: an .npz written by Embedding.save")
        with npz_members(path) as members:
            missing = [name for name in _NEEDED if name not in members or not members[name].is_array]
            if missing:
                raise InputError(f"{path} lacks {', '.join(missing)}; accepted: an .npz written by Embedding.save")
            stored = {name: members[name] for name in (*_NEEDED, *_OPTIONAL) if name in members}
            _check_headers(stored)
            needed = sum(member.header.nbytes for member in stored.values())
            check_fits(
                "the embedding", needed, torch.device("cpu"), remedy="accepted: an embedding that fits in memory"
            )
            return {name: member.read() for name, member in stored.items()}


def _check_headers(members: dict[str, NpzMember]) -> None:
    for axis in AXES:
        check_length(f"{axis}_values", members[f"{axis}_values"].shape, members[f"{axis}_values"].size, axis)
    n_nodes = math.prod(members[f"{axis}_values"].size for axis in AXES)
    check_length("shape", members["shape"].shape, len(AXES), "axis")
    embedding = members["embedding"].shape
    if len(embedding) != 2 or embedding[0] != n_nodes:
        raise InputError(f"embedding has shape {embedding}; accepted: ({n_nodes}, components), one row per node")
    if "most_active" in members:
        check_length("most_active", members["most_active"].shape, n_nodes, "node")
    if "entropy" in members and len(members["entropy"].shape) != 1:
        raise InputError(
            f"entropy has shape {members['entropy'].shape}; accepted: 1 axis, one value per diffusion time"
        )
    if "t_range" in members:
        check_length("t_range", members["t_range"].shape, 2, "time")
    for name in ("t", "stress"):
        if name in members and members[name].shape:
            raise InputError(f"{name} has shape {members[name].shape}; accepted: a single number")
    for name, member in members.items():
        check_text(name, member.dtype)


def _axis_values(arrays: dict[str, np.ndarray], axis: str) -> np.ndarray:
    return _array(f"{axis}_values", arrays[f"{axis}_values"])
