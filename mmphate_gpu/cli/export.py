"""The command `export`: the nodes of a folder of results as .csv, .h5ad or .zarr beside it, for other programs."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..embedding import AXES
from ..errors import InputError, listed
from ..runtime.atomic import whole_file, whole_folder
from ..runtime.optional import require
from ..runtime.paths import writable
from ..runtime.signals import stoppable
from ..runtime.streams import encodable
from .arguments import PROGRAM
from .result_folder import EMBEDDING, EMBEDDING_3D, check_beside, read_embeddings

if TYPE_CHECKING:
    import anndata
    import xarray

    from ..embedding import Embedding

COLUMNS = {EMBEDDING: "mmphate", EMBEDDING_3D: "mmphate3d"}  # the beginnings of the names of columns
BLOCK = 1 << 14  # rows of a .csv that are made into text at once, a few MB
# The names in a .zarr that `export` writes.
VARIABLES = {*AXES, "component", "component3d", "most_active", "entropy", "diffusion_time", *COLUMNS.values()}
VARIABLES |= {".zgroup", ".zattrs", ".zmetadata"}
MARK = {"program": PROGRAM}  # an attribute of a .zarr, so that --force replaces no other


def export(folder: Path, formats: str, *, stem: Path | None = None, force: bool = False) -> list[Path]:
    """Write the embeddings in ``folder`` in each of ``formats``, separated by commas, and return the paths.

    They are ``folder`` with the ending of the format, or ``stem`` with it. Everything is checked before a file is
    written. Each file or .zarr folder appears whole. Each format takes about 4 s for 487,680 nodes.

    Raises
    ------
    InputError
        An unknown format, a package that is missing, a path that exists without ``force`` or is in ``folder``, a .zarr
        that this program did not write, no embedding, or embeddings of different nodes.
    """
    chosen = _formats(formats)
    paths = {name: _path(folder, stem, name) for name in chosen}
    for name, path in paths.items():
        _check_new(path, folder, force)
        NEEDS[name]()
    embeddings = _read(folder)
    for name, path in paths.items():
        with stoppable():
            WRITERS[name](path, embeddings, force)
    return list(paths.values())


def _formats(text: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    unknown = [name for name in names if name not in WRITERS]
    if unknown:
        raise InputError(f"--format {unknown[0]!r} is unknown; accepted: {listed(WRITERS)}, separated by commas")
    return names


def _path(folder: Path, stem: Path | None, name: str) -> Path:
    """The path for a format. Only the absolute path of a folder such as "." has its name."""
    base = stem if stem is not None else folder if folder.name not in ("", "..") else folder.resolve()
    if base.name in ("", ".."):
        raise InputError(f"--out {base} has no name at its end; accepted: the beginning of the names of the new files")
    return base if base.suffix == f".{name}" else base.with_name(f"{base.name}.{name}")


def _check_new(path: Path, folder: Path, force: bool) -> None:
    check_beside(path, folder)
    if not os.path.lexists(path):
        return
    if not force:
        raise InputError(f"{path} exists; accepted: --out with a new name, or --force to replace it")
    is_folder = path.is_dir() and not path.is_symlink()
    if is_folder != (path.suffix == ".zarr"):
        raise InputError(f"{path} is {'a' if is_folder else 'no'} folder; accepted: --out with a new name")
    if is_folder and (names := _others(path)):
        raise InputError(f"{path} holds {names[0]!r}, which export did not write; accepted: --out with a new name")


def _read(folder: Path) -> dict[str, Embedding]:
    embeddings = read_embeddings(folder)
    first, *others = embeddings.values()
    places = [(getattr(each.layout, axis), getattr(first.layout, axis)) for each in others for axis in AXES]
    if not all(np.array_equal(*pair) for pair in places):
        raise InputError(f"{folder}: {' and '.join(embeddings)} have different nodes; accepted: embeddings of one run")
    return embeddings


# ---------------------------------------------------------------- text that every format can hold


def plain(labels: np.ndarray) -> np.ndarray:
    """``labels`` with dates as ISO text, time spans as text, and texts without what files cannot hold.

    Halves of surrogate pairs and NUL become escapes such as \\\\ud800 and \\\\x00.

    Examples
    --------
    >>> plain(np.array(["2024-01-02"], dtype="M8[D]")).tolist(), plain(np.array(["a" + chr(0) + "b"])).tolist()
    (['2024-01-02'], ['a\\\\x00b'])
    """
    if labels.dtype.kind == "M":
        return np.where(np.isnat(labels), "", np.datetime_as_string(labels))
    if labels.dtype.kind == "m":
        return np.where(np.isnat(labels), "", labels.astype(str))
    if labels.dtype.kind == "U":
        texts = [encodable(text).replace("\0", "\\x00") for text in labels.ravel().tolist()]
        return np.array(texts, dtype=str).reshape(labels.shape)
    return labels


# ---------------------------------------------------------------- .csv


def _write_csv(path: Path, embeddings: Mapping[str, Embedding], force: bool) -> None:
    """A row for each node. Numbers have as many digits as they need to be read back to the same bits."""
    with whole_file(path, overwrite=force) as new, new.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)  # rows end with \r\n (RFC 4180), and cells with line ends are quoted
        writer.writerow(_names(embeddings))
        for rows in _blocks(embeddings):
            writer.writerows(rows)


def _names(embeddings: Mapping[str, Embedding]) -> list[str]:
    first = next(iter(embeddings.values()))
    active = ["most_active"] * (first.most_active is not None)
    places = [f"{COLUMNS[name]}_{i + 1}" for name, each in embeddings.items() for i in range(each.n_components)]
    return [*AXES, *active, *places]


def _blocks(embeddings: Mapping[str, Embedding]) -> Iterator[Iterator[tuple[str, ...]]]:
    first = next(iter(embeddings.values()))
    axes = [cells(getattr(first.layout, axis)) for axis in AXES]
    for start in range(0, first.n_nodes, BLOCK):
        nodes = np.arange(start, min(start + BLOCK, first.n_nodes))
        columns = [labels[index] for labels, index in zip(axes, first.layout.indices(nodes), strict=True)]
        columns += [cells(first.most_active[nodes])] if first.most_active is not None else []
        columns += [cells(column) for each in embeddings.values() for column in each.coordinates[nodes].T]
        yield zip(*(column.tolist() for column in columns), strict=True)


def cells(values: np.ndarray) -> np.ndarray:
    """The text of each value: the fewest digits that keep a number, and nothing for NaN.

    Examples
    --------
    >>> cells(np.array([0.1, np.nan], dtype=np.float32)).tolist()
    ['0.1', '']
    """
    texts = plain(values).astype(str)
    return np.where(np.isnan(values), "", texts) if values.dtype.kind == "f" else texts


# ---------------------------------------------------------------- .h5ad and .zarr


def _write_h5ad(path: Path, embeddings: Mapping[str, Embedding], force: bool) -> None:
    with whole_file(path, overwrite=force) as new:
        as_anndata(embeddings).write_h5ad(new)


def as_anndata(embeddings: Mapping[str, Embedding]) -> anndata.AnnData:
    """The first embedding as an AnnData, with the coordinates of the others in ``obsm``."""
    first = next(iter(embeddings.values()))
    data = first.to_anndata()
    for axis in AXES:
        data.obs[axis] = plain(getattr(first.layout, axis))[first.layout.indices()[AXES.index(axis)]]
    if first.most_active is not None:
        data.obs["most_active"] = plain(first.most_active)
    for name, embedding in list(embeddings.items())[1:]:
        data.obsm[f"X_{COLUMNS[name]}"] = embedding.coordinates
    return data


def _write_zarr(path: Path, embeddings: Mapping[str, Embedding], force: bool) -> None:
    zarr = require("zarr", purpose="export --format zarr", extra="zarr")
    # The format 2 is the only one that zarr 2 can write, and all programs read it.
    version: dict[str, Any] = {"zarr_format": 2} if hasattr(zarr.Group, "create_array") else {}
    with whole_folder(path, overwrite=force, others=_others) as new, writable(path):
        as_dataset(embeddings).to_zarr(new, mode="w", consolidated=True, **version)


def as_dataset(embeddings: Mapping[str, Embedding]) -> xarray.Dataset:
    """The embeddings as variables of a Dataset, with the entropy over the diffusion time as another one."""
    first, *others = (each.to_xarray() for each in embeddings.values())
    entropy = first.attrs.pop("entropy", None)
    attributes, first.attrs = first.attrs | MARK, {}
    data = first.to_dataset(name=COLUMNS[EMBEDDING]).assign_attrs(attributes)
    for name in ("most_active", *AXES):
        if name in data.coords and data[name].dtype.kind == "U":
            data = data.assign_coords({name: (data[name].dims, plain(data[name].values))})
    for other in others:
        data[COLUMNS[EMBEDDING_3D]] = ((*AXES, "component3d"), other.values)
    if entropy is not None:
        data["entropy"] = ("diffusion_time", entropy)
        data = data.assign_coords(diffusion_time=np.arange(len(entropy)))
    return data


def _others(path: Path) -> list[str]:
    """The names in the folder ``path`` that `export` does not write; all of them if it did not write the folder."""
    try:
        attributes = json.loads((path / ".zattrs").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        attributes = None
    written = isinstance(attributes, dict) and attributes.items() >= MARK.items()
    return sorted({item.name for item in path.iterdir()} - (VARIABLES if written else set()))


# ---------------------------------------------------------------- the formats


def _needs_anndata() -> None:
    require("anndata", purpose="export --format h5ad", extra="anndata")


def _needs_zarr() -> None:
    require("xarray", purpose="export --format zarr", extra="xarray")
    require("zarr", purpose="export --format zarr", extra="zarr")


NEEDS: dict[str, Callable[[], None]] = {"csv": lambda: None, "h5ad": _needs_anndata, "zarr": _needs_zarr}
WRITERS: dict[str, Callable[[Path, Mapping[str, Embedding], bool], None]] = {
    "csv": _write_csv,
    "h5ad": _write_h5ad,
    "zarr": _write_zarr,
}
