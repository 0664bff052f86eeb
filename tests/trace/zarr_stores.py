"""Stores of zarr, written by hand."""

from __future__ import annotations

import functools
import json

import numpy as np

from . import traces
from .traces import SHAPE

BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
values = functools.partial(traces.values, dtype=np.float32)
refusal = functools.partial(traces.refusal, most=700)  # it lists codecs


def store_2(path, metadata=None, attributes=None, chunk=None):
    """A group of version 2 with the array "data", whose metadata ``metadata`` changes."""
    (path / "data").mkdir(parents=True)
    (path / ".zgroup").write_text('{"zarr_format": 2}')
    every = {"zarr_format": 2, "shape": list(SHAPE), "chunks": list(SHAPE), "dtype": "<f4", "compressor": None}
    every |= {"filters": None, "order": "C", "fill_value": 0}
    (path / "data" / ".zarray").write_text(json.dumps(every | (metadata or {})))
    (path / "data" / ".zattrs").write_text(json.dumps(attributes or {}))
    (path / "data" / "0.0.0.0").write_bytes(values().tobytes() if chunk is None else chunk)
    return path


def store_3(path, metadata=None, chunk=None):
    """A group of version 3 with the array "data", whose metadata ``metadata`` changes."""
    (path / "data" / "c" / "0" / "0" / "0").mkdir(parents=True)
    (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    every = {"zarr_format": 3, "node_type": "array", "shape": list(SHAPE), "data_type": "float32", "fill_value": 0}
    every |= {"chunk_grid": regular(SHAPE), "chunk_key_encoding": {"name": "default"}, "codecs": [BYTES]}
    (path / "data" / "zarr.json").write_text(json.dumps(every | {"attributes": {}} | (metadata or {})))
    (path / "data" / "c" / "0" / "0" / "0" / "0").write_bytes(values().tobytes() if chunk is None else chunk)
    return path


def regular(shape):
    return {"name": "regular", "configuration": {"chunk_shape": list(shape)}}


def sharded(*codecs, inner=SHAPE):
    return {"codecs": [{"name": "sharding_indexed", "configuration": {"chunk_shape": list(inner), "codecs": codecs}}]}
