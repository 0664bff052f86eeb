"""Damaged and hostile .zarr: each is refused in one sentence, before a codec runs or a claim takes memory."""

from __future__ import annotations

import json
import os
import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from mmphate_gpu import InputError
from mmphate_gpu.trace import as_trace, load_trace, save_trace
from mmphate_gpu.trace.files import OPENERS

zarr = pytest.importorskip("zarr", "3")
SHAPE = (4, 3, 5, 7)
BLOSC = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}
BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
streams = pytest.mark.parametrize("stream", [False, True])


def values():
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


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


def refusal(path, **options):
    """The sentence by which `load_trace` refuses ``path``, in memory and block by block alike."""
    sentences = set()
    for stream in (False, True):
        with pytest.raises(InputError) as caught:
            load_trace(path, stream=stream, **options)
        sentences.add(str(caught.value).removeprefix(f"{path}: "))
    assert len(sentences) == 1
    (sentence,) = sentences
    assert "\n" not in sentence and len(sentence) < len(str(path)) + 700
    return sentence


@streams
def test_what_is_written_by_hand_here_is_read(tmp_path, stream):
    for path in (store_2(tmp_path / "2.zarr"), store_3(tmp_path / "3.zarr")):
        assert np.array_equal(load_trace(path, stream=stream).load().data, as_trace(values()).data)


# ---------------------------------------------------------------- codecs


class Evil:
    """Makes the folder ``path`` where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    ("dtype", "filters", "compressor"),
    [
        ("|O", ["vlen-utf8", "pickle"], None),
        ("|O", ["pickle"], None),
        ("<f4", ["pickle"], None),
        ("<f4", None, "pickle"),
        ("|O", ["vlen-utf8"], "pickle"),
        ("|O", ["categorize", "vlen-utf8", "pickle"], None),
    ],
)
def test_no_pickle_is_loaded(tmp_path, dtype, filters, compressor):
    metadata = {"dtype": dtype, "filters": filters and [{"id": name} for name in filters]}
    metadata["compressor"] = compressor and {"id": compressor}
    path = store_2(tmp_path / "a.zarr", metadata, chunk=pickle.dumps(Evil(tmp_path / "made")))
    assert "codec" in refusal(path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("place", ["label", "mask", "Unit", "epoch"])
def test_no_pickle_is_loaded_beside_the_data(tmp_path, place):
    path, other = store_2(tmp_path / "a.zarr"), tmp_path / "other.zarr"
    metadata = {"dtype": "|O", "shape": [5], "chunks": [5], "filters": [{"id": "vlen-utf8"}, {"id": "pickle"}]}
    store_2(other, metadata | ({"shape": [5, 7], "chunks": [5, 7]} if place == "mask" else {}))
    for name in ("0", "0.0"):
        (other / "data" / name).write_bytes(pickle.dumps(Evil(tmp_path / "made")))
    (other / "data").rename(path / place)
    assert "pickle" in refusal(path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "name", ["json2", "msgpack2", "categorize", "vlen-array", "vlen-bytes", "no_such", 3, None, {}]
)
def test_other_codecs_are_refused(tmp_path, name):
    for key, value in (("filters", [{"id": name}]), ("compressor", {"id": name})):
        assert "codec" in refusal(store_2(tmp_path / f"{key}.zarr", {key: value}))
    assert "codec" in refusal(store_3(tmp_path / "3.zarr", {"codecs": [BYTES, {"name": name}]}))
    assert "codec" in refusal(store_3(tmp_path / "s.zarr", sharded(BYTES, {"name": name})))
    assert "codec" in refusal(store_3(tmp_path / "t.zarr", sharded(sharded(BYTES, {"name": name})["codecs"][0])))


def test_codecs_of_version_2_by_the_names_of_version_3_are_refused(tmp_path):
    for name in ("numcodecs.pickle", "numcodecs.json2", "pickle", "numcodecs.vlen-array"):
        assert "codec" in refusal(store_3(tmp_path / f"{name}.zarr", {"codecs": [{"name": name}, BYTES]}))


def test_two_names_of_a_codec(tmp_path):
    for place, codec in enumerate(({"id": "pickle", "name": "zlib"}, {"name": "zlib"}, "zlib")):
        path = store_2(tmp_path / f"{place}.zarr", {"compressor": codec}, chunk=pickle.dumps(Evil(tmp_path / "made")))
        assert "codec" in refusal(path)
    assert "codec" in refusal(store_3(tmp_path / "3.zarr", {"codecs": [BYTES, {"id": "gzip"}]}))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "dtype", ["<U2000000000", "object", 3, ["f4"], "|O", "(1000000000,)f8", "f8,f8", "|V100000000"]
)
def test_codecs_that_convert_to_anything_but_numbers_are_refused(tmp_path, dtype):
    metadata = {"filters": [{"id": "astype", "encode_dtype": "<f4", "decode_dtype": dtype}]}
    assert "codec" in refusal(store_2(tmp_path / "a.zarr", metadata))


@streams
def test_consolidated_metadata_decide_nothing(tmp_path, stream):
    path = store_2(tmp_path / "2.zarr")
    metadata = json.loads((path / "data" / ".zarray").read_text()) | {
        "shape": [8, 3, 5, 7],
        "filters": [{"id": "pickle"}],
    }
    entries = {".zgroup": {"zarr_format": 2}, "data/.zarray": metadata, "data/.zattrs": {}}
    (path / ".zmetadata").write_text(json.dumps({"metadata": entries, "zarr_consolidated_format": 1}))
    assert load_trace(path, stream=stream).data.shape == SHAPE
    path = store_3(tmp_path / "3.zarr")
    metadata = json.loads((path / "data" / "zarr.json").read_text()) | {"shape": [8, 3, 5, 7]}
    group = {"zarr_format": 3, "node_type": "group", "attributes": {}}
    group["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": {"data": metadata}}
    (path / "zarr.json").write_text(json.dumps(group))
    assert load_trace(path, stream=stream).data.shape == SHAPE


@streams
def test_of_both_versions_in_a_folder_the_one_that_was_checked_is_read(tmp_path, stream):
    path = store_2(tmp_path / "a.zarr", {"filters": [{"id": "pickle"}]})
    other = store_3(tmp_path / "b.zarr")
    for name in ("zarr.json", "data/zarr.json", "data/c"):
        (other / name).rename(path / name)
    assert np.array_equal(load_trace(path, stream=stream).load().data, as_trace(values()).data)


@streams
@pytest.mark.parametrize("version", [2, 3])
def test_codecs_of_numbers_are_read(tmp_path, version, stream):
    import numcodecs
    from zarr.codecs import numcodecs as twins

    data = np.round(values(), 1)
    fixed = {"offset": 0, "scale": 10, "dtype": "<f4", "astype": "<i4"}
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=version)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr: the twins are not in the specification
        if version == 2:
            filters = [numcodecs.FixedScaleOffset(**fixed), numcodecs.Delta(dtype="<i4"), numcodecs.Shuffle(4)]
            options = {"filters": filters, "compressors": numcodecs.LZMA()}
        else:
            compressors = [twins.Zlib(), zarr.codecs.Crc32cCodec()]
            options = {"filters": [twins.FixedScaleOffset(**fixed)], "compressors": compressors}
        group.create_array("data", data=data, **options)
        trace = load_trace(tmp_path / "a.zarr", stream=stream).load()
    assert np.allclose(trace.data, data, atol=1e-6)  # decimal fractions, rounded to float32


def with_units(path, version, **options):
    group = zarr.open_group(str(path), mode="w", zarr_format=version)
    group.create_array("data", data=values())
    group.create_array("unit", shape=(5,), dtype=str, chunks=(3,), **options)[...] = np.array(
        ["a", "bee", "", "dé", "e"]
    )
    return path


@streams
@pytest.mark.parametrize("version", [2, 3])
def test_text_of_variable_length_is_read(tmp_path, version, stream):
    dotted = {"chunk_key_encoding": {"name": "default", "separator": "."}} if version == 3 else {}
    more = [{}, dotted, {"compressors": None}]
    if version == 3:
        more += [
            {"compressors": [zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()]},
            {"compressors": [zarr.codecs.BloscCodec()]},
        ]
    for number, options in enumerate(more):
        path = with_units(tmp_path / f"{number}.zarr", version, **options)
        unit = load_trace(path, stream=stream).unit
        assert list(unit) == ["a", "bee", "", "dé", "e"] and unit.dtype.kind == "U"
    (chunk,) = path.rglob("unit/c/1" if version == 3 else "unit/1")
    chunk.unlink()  # what is not there is the fill value
    assert list(load_trace(path, stream=stream).unit) == ["a", "bee", "", "", ""]


@pytest.mark.parametrize(
    "content", [b"", b"\3", b"\3\0\0\0", b"\2\0\0\0" + bytes(8), b"\3\0\0\0\1\0\0\0\xff" + bytes(8)]
)
def test_text_that_is_damaged(tmp_path, content):
    path = with_units(tmp_path / "a.zarr", 2, compressors=None)
    (path / "unit" / "0").write_bytes(content)
    refusal(path)


def test_text_in_several_axes_or_shards(tmp_path):
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    group.create_array("data", data=values())
    group.create_array("mask", shape=(3, 7), dtype=str, chunks=(3, 7))
    assert "accepted: text in one axis" in refusal(tmp_path / "a.zarr")
    assert "sharding_indexed" in refusal(with_units(tmp_path / "b.zarr", 3, shards=(6,)))


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


# ---------------------------------------------------------------- links


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there, and there are no FIFOs")
def test_links_and_fifos(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(values().tobytes())
    for name in ("data/0.0.0.0", "data/.zarray", "data", ".zgroup"):
        path = store_2(tmp_path / f"{name.replace('/', '')}.zarr")
        target = tmp_path / f"moved {name.replace('/', ' ')}"
        (path / name).rename(target)
        (path / name).symlink_to(target)
        assert "link out of" in refusal(path)
        with OPENERS[".zarr"](path, follow_links=True) as variables:
            assert np.array_equal(variables["data"].read(), values())
        (path / name).unlink()
        os.mkfifo(path / name)
        assert "FIFO" in refusal(path)
        with pytest.raises(InputError, match="FIFO"), OPENERS[".zarr"](path, follow_links=True):
            pass


@streams
@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_links_within_the_store_and_to_it(tmp_path, stream):
    path = store_2(tmp_path / "a.zarr")
    (path / "data" / "0.0.0.0").rename(path / "chunk")
    (path / "data" / "0.0.0.0").symlink_to(path / "chunk")
    (tmp_path / "b.zarr").symlink_to(path)
    assert np.array_equal(load_trace(tmp_path / "b.zarr", stream=stream).load().data, as_trace(values()).data)


@streams
def test_metadata_that_change_after_the_store_was_opened(tmp_path, stream):
    path = store_2(tmp_path / "a.zarr")
    with OPENERS[".zarr"](path) as variables:
        opened = variables["data"].opened
    (path / "data" / ".zarray").write_text(json.dumps({"zarr_format": 2, "shape": [10**9] * 4}))
    with pytest.raises(InputError), opened():
        pass
    (path / "data" / ".zarray").unlink()
    with pytest.raises(InputError, match="no array any more"), opened():
        pass


# ---------------------------------------------------------------- memory


@pytest.mark.slow
def test_no_claim_takes_memory(tmp_path, memory_of_refusals):
    paths = [
        store_2(tmp_path / "a.zarr", {"shape": [10**9, 3, 5, 7], "chunks": [4, 1, 1, 1]}),
        store_2(tmp_path / "b.zarr", {"shape": [10**7, 3, 50, 7]}),
        store_2(tmp_path / "c.zarr", {"chunks": [10**7, 3, 50, 7]}),
        store_2(tmp_path / "d.zarr", {"dtype": "<U2000000000"}),
        store_3(tmp_path / "e.zarr", {"shape": [10**6, 3, 5, 7]} | sharded(BYTES, inner=(1, 1, 1, 1))),
        store_3(tmp_path / "f.zarr", {"chunk_grid": regular((10**7, 3, 50, 7))} | sharded(BYTES)),
        store_3(tmp_path / "g.zarr", {"dimension_names": ["x" * 10**7] * 4}),
        store_2(tmp_path / "h.zarr", attributes={"missing_value": list(range(10**6))}),
    ]
    for number in (2**31 - 1, 2**32 - 1):  # the number of texts that a chunk claims to hold
        metadata = {"dtype": "|O", "filters": [{"id": "vlen-utf8"}]}
        paths.append(store_2(tmp_path / f"{number}.zarr", metadata, chunk=number.to_bytes(4, "little") + bytes(100)))
    assert memory_of_refusals(paths) < 150  # MiB; parsing 40 MB of dimension names is the most of it


def test_save_and_load(tmp_path):
    save_trace(tmp_path / "a.zarr", values())
    assert Path(tmp_path / "a.zarr" / "zarr.json").is_file()
    assert np.array_equal(load_trace(tmp_path / "a.zarr").data, as_trace(values()).data)
