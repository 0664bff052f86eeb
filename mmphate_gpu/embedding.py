"""The result of a run: coordinates of every node, and what is needed to read them."""

from __future__ import annotations

import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._arrays import to_numpy
from ._atomic import whole_file
from ._coordinates import settled
from ._paths import expanded
from .params import InputError, InputTypeError, check_number
from .slices import SliceLayout

if TYPE_CHECKING:
    import anndata
    import xarray

AXES = ("epoch", "timestep", "unit")


@dataclass(frozen=True, eq=False, repr=False)
class Embedding:
    """Coordinates of N nodes in C components, with the place of every node in the trace.

    Parameters
    ----------
    coordinates : (N, C) real, finite; row order is that of `SliceLayout`.
    layout : the (epoch, timestep, unit) of every row; ``layout.n_nodes`` is N.
    most_active : (N,) the class whose samples drive the node most; None for a trace without labels.
    entropy : (t_max,) von Neumann entropy of the landmark operator, in nats.
    t : the diffusion time that was used.
    stress : Kruskal's normalised stress-1 of the landmark distances.

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

    def __post_init__(self) -> None:
        if not isinstance(self.layout, SliceLayout):
            raise InputTypeError(f"layout is a {type(self.layout).__name__}; a SliceLayout is accepted")
        coordinates = _real("coordinates", self.coordinates, ndim=2)
        object.__setattr__(self, "coordinates", coordinates)
        _check_rows("coordinates", self.coordinates, self.layout)
        if self.coordinates.shape[1] < 1:
            raise InputError("coordinates has no columns; at least one component is accepted")
        if self.most_active is not None:
            object.__setattr__(self, "most_active", settled("most_active", _array("most_active", self.most_active)))
            _check_rows("most_active", self.most_active, self.layout)
        if self.entropy is not None:
            object.__setattr__(self, "entropy", _real("entropy", self.entropy, ndim=1))
        if self.t is not None:
            object.__setattr__(self, "t", check_number("t", self.t, low=1, integer=True))
        if self.stress is not None:
            object.__setattr__(self, "stress", check_number("stress", self.stress, low=0))

    def __repr__(self) -> str:
        epochs, timesteps, units = self.layout.shape
        size = f"{self.n_nodes} nodes x {self.n_components} components"
        return f"Embedding({size}; {epochs} epochs, {timesteps} timesteps, {units} units)"

    @property
    def n_nodes(self) -> int:
        return self.coordinates.shape[0]

    @property
    def n_components(self) -> int:
        return self.coordinates.shape[1]

    def by(self, axis: str) -> np.ndarray:  # (N,)
        """Label of every node along ``axis``: "epoch", "timestep" or "unit".

        Examples
        --------
        >>> Embedding(np.zeros((4, 2)), SliceLayout.of_shape(2, 1, 2)).by("epoch").tolist()
        [0, 0, 1, 1]
        """
        return self.layout.labels(axis)

    def to_xarray(self) -> xarray.DataArray:
        """A DataArray with dims (epoch, timestep, unit, component) and their coordinates.

        Shares the memory of ``coordinates``. Entropy, t and stress go into ``attrs``, the most
        active class into a coordinate of its own. Raises `InputError` without xarray.
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
        """An AnnData of N observations: ``obs`` epoch, timestep and unit; ``obsm["X_mmphate"]``.

        The most active class becomes one more column of ``obs``; entropy, t and stress go to
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
        """Write an .npz: ``embedding`` (N, C), ``epoch``, ``timestep``, ``unit`` (N,) per node, and the rest.

        The rest is ``shape`` (3,), the axes' ``epoch_values``, ``timestep_values``, ``unit_values``
        and whichever of ``entropy``, ``t``, ``stress``, ``most_active`` are set. The file appears
        whole or not at all.

        Raises
        ------
        InputError
            A suffix other than .npz, a folder that does not exist, a file that exists already (unless
            ``overwrite``), or a write that the file system refuses.
        """
        path = expanded(path)
        if path.suffix != ".npz":
            raise InputError(f"path={str(path)!r} ends in {path.suffix!r}; '.npz' is accepted")
        with whole_file(path, overwrite=overwrite) as new, new.open("wb") as file:
            np.savez(file, **self._arrays())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Embedding:
        """Read what `save` wrote; nothing is ever unpickled.

        Raises
        ------
        InputError
            A file that is missing, cut short, of another format, or inconsistent in itself.
        """
        path = expanded(path)
        arrays = _read(path)
        try:
            return cls._of_arrays(arrays)
        except InputError as error:
            raise InputError(f"path={str(path)!r} is not a sound embedding: {error}") from error

    @classmethod
    def _of_arrays(cls, arrays: dict[str, np.ndarray]) -> Embedding:
        layout = SliceLayout(*(_axis_values(arrays, axis) for axis in AXES))
        if arrays["shape"].tolist() != list(layout.shape):
            raise InputError(f"shape is {arrays['shape'].tolist()}; the axes hold {list(layout.shape)} values")
        scalars = {name: _scalar(name, arrays[name]) for name in ("t", "stress") if name in arrays}
        vectors = {name: arrays.get(name) for name in ("most_active", "entropy")}
        return cls(arrays["embedding"], layout, **vectors, **scalars)

    def _extras(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in ("entropy", "t", "stress")}
        return {name: value for name, value in values.items() if value is not None}

    def _arrays(self) -> dict[str, Any]:
        arrays = {"embedding": self.coordinates, "shape": np.array(self.layout.shape, dtype=np.int64), **self._extras()}
        for axis in AXES:
            arrays[axis] = self.by(axis)
            arrays[f"{axis}_values"] = getattr(self.layout, axis)
        if self.most_active is not None:
            arrays["most_active"] = self.most_active
        return arrays


def _array(name: str, array: Any, ndim: int = 1) -> np.ndarray:
    if not isinstance(array, np.ndarray):
        raise InputTypeError(f"{name} is a {type(array).__name__}; a NumPy array is accepted")
    if array.ndim != ndim:
        raise InputError(f"{name} has shape {array.shape}; {ndim} {'axis' if ndim == 1 else 'axes'} accepted")
    return to_numpy(name, array)  # without a mask


def _real(name: str, array: Any, *, ndim: int) -> np.ndarray:
    array = _array(name, array, ndim)
    if array.dtype.kind != "f":
        raise InputTypeError(f"{name} has dtype {array.dtype}; real floating-point numbers are accepted")
    finite = np.isfinite(array)
    if not finite.all():
        place = tuple(int(i) for i in np.unravel_index(np.argmin(finite), array.shape))
        raise InputError(f"{name} holds {array[place]} at {place}; finite numbers are accepted")
    return array


def _check_rows(name: str, array: np.ndarray, layout: SliceLayout) -> None:
    if len(array) != layout.n_nodes:
        raise InputError(f"{name} has {len(array)} rows; the layout has {layout.n_nodes} nodes, one row each accepted")


def _missing(method: str, package: str) -> InputError:
    return InputError(f"{method}() needs {package}; run: pip install {package} (or 'mmphate-gpu[{package}]')")


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        is_file = path.is_file()
    except OSError:  # a name too long
        is_file = False
    if not is_file:
        raise InputError(f"path={str(path)!r} is no file; an .npz written by Embedding.save is accepted")
    found = f"path={str(path)!r}"
    try:
        # Opened as a zip first: np.load would take a bare .npy, or offer to unpickle anything else.
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, OSError) as error:
        # Seen with damaged bytes: a wrong offset is an OSError, a flag that says "encrypted" a RuntimeError.
        wanted = "a whole one without pickled objects is accepted"
        raise InputError(f"{found} cannot be read as .npz ({error}); {wanted}") from error
    needed = ("embedding", "shape", *(f"{axis}_values" for axis in AXES))
    missing = [name for name in needed if not isinstance(arrays.get(name), np.ndarray)]
    if missing:
        raise InputError(f"{found} lacks {', '.join(missing)}; an .npz written by Embedding.save is accepted")
    return arrays


def _axis_values(arrays: dict[str, np.ndarray], axis: str) -> np.ndarray:
    return _array(f"{axis}_values", arrays[f"{axis}_values"])


def _scalar(name: str, array: np.ndarray) -> Any:
    if not isinstance(array, np.ndarray) or array.ndim:
        raise InputError(f"{name} in the file is not a single number, which alone is accepted")
    return array.item()
