""".zarr of versions 2 and 3: codecs, text, links, and what no store may do."""

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

from .traces import SHAPE, streams
from .zarr_stores import BYTES, refusal, regular, sharded, store_2, store_3, values

zarr = pytest.importorskip("zarr", "3")


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
