"""Load and save traces: .npy, .npz, .zarr, .h5 and recorders' folders. Pickles are never loaded."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError, InputTypeError, check_choice
from ..runtime.atomic import whole_file, whole_folder
from ..runtime.memory import available_bytes, check_fits
from ..runtime.paths import check_files, expanded, writable
from .contents import Contents, Heading, contents_of
from .convert import as_trace
from .dims import AXES, METRICS, SLICE_AXES, ZONES
from .formats.arrays import naming, readable
from .formats.flat import open_npy, open_npz
from .formats.h5 import open_h5, write_h5
from .formats.npy import write_npy, write_npz
from .formats.recording import LIST, META
from .formats.snapshots import open_recording
from .formats.zarr import open_zarr, others_than_zarr, write_zarr
from .stored import blockwise
from .trace import STREAM_SHARE, Trace

ENDINGS = ".npy, .npz, .zarr, .h5"
OPENERS = {".npy": open_npy, ".npz": open_npz, ".zarr": open_zarr, ".h5": open_h5, META: open_recording}
WRITERS = {".npy": write_npy, ".npz": write_npz, ".zarr": write_zarr, ".h5": write_h5, ".hdf5": write_h5}


def load_trace(
    path: str | os.PathLike[str], *, stream: bool | None = None, follow_links: bool = False, damaged: str = "raise"
) -> Trace:
    """The trace stored at ``path``: .npy, .npz, .zarr, .h5, or a recorder's folder.

    Pickled objects are never loaded. A .npz, .zarr or .h5 holds ``data`` (or ``trace``) and optionally epoch, timestep,
    unit, sample, label, unit_layer, mask, axes, and each metric as ``metrics_NAME``. The names of dimensions in a
    .zarr or .h5, as xarray and netCDF write them, or ``axes`` in a .npz say which axis is which; without names their
    order does. As in xarray, packed numbers (scale_factor, add_offset) are unpacked, and missing ones (_FillValue,
    missing_value) are masked.

    Parameters
    ----------
    stream : whether the values stay in the file and every pass of a run reads them block by block; the results have the
        same bits. None: if they would take more than a quarter of the free memory. Not possible for a compressed .npz,
        an array in Fortran order, and a .npz whose ``axes`` are in another order.
    follow_links : whether to follow links that lead out of a folder or a .h5: symbolic links, and the external links,
        external storage and virtual datasets of HDF5. ``path`` itself may always be a link.
    damaged : "raise" or "skip"
        What to do about snapshots of a recorder's folder that are missing, cut off, or differ from their checksums.
        "skip" leaves them out, and one RuntimeWarning names their epochs and files. All other files raise.

    Raises
    ------
    InputError
        The file is missing, truncated, of another format, or holds values that `as_trace` rejects; it changes while it
        is read; it does not fit in memory and cannot be read block by block; a link leads out of it (unless
        ``follow_links``). The shapes, dtypes and sizes of all arrays are checked before their values are read.

    Notes
    -----
    A run makes four to eight passes, up to 20 where min(N, P) is above 3000, and each pass reads the file. A chunk of a
    .zarr or .h5 that covers few slices and all samples is read once per pass.
    """
    if stream is not None and not isinstance(stream, bool):
        raise InputTypeError(f"stream={stream!r} is a {type(stream).__name__}; accepted: True, False or None")
    if not isinstance(follow_links, bool):
        raise InputTypeError(f"follow_links={follow_links!r} is no bool; accepted: True or False")
    check_choice("damaged", damaged, ("raise", "skip"))
    with _contents(path, follow_links, damaged) as contents:
        fields = _fields(contents, stream)
    with naming(expanded(path)):
        return as_trace(**fields, min_slices=1)


def _fields(contents: Contents, stream: bool | None) -> dict[str, Any]:
    cpu = torch.device("cpu")
    needed = math.prod(contents.heading.shape) * max(4, contents.heading.dtype.itemsize)
    large = stream is None and needed > STREAM_SHARE * available_bytes(cpu)
    fields = contents.stored() if stream or large else contents.read()
    if fields is not None:
        return fields
    why = "is compressed or in Fortran order, or has permuted axes"
    what = f"{contents.path} {why}, so it cannot be read block by block"
    if stream:
        raise InputError(f"{what}; accepted for stream=True: numpy.save or numpy.savez of an array in C order")
    check_fits(f"{what}, and", needed, cpu, remedy="numpy.save of an array in C order can be read block by block")
    return contents.read()


def heading(path: str | os.PathLike[str], follow_links: bool = False) -> Heading | None:
    """Shape, in the order of the axes of a trace, and dtype of the trace at ``path``, without reading its values.

    The result is None if the trace has a single slice, which can be read but not embedded. Errors are those of
    `load_trace` but for errors in the values.
    """
    with _contents(path, follow_links) as contents:
        header = contents.heading
        return header if math.prod(header.shape[:-2]) > 1 else None


@contextlib.contextmanager
def _contents(path: str | os.PathLike[str], follow_links: bool, damaged: str = "raise") -> Iterator[Contents]:
    path = expanded(path)
    with readable(path):
        stored = _format(path, follow_links)
        opener = partial(open_recording, damaged=damaged) if stored == META else OPENERS[stored]
        with opener(path, follow_links=follow_links) as variables, naming(path):
            yield contents_of(path, variables)


def _format(path: Path, follow_links: bool) -> str:
    """The key of `OPENERS` for ``path``: its ending in lower case, or `META` for a recorder's folder."""
    if not path.exists() and path.is_symlink():
        raise InputError(f"{path} is a link to nothing; accepted: a link to {ENDINGS}, or to a recorder's folder")
    if not path.exists():
        raise InputError(f"{path} does not exist; accepted: {ENDINGS}, or a recorder's folder")
    check_files(path, follow_links=follow_links)
    if (path / META).is_file() or (path / LIST).is_file():
        return META
    ending = path.suffix.lower().replace(".hdf5", ".h5")
    if ending not in OPENERS:
        raise InputError(f"{path} has an unknown ending; accepted: {ENDINGS}, or a recorder's folder with {META}")
    if path.is_dir() and ending != ".zarr":
        raise InputError(f"{path} is a folder; accepted: a {path.suffix} file")
    return ending


# ---------------------------------------------------------------- saving


def save_trace(path: str | os.PathLike[str], trace: Any, *, overwrite: bool = False) -> None:
    """Store ``trace`` (anything `as_trace` takes) as .npz, .zarr or .h5, or its data alone as .npy.

    The file is written beside ``path`` under another name and then renamed, so no incomplete file is left.

    Raises
    ------
    InputError
        The path exists (unless ``overwrite``) or has an unknown ending; the format cannot hold a dtype; a .npy cannot
        hold the mask, labels, layers, metrics or coordinates; the .zarr to replace is a file or holds files that zarr
        did not write; the file system refuses the write.
    """
    trace = as_trace(trace, min_slices=1).load()
    three = trace.axes == SLICE_AXES
    fields: dict[str, Any] = {name: getattr(trace, name) for name in AXES}
    fields |= {"label": trace.label, "unit_layer": trace.unit_layer, "axes": np.array(trace.axes)}
    fields |= {f"{METRICS}{name}": values for name, values in trace.metrics.items()}
    fields |= {ZONES[axis]: np.array(zone) for axis, zone in trace.time_zone.items()}
    data = trace.data.half() if trace.recorded == torch.float16 else trace.data  # whose numbers float16 holds
    fields["data"] = (data[:, 0] if three else data).cpu().numpy()
    fields["mask"] = None if trace.mask is None else _stored_mask(blockwise(trace.mask).load(), three).cpu().numpy()
    _write(expanded(path), {name: values for name, values in fields.items() if values is not None}, overwrite)


def _stored_mask(mask: torch.Tensor, three: bool) -> torch.Tensor:  # from (E, T, M, P)
    """The mask as (timestep, sample) or (slice, sample) if it repeats along all other axes, else as the data."""
    repeats = [size == 1 or step == 0 for size, step in zip(mask.shape, mask.stride(), strict=True)]
    short = repeats[2] and (three or repeats[0])
    if three:
        return mask[:, 0, 0] if short else mask[:, 0]
    return mask[0, :, 0] if short else mask


def _write(path: Path, fields: dict[str, np.ndarray], overwrite: bool) -> None:
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        raise InputError(f"{path} has an unknown ending; accepted: {', '.join(WRITERS)}")
    for name, values in fields.items():
        if values.dtype.kind not in "biufSUmM":
            raise InputError(
                f"{name} has dtype {values.dtype}; accepted: numbers, booleans, times and text, which need no pickle"
            )
    if writer is write_zarr:
        whole = whole_folder(path, overwrite=overwrite, others=others_than_zarr)
    else:
        whole = whole_file(path, overwrite=overwrite)
    with writable(path), whole as new:
        writer(new, fields)
