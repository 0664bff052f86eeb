"""Small valid files of every format that the package reads, from which the mutations start.

The .zarr stores and the zip files are written by hand, so that a number means the same file whatever is installed.
The bytes of .h5 files are those of the installed HDF5.
"""

from __future__ import annotations

import io
import itertools
import json
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmphate_gpu.record.folder import FolderStore
from mmphate_gpu.record.store import Recording, Snapshot


class Seed(NamedTuple):
    """A file or a folder in memory: the bytes of each file by its path within; a single file has the path ""."""

    name: str
    ending: str
    files: dict[str, bytes]


AXES = ("epoch", "timestep", "unit", "sample")
DATA = np.random.default_rng(0).normal(size=(4, 3, 2, 5)).astype(np.float32)
MASK = np.arange(3)[:, None] < np.array([3, 3, 2, 3, 1])  # (timestep, sample)
COORDINATES = {"epoch": np.array([0.0, 1.5, 2, 4]), "timestep": np.arange(3), "unit": np.array(["a", "b"])}
LABEL = np.array([0, 1, 0, 2, 1])
FIELDS = {"data": DATA, "mask": MASK, "label": LABEL} | COORDINATES


@cache
def seeds_of(format_name: str) -> tuple[Seed, ...]:
    """All seeds of "npy", "npz", "zarr", "h5", "recording" or "embedding"."""
    return tuple(_MAKERS[format_name]())


# ---------------------------------------------------------------- .npy and .npz


def npy_bytes(array: np.ndarray, version: tuple[int, int] = (1, 0)) -> bytes:
    """The .npy file of ``array``."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy warns of versions above 1.0
        np.lib.format.write_array(file, array, version, allow_pickle=False)
    return file.getvalue()


def zip_bytes(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip file of ``members`` (name, contents) with right checksums and without timestamps."""
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")  # two members of the same name
        for name, contents in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            archive.writestr(info, contents)
    return file.getvalue()


def _members(fields: dict[str, np.ndarray]) -> list[tuple[str, bytes]]:
    return [(f"{name}.npy", npy_bytes(array)) for name, array in fields.items()]


def _npy() -> Iterator[Seed]:
    arrays = {
        "float32": (DATA, (1, 0)),
        "version 2.0": (DATA, (2, 0)),
        "version 3.0": (DATA, (3, 0)),
        "float64, 3 axes": (DATA[:, 0].astype(np.float64), (1, 0)),
        "float16": (DATA.astype(np.float16), (1, 0)),
        "int64": ((DATA * 100).astype(np.int64), (1, 0)),
        "bool": (DATA > 0, (1, 0)),
        "Fortran order": (np.asfortranarray(DATA), (1, 0)),
        "big-endian": (DATA.astype(">f4"), (1, 0)),
    }
    for name, (array, version) in arrays.items():
        yield Seed(name, ".npy", {"": npy_bytes(array, version)})


def _npz() -> Iterator[Seed]:
    permuted = {
        "data": DATA.transpose(2, 0, 3, 1),
        "mask": np.broadcast_to(MASK[:, None], DATA.shape).transpose(2, 0, 3, 1),
        "axes": np.array([AXES[axis] for axis in (2, 0, 3, 1)]),
    }
    slices = {"data": DATA[:, 0].astype(np.float64), "slice": np.arange(4), "axes": np.array(["slice", *AXES[2:]])}
    full = FIELDS | {"mask": np.broadcast_to(MASK[:, None], DATA.shape).copy(), "axes": np.array(AXES)}
    archives = {
        "stored": (FIELDS, zipfile.ZIP_STORED),
        "compressed": (FIELDS, zipfile.ZIP_DEFLATED),
        "mask of the full shape, axes": (full, zipfile.ZIP_STORED),
        "permuted axes": (permuted, zipfile.ZIP_STORED),
        "permuted axes, compressed": (permuted, zipfile.ZIP_DEFLATED),
        "slices": (slices, zipfile.ZIP_STORED),
        "trace, compressed": ({"trace": DATA, "label": LABEL}, zipfile.ZIP_DEFLATED),
    }
    for name, (fields, method) in archives.items():
        yield Seed(name, ".npz", {"": zip_bytes(_members(fields), method)})


def _embedding() -> Iterator[Seed]:
    from mmphate_gpu.embedding import Embedding
    from mmphate_gpu.slices import SliceLayout

    layout = SliceLayout(COORDINATES["epoch"], COORDINATES["timestep"], COORDINATES["unit"])
    coordinates = np.random.default_rng(1).normal(size=(24, 2))
    extras = {"most_active": np.arange(24) % 3, "entropy": np.linspace(3, 1, 9), "t": 4, "stress": 0.125}
    for name, fields in {"bare": {}, "with extras": extras}.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "embedding.npz")
            Embedding(coordinates, layout, **fields).save(path)
            stored = path.read_bytes()
        yield Seed(name, ".npz", {"": stored})
        with zipfile.ZipFile(io.BytesIO(stored)) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
        yield Seed(f"{name}, compressed", ".npz", {"": zip_bytes(members, zipfile.ZIP_DEFLATED)})


def _recording() -> Iterator[Seed]:
    variants = {"float32": (DATA, {"label": LABEL, "mask": MASK}), "float16": (DATA.astype(np.float16), {})}
    for name, (data, extra) in variants.items():
        files = {f"snapshot_{epoch:06d}.npy": npy_bytes(part) for epoch, part in enumerate(data)}
        meta = {"format": "mmphate-gpu recording", "version": 1, "layer": "rnn", "recorder": "0" * 32}
        meta |= {"epoch": [0, 1.5, 2, 4], "files": list(files), "extra": sorted(extra)}
        files |= {f"{field}.npy": npy_bytes(array) for field, array in extra.items()}
        yield Seed(f"version 1, {name}", "", files | {"meta.json": json.dumps(meta, indent=1).encode()})
        yield Seed(name, "", _recorder_files(data, **extra))


def _recorder_files(data: np.ndarray, *, label: Any = None, mask: Any = None) -> dict[str, bytes]:
    """What a recorder writes."""
    layers = np.array(["encoder", "decoder"])
    recording = Recording(("encoder", "decoder"), np.arange(3), np.arange(2), layers, mask, label, data.dtype)
    with tempfile.TemporaryDirectory() as folder:
        store = FolderStore(folder, resume=False)
        store.open()
        for epoch, values in zip([0, 1.5, 2, 4], data, strict=True):
            store.add(Snapshot(epoch, values, {"loss": 1 / (1 + epoch)}), recording)
        store.close()
        return {item.name: item.read_bytes() for item in Path(folder).iterdir()}


# ---------------------------------------------------------------- .zarr


def _chunks(array: np.ndarray, sizes: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """(number of the chunk along each axis, its values); chunks over the end are filled with zeros."""
    for place in itertools.product(*(range(-(-n // size)) for n, size in zip(array.shape, sizes, strict=True))):
        start = [number * size for number, size in zip(place, sizes, strict=True)]
        part = array[tuple(slice(low, low + size) for low, size in zip(start, sizes, strict=True))]
        yield place, np.pad(part, [(0, size - n) for size, n in zip(sizes, part.shape, strict=True)])


def _sizes(array: np.ndarray) -> tuple[int, ...]:
    return (2, *array.shape[1:]) if array.ndim > 2 else array.shape


def _encoded(values: np.ndarray, codecs: list[dict[str, Any]]) -> bytes:
    import numcodecs

    values = values.astype(object) if values.dtype.kind == "U" else values
    for config in codecs:
        values = numcodecs.get_codec(dict(config)).encode(values)
    stored = values.tobytes() if isinstance(values, np.ndarray) else bytes(values)
    is_gzip = stored[:3] == b"\x1f\x8b\x08"
    return stored[:4] + bytes(4) + stored[8:] if is_gzip else stored  # without the timestamp


def _json(document: Any) -> bytes:
    return json.dumps(document, indent=1).encode()


def _zarr2(fields: dict[str, np.ndarray], compressor: Any = None, filters: Any = None, named: bool = False) -> dict:
    files: dict[str, bytes] = {".zgroup": _json({"zarr_format": 2})}
    for name, array in fields.items():
        is_text = array.dtype.kind == "U"
        used = [{"id": "vlen-utf8"}] if is_text else filters if array.dtype.kind == "i" else None
        dtype = "|O" if is_text else array.dtype.str
        meta = {"zarr_format": 2, "shape": array.shape, "chunks": _sizes(array), "dtype": dtype}
        meta |= {"compressor": compressor, "fill_value": None, "order": "C", "filters": used}
        files[f"{name}/.zarray"] = _json(meta)
        if named:
            dims = {"data": AXES, "mask": ("timestep", "sample"), "label": ("sample",)}.get(name, (name,))
            files[f"{name}/.zattrs"] = _json({"_ARRAY_DIMENSIONS": dims})
        codecs = (used or []) + ([compressor] if compressor else [])
        for place, values in _chunks(array, _sizes(array)):
            files[f"{name}/{'.'.join(map(str, place))}"] = _encoded(values, codecs)
    return files


def _zarr3(fields: dict[str, np.ndarray], compressor: Any = None, named: bool = False, sharded: bool = False) -> dict:
    """``compressor`` is (codec of zarr, codec of numcodecs)."""
    files: dict[str, bytes] = {"zarr.json": _json({"zarr_format": 3, "node_type": "group", "attributes": {}})}
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    for name, array in fields.items():
        is_text = array.dtype.kind == "U"
        codecs = [{"name": "vlen-utf8"} if is_text else little, *([compressor[0]] if compressor else [])]
        sizes, split = _sizes(array), sharded and array.ndim > 2
        inner = (1, *array.shape[1:])
        sharding = {"chunk_shape": inner, "codecs": codecs, "index_codecs": [little], "index_location": "end"}
        files[f"{name}/zarr.json"] = _json(
            {
                "zarr_format": 3,
                "node_type": "array",
                "shape": array.shape,
                "data_type": "string" if is_text else str(array.dtype),
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": sizes}},
                "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
                "fill_value": np.zeros((), array.dtype).item(),
                "codecs": [{"name": "sharding_indexed", "configuration": sharding}] if split else codecs,
                "attributes": {"scale_factor": 0.5} if name == "data" and named else {},
                "storage_transformers": [],
            }
            | ({"dimension_names": AXES[: array.ndim] if name == "data" else None} if named else {})
        )
        used = [{"id": "vlen-utf8"}] * is_text + ([compressor[1]] if compressor else [])
        for place, values in _chunks(array, sizes):
            stored = _shard(values, inner, used) if split else _encoded(values, used)
            files["/".join([name, "c", *map(str, place)])] = stored
    return files


def _shard(values: np.ndarray, inner: tuple[int, ...], codecs: list[dict[str, Any]]) -> bytes:
    parts = [_encoded(part, codecs) for _, part in _chunks(values, inner)]
    ends = np.cumsum([len(part) for part in parts])
    index = [(end - len(part), len(part)) for end, part in zip(ends, parts, strict=True)]
    return b"".join(parts) + np.array(index, dtype="<u8").tobytes()


def _zarr() -> Iterator[Seed]:
    numbers = {name: array for name, array in FIELDS.items() if array.dtype.kind in "fib"}
    blosc = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}
    new_blosc = {"cname": "lz4", "clevel": 5, "shuffle": "shuffle", "typesize": 4, "blocksize": 0}
    gzip, zstd = (
        ({"name": "gzip", "configuration": {"level": 5}}, {"id": "gzip", "level": 5}),
        {"id": "zstd", "level": 3},
    )
    delta = [{"id": "delta", "dtype": "<i8", "astype": "<i8"}]
    consolidated = _zarr2(numbers, zstd, delta)
    metadata = {name: json.loads(text) for name, text in consolidated.items() if name.rpartition("/")[2][:2] == ".z"}
    consolidated[".zmetadata"] = _json({"zarr_consolidated_format": 1, "metadata": metadata})
    together = _zarr3(numbers, gzip)
    inner = {name[: -len("/zarr.json")]: json.loads(text) for name, text in together.items() if "/zarr.json" in name}
    root = {"zarr_format": 3, "node_type": "group", "attributes": {"axes": AXES}}
    together["zarr.json"] = _json(root | {"consolidated_metadata": {"kind": "inline", "metadata": inner}})
    single = {name.removeprefix("data/"): text for name, text in _zarr2({"data": DATA}).items() if "data/" in name}
    new_zstd = {"name": "zstd", "configuration": {"level": 3, "checksum": False}}
    stores = {
        "version 2": _zarr2(FIELDS),
        "version 2, Blosc, names": _zarr2(numbers, blosc, named=True),
        "version 2, Zstandard, Delta, consolidated": consolidated,
        "version 2, an array alone": single,
        "version 3": _zarr3(FIELDS, named=True),
        "version 3, gzip, consolidated": together,
        "version 2, LZ4": _zarr2(FIELDS, {"id": "lz4", "acceleration": 1}),
        "version 2, zlib, Shuffle": _zarr2(numbers, {"id": "zlib", "level": 1}, [{"id": "shuffle", "elementsize": 8}]),
        "version 3, Blosc": _zarr3(numbers, ({"name": "blosc", "configuration": new_blosc}, blosc)),
        "version 3, sharded": _zarr3(numbers, (new_zstd, zstd), sharded=True),
    }
    return (Seed(name, ".zarr", files) for name, files in stores.items())


# ---------------------------------------------------------------- .h5


def _h5_seed(name: str, fill: Any, **options: Any) -> Seed:
    import h5py

    file_bytes = io.BytesIO()
    with h5py.File(file_bytes, "w", **options) as file:
        fill(file)
    return Seed(name, ".h5", {"": file_bytes.getvalue()})


def _plain_h5(file: Any) -> None:
    for name in ("data", "mask", "label", "epoch"):
        file[name] = FIELDS[name]


def _chunked_h5(file: Any) -> None:
    file.create_dataset("data", data=DATA, chunks=(2, 3, 2, 5), compression="gzip", shuffle=True, fletcher32=True)
    file.create_dataset("mask", data=np.broadcast_to(MASK[:, None], DATA.shape), chunks=(1, 3, 2, 5))
    file["label"] = LABEL


def _scales_h5(file: Any) -> None:
    import h5py

    file["data"] = DATA
    file.create_dataset("unit", data=COORDINATES["unit"].astype(object), dtype=h5py.string_dtype())
    file["epoch"], file["timestep"] = COORDINATES["epoch"], COORDINATES["timestep"]
    for axis, name in enumerate(AXES):
        file["data"].dims[axis].label = name
        if name in file:
            file[name].make_scale(name)
            file["data"].dims[axis].attach_scale(file[name])
    file.create_dataset("axes", data=np.array(AXES, dtype=object), dtype=h5py.string_dtype())


def _packed_h5(file: Any) -> None:
    stored = (DATA * 100).astype(np.int16)
    stored[1, 2, 0, 3] = -999
    file.create_dataset("trace", data=stored, chunks=(4, 3, 1, 5), compression="lzf", fillvalue=-999)
    file["trace"].attrs.update({"scale_factor": 0.01, "add_offset": 1.0, "_FillValue": np.int16(-999)})


def _links_h5(file: Any) -> None:
    import h5py

    file["values"] = DATA
    file["data"] = h5py.SoftLink("/values")
    file["label"] = h5py.SoftLink("/classes")
    file["classes"] = LABEL


def _outside_h5(file: Any) -> None:
    import h5py

    file["values"] = DATA
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_obj_track_times(False)  # `create_virtual_dataset` would write timestamps
    space = h5py.h5s.create_simple(DATA.shape)
    creation.set_virtual(space, b".", b"/values", space)
    h5py.h5d.create(file.id, b"data", h5py.h5t.IEEE_F32LE, space, creation)
    file["mask"] = h5py.ExternalLink("elsewhere.h5", "mask")
    file.create_dataset("label", (5,), np.int64, external=[("elsewhere.bin", 0, 40)])


def _h5() -> Iterator[Seed]:
    yield _h5_seed("plain", _plain_h5)
    yield _h5_seed("chunks, gzip, shuffle, Fletcher-32", _chunked_h5)
    yield _h5_seed("dimension scales, text", _scales_h5)
    yield _h5_seed("packed", _packed_h5)
    yield _h5_seed("newest version", _chunked_h5, libver="latest")
    yield _h5_seed("newest version, plain", _plain_h5, libver="latest")
    yield _h5_seed("links", _links_h5)
    yield _h5_seed("links to other files, virtual", _outside_h5)


_MAKERS = {"npy": _npy, "npz": _npz, "zarr": _zarr, "h5": _h5, "recording": _recording, "embedding": _embedding}
