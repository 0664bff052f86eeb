"""What the metadata of a .zarr claim is checked before a chunk is read."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mmphate_gpu import InputError
from mmphate_gpu.trace import load_trace
from mmphate_gpu.trace.files import OPENERS

from .zarr_stores import BYTES, refusal, regular, sharded, store_2, store_3, values

zarr = pytest.importorskip("zarr", "3")
BLOSC = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}


# ---------------------------------------------------------------- what metadata claim


@pytest.mark.parametrize(
    ("shape", "chunks", "message"),
    [
        ([10**9, 3, 5, 7], [4, 1, 1, 1], "chunks of shape"),
        ([10**7, 3, 5, 7], [1, 3, 5, 7], "chunks of shape"),
        ([10**4, 3, 5, 7], [1, 1, 1, 1], "chunks of shape"),
        ([10**6, 10, 50, 70], [10**5, 10, 50, 70], "are stored"),
        ([2**62, 2**62, 2**62, 2**62], [2**62, 2**62, 2**62, 2**62], "are stored"),
        ([4, 3, 5, 7], [10**6, 100, 5, 7], "are stored"),
        ([4, 3, 5, 7], [2**40, 3, 5, 7], "are stored"),
        ([4, 3, 5, 7], [0, 3, 5, 7], "whole numbers from 1"),
        ([4, 3, 5, 7], [-4, 3, 5, 7], "whole numbers from 1"),
        ([4, 3, 5, 7], [4, 3, 5], "whole numbers from 1"),
        ([4, 3, 5, 7], [4.0, 3, 5, 7], "whole numbers from 1"),
        ([4, 3, 5, 7], None, "whole numbers from 1"),
        ([4, 3, 5, 7], "4357", "whole numbers from 1"),
        ([-4, 3, 5, 7], [4, 3, 5, 7], "whole numbers from 0"),
        ([2**63, 3, 5, 7], [4, 3, 5, 7], "whole numbers from 0"),
        ([True, 3, 5, 7], [4, 3, 5, 7], "whole numbers from 0"),
        ([1] * 100, [1] * 100, "whole numbers from 0"),
        ({"0": 4}, [4, 3, 5, 7], "whole numbers from 0"),
        (None, [4, 3, 5, 7], "whole numbers from 0"),
    ],
)
def test_shapes_and_chunks(tmp_path, shape, chunks, message):
    assert message in refusal(store_2(tmp_path / "2.zarr", {"shape": shape, "chunks": chunks}))
    grid = {"name": "regular", "configuration": {"chunk_shape": chunks}}
    assert message in refusal(store_3(tmp_path / "3.zarr", {"shape": shape, "chunk_grid": grid}))


def test_chunks_within_shards_count(tmp_path):
    big = {"shape": [10**6, 10, 5, 7], "chunk_grid": regular((10**6, 10, 5, 7))}
    assert "chunks of shape" in refusal(store_3(tmp_path / "a.zarr", big | sharded(BYTES, inner=(1, 1, 1, 1))))
    assert "whole numbers" in refusal(store_3(tmp_path / "b.zarr", sharded(BYTES, inner=(0, 1, 1, 1))))
    assert "whole numbers" in refusal(store_3(tmp_path / "c.zarr", sharded(BYTES, inner=(1, 1))))


def test_a_chunk_beyond_the_memory(tmp_path, monkeypatch):
    path = store_2(tmp_path / "a.zarr", {"chunks": [400, 30, 50, 7]})
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", str(10**7))
    assert "one chunk of" in refusal(path)


@pytest.mark.parametrize(
    "dtype", ["<U2000000000", "|S100000", "|O", "|V8", [["a", "<f4"]], "<f3", "f4,f4", "(2,)f4", 3, None]
)
def test_data_types_of_version_2(tmp_path, dtype):
    refusal(store_2(tmp_path / "a.zarr", {"dtype": dtype}))


@pytest.mark.parametrize(
    "dtype",
    [
        "string",
        "variable_length_bytes",
        "float",
        3,
        None,
        {"name": "structured", "configuration": {"fields": [["a", "float32"]]}},
        {"name": "fixed_length_utf32", "configuration": {"length_bytes": 8 * 10**9}},
        {"name": "fixed_length_utf32", "configuration": {"length_bytes": "8"}},
        {"name": "fixed_length_utf32"},
    ],
)
def test_data_types_of_version_3(tmp_path, dtype):
    refusal(store_3(tmp_path / "a.zarr", {"data_type": dtype}))


def test_a_large_constant_mask_is_read_although_it_is_hardly_stored(tmp_path):
    shape = (100, 50, 4000, 4)  # 80 MB
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    group.create_array("data", data=np.ones((100, 1, 1, 4), np.float32))
    group.create_array("mask", data=np.ones(shape, bool))
    with OPENERS[".zarr"](tmp_path / "a.zarr") as variables:
        assert variables["mask"].array.shape == shape


# ---------------------------------------------------------------- other metadata


@pytest.mark.parametrize(
    "metadata",
    [
        {"fill_value": "NaN", "dtype": "<i4"},
        {"fill_value": [1]},
        {"fill_value": {"a": 1}},
        {"order": "K"},
        {"dimension_separator": "/../"},
        {"filters": {"id": "delta"}},
        {"filters": 3},
        {"compressor": "blosc"},
        {"compressor": BLOSC},  # the chunk is not compressed
        {"compressor": {"id": "zlib"}},
        {"compressor": {"id": "lzma"}},
        {"compressor": {"id": "bz2"}},
        {"compressor": {"id": "zstd"}},
        {"compressor": {"id": "lz4"}},
        {"filters": [{"id": "packbits"}]},
        {"filters": [{"id": "fletcher32"}]},
        {"zarr_format": 3},
        {"dtype": "|O", "filters": [{"id": "vlen-utf8"}]},  # the chunk is no text
    ],
)
def test_metadata_of_version_2_that_do_not_fit(tmp_path, metadata):
    refusal(store_2(tmp_path / "a.zarr", metadata))


@pytest.mark.parametrize(
    "metadata",
    [
        {"storage_transformers": [{"name": "anything"}]},
        {"chunk_grid": {"name": "rectilinear", "configuration": {"chunk_shape": [4, 3, 5, 7]}}},
        {"chunk_grid": "regular"},
        {"chunk_grid": None},
        {"chunk_key_encoding": {"name": "default", "configuration": {"separator": "/../../"}}},
        {"codecs": []},
        {"codecs": None},
        {"codecs": {"name": "bytes"}},
        {"codecs": ["gzip"]},
        {"codecs": [BYTES, {"name": "gzip", "configuration": {"level": 5}}]},  # the chunk is not compressed
        {"codecs": [BYTES, "crc32c"]},
        {"codecs": ["sharding_indexed"]},
        {"codecs": [{"name": "transpose", "configuration": {"order": [0, 0, 0, 9]}}, BYTES]},
        {"dimension_names": {"a": 1}},
        {"dimension_names": [1, 2, 3, 4]},
        {"dimension_names": ["epoch"]},
        {"dimension_names": ["epoch", "x" * 10**6, None, None]},
        {"fill_value": "0xGG"},
        {"attributes": [1]},
        {"node_type": "group"},
        {"zarr_format": 2},
        {"must_be_understood": {"must_understand": True}},
    ],
)
def test_metadata_of_version_3_that_do_not_fit(tmp_path, metadata):
    refusal(store_3(tmp_path / "a.zarr", metadata))


@pytest.mark.parametrize(
    "attributes",
    [
        {"_ARRAY_DIMENSIONS": {"epoch": 1}},
        {"_ARRAY_DIMENSIONS": [1, 2, 3, 4]},
        {"_ARRAY_DIMENSIONS": 4},
        {"scale_factor": "two"},
        {"scale_factor": {"a": 2}},
        {"add_offset": "9" * 10**6},
        {"missing_value": list(range(10**5))},
        {"valid_range": [[0, 1], [2, 3]]},
        {"_FillValue": 10**400},
    ],
)
def test_attributes_of_wrong_types(tmp_path, attributes):
    refusal(store_2(tmp_path / "a.zarr", attributes=attributes))


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "[]", "null", "3", "", "{", "\0", "\xff\xfe", "x" * 10_000]
)
def test_json_that_is_none(tmp_path, text):
    for version, name in enumerate((".zgroup", "data/.zarray", "data/.zattrs")):
        path = store_2(tmp_path / f"{version}.zarr")
        (path / name).write_text(text, encoding="latin-1")
        refusal(path)
    for version, name in enumerate(("zarr.json", "data/zarr.json")):
        path = store_3(tmp_path / f"{version}3.zarr")
        (path / name).write_text(text, encoding="latin-1")
        refusal(path)


def test_json_of_endless_size(tmp_path):
    path = store_2(tmp_path / "a.zarr")
    with (path / "data" / ".zattrs").open("r+b") as file:
        file.truncate(2**33)  # a hole: it takes no room on the disk
    assert "accepted: metadata of at most" in refusal(path)


@pytest.mark.parametrize("label", [[1, "a"], [["a"], ["b"]], [{}], ["a" * 10**6] + ["b"] * 10**4, [None]])
def test_lists_among_the_attributes_of_the_group(tmp_path, label):
    path = store_2(tmp_path / "a.zarr")
    (path / ".zattrs").write_text(json.dumps({"label": label, "other": [1, [2]]}))
    refusal(path)


def test_a_file_by_the_name_of_a_store(tmp_path):
    zarr.save_array(zarr.storage.ZipStore(str(tmp_path / "a.zip"), mode="w"), values())
    (tmp_path / "a.zip").rename(tmp_path / "a.zarr")
    assert "accepted: a folder" in refusal(tmp_path / "a.zarr")
    (tmp_path / "b.zarr").mkdir()
    assert "accepted: a folder" in refusal(tmp_path / "b.zarr")


def test_addresses_of_the_net_are_no_paths():
    for address in ("s3://bucket/a.zarr", "https://localhost:1/a.zarr", "memory://a.zarr", "file:///tmp/a.zarr"):
        with pytest.raises(InputError, match="does not exist"):
            load_trace(address)
