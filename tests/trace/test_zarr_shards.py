"""Shards, filters and text of a .zarr, and the files of its chunks."""

from __future__ import annotations

import json
import math
import struct
import warnings

import numpy as np
import pytest

from mmphate_gpu import InputError
from mmphate_gpu.trace import as_trace, load_trace
from mmphate_gpu.trace.files import OPENERS
from mmphate_gpu.trace.formats import zarr_metadata, zarr_text

from .traces import SHAPE, refusal, streams
from .zarr_chunk_stores import CODECS, MOST, VALUES, check_read, store

zarr = pytest.importorskip("zarr", "3")
numcodecs = pytest.importorskip("numcodecs")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # zarr: some codecs are not in its specification


# ---------------------------------------------------------------- shards, filters, text


INDICES = [
    (0, 10**9),
    (10**9, 10),
    (2**63, 2**63),
    (2**64 - 2, 2**64 - 1),
    (0, 0),
    (5, 2**64 - 5),
    (0, 2**62),
    (8, 100),
]


@pytest.mark.filterwarnings("ignore:overflow")  # where zarr adds the two
@pytest.mark.parametrize("codec", ["blosc", "gzip", "zstd", "lz4"])
@pytest.mark.parametrize("index", INDICES[:4])
def test_an_index_of_a_shard_that_leads_elsewhere(tmp_path, codec, index):
    chunk = bytes(CODECS[codec].encode(VALUES))
    refusal(store(tmp_path / "a.zarr", "shard", CODECS[codec], chunk, index=index))


def sharded(path, location, compressors):
    """Three epochs in a shard of four, of which zarr reads one after the other; and the file of the shard."""
    codecs = zarr.codecs
    options = {"index_codecs": [codecs.BytesCodec()], "index_location": location}
    chain = [codecs.ShardingCodec(chunk_shape=(1, 3, 5, 7), codecs=[codecs.BytesCodec(), *compressors], **options)]
    zarr.open_group(str(path), mode="w")
    array = zarr.create(
        store=str(path / "data"), shape=(3, 3, 5, 7), chunks=SHAPE, dtype="f4", codecs=chain, zarr_format=3
    )
    array[...] = VALUES[:3]
    return path, path / "data" / "c" / "0" / "0" / "0" / "0"


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("location", ["start", "end"])
@pytest.mark.parametrize("index", INDICES)
def test_an_index_that_leads_out_of_a_shard_of_which_parts_are_read(tmp_path, location, index):
    for compressors in ([], [zarr.codecs.GzipCodec()]):
        path, file = sharded(tmp_path / f"{len(compressors)}.zarr", location, compressors)
        check_read(path, VALUES[:3])
        content = bytearray(file.read_bytes())
        start = 16 if location == "start" else len(content) - 48
        content[start : start + 16] = struct.pack("<QQ", *index)
        file.write_bytes(content)
        refusal(path)


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("left", [0, 10, 63, 64, 100, 600, -1])
def test_truncated_shards(tmp_path, left):
    for location in ("start", "end"):
        path, file = sharded(tmp_path / f"{location}.zarr", location, [])
        file.write_bytes(file.read_bytes()[:left])
        refusal(path)


@streams
def test_shards_in_shards_and_codecs_around_shards(tmp_path, stream):
    codecs = zarr.codecs
    inner = codecs.ShardingCodec(chunk_shape=(1, 1, 5, 7), codecs=[codecs.BytesCodec(), codecs.BloscCodec()])
    tiny = codecs.ShardingCodec(chunk_shape=(1, 1, 1, 1), codecs=[codecs.BytesCodec(), codecs.GzipCodec()])
    nested = [codecs.ShardingCodec(chunk_shape=(1, 3, 5, 7), codecs=[inner])]
    for number, chain in enumerate((nested, [tiny, codecs.GzipCodec()], [inner, codecs.Crc32cCodec()])):
        path = tmp_path / f"{number}.zarr"
        zarr.open_group(str(path), mode="w")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a codec around shards is unusual
            array = zarr.create(
                store=str(path / "data"), shape=SHAPE, chunks=SHAPE, dtype="f4", codecs=chain, zarr_format=3
            )
            array[...] = VALUES
            assert np.array_equal(load_trace(path, stream=stream).load().data, as_trace(VALUES).data)


@streams
@pytest.mark.parametrize("version", [2, 3])
def test_filters_to_wider_numbers(tmp_path, version, stream):
    from zarr.codecs import numcodecs as twins

    values = np.random.default_rng(0).integers(-9, 9, (10, 10, 100, 10)).astype("<i2")
    wide = {"encode_dtype": "<f8", "decode_dtype": "<i2"}
    options = {"filters": [numcodecs.AsType(**wide)], "compressors": numcodecs.Zlib()}
    if version == 3:
        options = {"filters": [twins.AsType(**wide)], "compressors": [twins.Zlib()]}
    for number, more in enumerate([{}, {"compressors": None}]):
        group = zarr.open_group(str(tmp_path / f"{number}.zarr"), mode="w", zarr_format=version)
        group.create_array("data", data=values, chunks=values.shape, **options | more)
        trace = load_trace(tmp_path / f"{number}.zarr", stream=stream).load()
        assert np.array_equal(trace.data, as_trace(values).data)


@pytest.mark.parametrize("codec", ["blosc", "gzip", "lz4", "zstd"])
def test_text(tmp_path, monkeypatch, codec):
    monkeypatch.setattr(zarr_text, "MOST_TEXT", 1000)
    monkeypatch.setattr(zarr_metadata, "MOST_TEXT", 1000)
    path = store(tmp_path / "a.zarr", "2", CODECS[codec], bytes(CODECS[codec].encode(VALUES)))
    (path / "unit").mkdir()
    metadata = {"zarr_format": 2, "shape": [5], "chunks": [5], "dtype": "|O", "order": "C", "fill_value": ""}
    metadata |= {"filters": [{"id": "vlen-utf8"}], "compressor": CODECS[codec].get_config()}
    (path / "unit" / ".zarray").write_text(json.dumps(metadata))
    texts = numcodecs.VLenUTF8().encode(np.array(["a", "b", "", "dé", "e"], object))
    chunk = bytes(CODECS[codec].encode(texts))
    (path / "unit" / "0").write_bytes(chunk)
    for stream in (False, True):
        assert list(load_trace(path, stream=stream).unit) == ["a", "b", "", "dé", "e"]
    (path / "unit" / "0").write_bytes(chunk[:-1])
    refusal(path)
    (path / "unit" / "0").write_bytes(bytes(CODECS[codec].encode(bytes(texts) + bytes(2000))))
    assert "more than 1000 bytes" in refusal(path)
    (path / "unit" / "0").write_bytes(chunk + bytes(2000))
    assert "a chunk of up to 1000" in refusal(path)


# ---------------------------------------------------------------- files


def plain(path, shape, chunks, fill=0.0):
    group = zarr.open_group(str(path), mode="w")
    group.create_array("data", shape=shape, chunks=chunks, dtype="f4", compressors=None, fill_value=fill)
    return path


def test_files_that_are_larger_than_a_chunk(tmp_path):
    path = plain(tmp_path / "a.zarr", SHAPE, SHAPE)
    file = path / "data" / "c" / "0" / "0" / "0" / "0"
    file.parent.mkdir(parents=True)
    file.write_bytes(VALUES.tobytes())
    (path / "data" / "notes.txt").write_bytes(bytes(10**5))
    check_read(path)
    with file.open("r+b") as opened:
        opened.truncate(2**40)  # without content, so that it takes no room
    assert f"accepted: a chunk of up to {MOST + 256}" in refusal(path)


def test_many_chunks_of_which_hardly_any_is_stored(tmp_path):
    for number, (shape, chunks) in enumerate([((4, 65536, 2, 5), (2, 3, 2, 5)), ((12000, 1, 1, 3), (1, 1, 1, 3))]):
        path = plain(tmp_path / f"{number}.zarr", shape, chunks)
        assert math.prod(-(-size // chunk) for size, chunk in zip(shape, chunks, strict=True)) > 10_000
        assert "chunks in a store of 2 files" in refusal(path)


def test_many_chunks_in_few_shards(tmp_path):
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    options = {"chunks": (1, 1, 1, 3), "shards": (12000, 1, 1, 3), "dtype": "f4"}
    group.create_array("data", shape=(12000, 1, 1, 3), **options)
    with OPENERS[".zarr"](tmp_path / "a.zarr") as variables:
        assert variables["data"].array.shape == (12000, 1, 1, 3)


def test_a_mask_that_is_true_everywhere_has_no_files(tmp_path):
    shape, chunks = (110, 110, 1, 2), (1, 1, 1, 2)  # 12,100 chunks
    path = plain(tmp_path / "a.zarr", shape, chunks)
    folder = path / "data" / "c"
    folder.mkdir()
    for number in range(20):
        (folder / str(number)).write_bytes(b"")
    group = zarr.open_group(str(path), mode="a")
    group.create_array("mask", shape=shape, chunks=chunks, dtype=bool, fill_value=True)
    with OPENERS[".zarr"](path) as variables:
        assert variables["mask"].array.shape == shape
    (folder / "0").unlink()  # 10,000 + 100 * 22 files are needed, and there are as many in all
    (folder / "1").unlink()
    (folder / "2").unlink()
    with pytest.raises(InputError, match="in a store of 20 files"), OPENERS[".zarr"](path):
        pass
