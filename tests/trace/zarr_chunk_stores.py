"""Stores of zarr with chosen codecs and chunks."""

from __future__ import annotations

import json
import lzma
import struct

import numpy as np
import pytest

from mmphate_gpu.trace import as_trace, load_trace

from .traces import SHAPE

numcodecs = pytest.importorskip("numcodecs")

MOST = 2 * 1680 + 4096  # bytes that a chunk of SHAPE in float32 may hold
VALUES = np.round(np.random.default_rng(0).normal(size=SHAPE), 1).astype("<f4")
CODECS = {
    "blosc": numcodecs.Blosc("lz4", 5, 1),
    "blosc, bits": numcodecs.Blosc("zstd", 3, 2),
    "blosc, copied": numcodecs.Blosc("blosclz", 0),
    "blosc, blocks": numcodecs.Blosc("zlib", 1, 0, blocksize=256),
    "bz2": numcodecs.BZ2(1),
    "gzip": numcodecs.GZip(1),
    "lz4": numcodecs.LZ4(),
    "lzma": numcodecs.LZMA(preset=0),
    "lzma, old": numcodecs.LZMA(format=lzma.FORMAT_ALONE, preset=0),
    "zlib": numcodecs.Zlib(1),
    "zstd": numcodecs.Zstd(1),
    "zstd, checksum": numcodecs.Zstd(1, True),
}


def store(path, form, codec, chunk, shape=SHAPE, dtype="f4", index=None):
    """A store with an array of one chunk, by the codec ``codec``; in a shard, ``index`` says where the chunk is."""
    (path / "data").mkdir(parents=True)
    if form in ("2", "filter"):
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        metadata = {"zarr_format": 2, "shape": shape, "chunks": shape, "dtype": f"<{dtype}", "order": "C"}
        metadata |= {"fill_value": 0, "compressor": codec.get_config(), "filters": None}
        if form == "filter":
            metadata |= {"compressor": None, "filters": [codec.get_config()]}
        (path / "data" / ".zarray").write_text(json.dumps(metadata))
        (path / "data" / "0.0.0.0").write_bytes(chunk)
        return path
    (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    codecs = [{"name": "bytes", "configuration": {"endian": "little"}}, named(codec)]
    if form == "shard":
        inner = {"chunk_shape": shape, "codecs": codecs, "index_codecs": codecs[:1]}
        codecs = [{"name": "sharding_indexed", "configuration": inner}]
        chunk += struct.pack("<QQ", *(index or (0, len(chunk))))
    metadata = {"zarr_format": 3, "node_type": "array", "shape": shape, "data_type": "float32", "fill_value": 0}
    metadata |= {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shape}}, "codecs": codecs}
    metadata |= {"chunk_key_encoding": {"name": "v2"}, "attributes": {}}
    (path / "data" / "zarr.json").write_text(json.dumps(metadata))
    (path / "data" / "0.0.0.0").write_bytes(chunk)
    return path


def named(codec):
    """How version 3 writes a codec."""
    settings = {key: value for key, value in codec.get_config().items() if key != "id"}
    if codec.codec_id == "blosc":
        shuffle = ["noshuffle", "shuffle", "bitshuffle"][settings["shuffle"]]
        return {"name": "blosc", "configuration": settings | {"shuffle": shuffle, "typesize": 4}}
    official = codec.codec_id in ("gzip", "zstd")
    return {"name": codec.codec_id if official else f"numcodecs.{codec.codec_id}", "configuration": settings}


def check_read(path, values=VALUES):
    for stream in (False, True):
        assert np.array_equal(load_trace(path, stream=stream).load().data, as_trace(values).data)
