"""What a .h5 claims is checked before HDF5 reads it."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from mmphate_gpu import InputError
from mmphate_gpu.trace import as_trace, load_trace

from .h5_files import values, virtual, written
from .traces import SHAPE, refusal, streams

h5py = pytest.importorskip("h5py")


# ---------------------------------------------------------------- what headers claim


@pytest.mark.parametrize(
    ("shape", "chunks", "message"),
    [
        ((10**9, 3, 5, 7), (4, 1, 1, 1), "chunks of shape"),
        ((10**4, 3, 5, 7), (1, 1, 1, 1), "chunks of shape"),
        ((10**6, 10, 50, 70), (10**4, 10, 50, 70), "are stored"),
        ((10**6, 10, 50, 70), None, "are stored"),
        ((4, 3, 5, 7), (4, 3, 5, 10**7), "are stored"),
        ((2**20, 2**20, 2**10, 2**10), (64, 64, 64, 64), "chunks of shape"),
    ],
)
def test_shapes_and_chunks(tmp_path, shape, chunks, message):
    with written(tmp_path / "a.h5", plain=False) as file:
        more = {} if chunks is None else {"chunks": chunks, "maxshape": (None,) * 4, "compression": "gzip"}
        data = file.create_dataset("data", shape=shape, dtype="f4", **more)
        if chunks is not None and np.prod(chunks) < 10**6:
            data[:1, :1, :1, :1] = 1
    assert message in refusal(tmp_path / "a.h5")


def test_a_chunk_beyond_the_memory(tmp_path, monkeypatch):
    with written(tmp_path / "a.h5", plain=False) as file:
        file.create_dataset("data", data=values(), chunks=(100, 30, 50, 70), maxshape=(None,) * 4)
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", str(10**7))
    assert "one chunk of" in refusal(tmp_path / "a.h5")


OBJECTS = {
    "text of variable length": (h5py.string_dtype(), None),
    "numbers of variable length": (h5py.vlen_dtype(np.float32), None),
    "references": (h5py.ref_dtype, None),
    "references to regions": (h5py.regionref_dtype, None),
    "compound": (np.dtype([("a", "f4"), ("b", "f4")]), None),
    "opaque": (np.dtype("V8"), None),
    "arrays": (np.dtype(("f4", (2,))), None),
    "long text": ("S1000000", None),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_data_types(tmp_path, name):
    for field in ("data", "mask", "epoch"):
        path = tmp_path / f"{field}.h5"
        with written(path, plain=field != "data") as file:
            file.create_dataset(field, shape=(4,) if field == "epoch" else SHAPE, dtype=OBJECTS[name][0])
        if (name, field) != ("text of variable length", "epoch"):
            refusal(path)


def test_text_of_variable_length(tmp_path):
    with written(tmp_path / "a.h5") as file:
        file.create_dataset("unit", data=["a", "bee", "", "dé", "e"], dtype=h5py.string_dtype())
    unit = load_trace(tmp_path / "a.h5").unit
    assert list(unit) == ["a", "bee", "", "dé", "e"] and unit.dtype.kind == "U"
    with written(tmp_path / "b.h5", plain=False) as file:
        words = [b"a" * 10**6, *[b"b"] * 300]
        file["data"] = np.zeros((2, 1, len(words), 1))
        file.create_dataset("unit", data=words, dtype=h5py.string_dtype())
    assert "301 texts, one of 1000000 characters" in refusal(tmp_path / "b.h5")


@pytest.mark.parametrize("options", [{}, {"chunks": (5000,)}, {"chunks": (5000,), "compression": "gzip"}])
def test_texts_that_share_their_bytes(tmp_path, options):
    path, n_texts = tmp_path / "a.h5", 10**4
    with written(path, plain=False) as file:
        file["data"], text = np.zeros((2, 1, n_texts, 1)), h5py.string_dtype()
        unit = file.create_dataset("unit", data=[b"x" * 10**6, *[b"y"] * (n_texts - 1)], dtype=text, **options)
        size = 16  # of an entry
        if options:  # each chunk is of entries that refer to the long text
            where = unit.id.get_chunk_info(0)
            with open(path, "rb") as content:
                content.seek(where.byte_offset)
                chunk = content.read(where.size)
            chunk = zlib.decompress(chunk)[:size] * 5000 if len(options) > 1 else chunk[:size] * 5000
            chunk = zlib.compress(chunk) if len(options) > 1 else chunk
            for start in (0, 5000):
                unit.id.write_direct_chunk((start,), chunk)
        start = None if options else unit.id.get_offset()
    if start is not None:
        content = bytearray(path.read_bytes())
        content[start : start + size * n_texts] = bytes(content[start : start + size]) * n_texts
        path.write_bytes(content)
    assert "more text than its file has bytes" in refusal(path)


@pytest.mark.parametrize("options", [{}, {"chunks": (2,)}])
def test_texts_that_claim_to_be_long(tmp_path, options):
    path = tmp_path / "a.h5"
    with written(path) as file:
        unit = file.create_dataset("unit", data=[b"a", b"b", b"c", b"d", b"e"], dtype=h5py.string_dtype(), **options)
        start = unit.id.get_chunk_info(1).byte_offset if options else unit.id.get_offset()
    content = bytearray(path.read_bytes())
    content[start : start + 4] = (2**32 - 1).to_bytes(4, "little")
    path.write_bytes(content)
    assert "more text than its file has bytes" in refusal(path)


@pytest.mark.parametrize("place", ["units", "unit"])
def test_a_heap_over_which_hdf5_would_loop_without_end(tmp_path, place):
    path = tmp_path / "a.h5"
    with written(path) as file:
        if place == "unit":
            file.create_dataset("unit", data=list("abcde"), dtype=h5py.string_dtype())
        else:
            file["data"].attrs["units"] = "mV"
    content = path.read_bytes()
    heap = content.index(b"GCOL")
    path.write_bytes(content[: heap + 16] + bytes(16) + content[heap + 32 :])  # object 0 of size 0
    assert "damaged heap of text" in refusal(path)


@pytest.mark.parametrize("damage", ["circle", "outside", "longer than the file"])
def test_a_list_of_free_places_among_names(tmp_path, damage):
    """Over a list that runs in a circle, HDF5 would allocate memory without end."""
    path = tmp_path / "a.h5"
    with written(path) as file:
        file["unit"] = np.arange(5)
    content = bytearray(path.read_bytes())
    heap = content.index(b"HEAP")
    size, place, address = (int.from_bytes(content[heap + start : heap + start + 8], "little") for start in (8, 16, 24))
    assert place < size <= len(content) - address
    changes = {
        "circle": (address + place, place),
        "outside": (address + place, size),
        "longer than the file": (heap + 8, 2**60),
    }
    start, number = changes[damage]
    content[start : start + 8] = number.to_bytes(8, "little")
    if damage == "longer than the file":
        content[address + place : address + place + 8] = (2**50).to_bytes(8, "little")
    path.write_bytes(content)
    assert "damaged heap of names" in refusal(path)


@pytest.mark.parametrize("size", [0, 2**31, 2**32 - 1])
@pytest.mark.parametrize("options", [{}, {"compression": "gzip", "shuffle": True}, {"fletcher32": True}])
def test_sizes_of_chunks(tmp_path, size, options):
    path = tmp_path / "a.h5"
    with written(path, plain=False) as file:
        data = file.create_dataset("data", data=values(), chunks=(2, 3, 5, 7), **options)
        chunk = data.id.get_chunk_info(1)
    content = path.read_bytes()
    # An entry of the chunk tree has the size, the mask of filters, the position in the array and that in the file.
    place = np.array([*chunk.chunk_offset, 0], "<u8").tobytes() + chunk.byte_offset.to_bytes(8, "little")
    entry = content.index(bytes(4) + place) - 4
    assert int.from_bytes(content[entry : entry + 4], "little") == chunk.size
    path.write_bytes(content[:entry] + size.to_bytes(4, "little") + content[entry + 4 :])
    assert "has a damaged chunk" in refusal(path)


# ---------------------------------------------------------------- attributes


ATTRIBUTES = {
    "many numbers": ("scale_factor", np.ones(5000)),
    "long text": ("units", "x" * 10**6),
    "long text of fixed length": ("units", np.bytes_(b"x" * 60_000)),
    "numbers of several axes": ("valid_range", np.ones((2, 2))),
    "text for a number": ("scale_factor", "two"),
    "compound": ("add_offset", np.zeros(1, [("a", "f4")])),
    "label of the wrong type": ("DIMENSION_LABELS", np.zeros((4, 3), [("a", "f4")])),
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attributes_of_wrong_types(tmp_path, name):
    with written(tmp_path / "a.h5") as file:
        key, value = ATTRIBUTES[name]
        file["data"].attrs[key] = value
    refusal(tmp_path / "a.h5")


@pytest.mark.parametrize("key", ["units", "scale_factor", "_FillValue", "CLASS", "NAME", "DIMENSION_LABELS"])
def test_attributes_that_are_references(tmp_path, key):
    with written(tmp_path / "a.h5") as file:
        file["data"].attrs.create(key, file["data"].ref, dtype=h5py.ref_dtype)
    assert "data type" in refusal(tmp_path / "a.h5")


@streams
@pytest.mark.parametrize("case", ["numbers", "text", "one list", "too many lists", "null", "of something else"])
def test_lists_of_scales_of_the_wrong_type(tmp_path, case, stream):
    with written(tmp_path / "a.h5") as file:
        file["group/other"] = values()
        attributes = file["data"].attrs
        if case == "numbers":
            attributes["DIMENSION_LIST"] = np.full((4, 10**3), 2**60)
        elif case == "text":
            attributes["DIMENSION_LIST"] = ["a" * 100] * 4
        elif case == "null":
            attributes["DIMENSION_LIST"] = h5py.Empty("f4")
        else:
            n_lists = {"one list": 1, "too many lists": 500, "of something else": 4}[case]
            lists = np.empty(n_lists, object)
            for place in range(n_lists):
                lists[place] = np.array([file["group"].ref], h5py.ref_dtype)
            attributes.create("DIMENSION_LIST", lists, dtype=h5py.vlen_dtype(h5py.ref_dtype))
        attributes["DIMENSION_LABELS"] = np.arange(4)
    try:
        assert np.array_equal(load_trace(tmp_path / "a.h5", stream=stream).load().data, as_trace(values()).data)
    except InputError as error:  # the name of the group, or the number, is no name of an axis
        assert "has dims" in str(error)


# ---------------------------------------------------------------- damage, in processes of their own


@pytest.mark.slow
def test_no_claim_takes_memory_and_no_recursion_kills(tmp_path, memory_of_refusals):
    paths = [tmp_path / f"{name}.h5" for name in "abcdefg"]
    for place, path in enumerate(paths):
        with written(path, plain=place > 4) as file:
            if place == 0:
                virtual(file, "data", (".", "data"))
            elif place == 1:
                virtual(file, "data", (".", "b"))
                virtual(file, "b", ("b.h5", "data"))
            elif place == 2:
                file.create_dataset("data", shape=(10**9, 3, 5, 7), chunks=(4, 1, 1, 1), dtype="f4")
            elif place == 3:
                file.create_dataset("data", shape=SHAPE, chunks=(4, 3, 5, 10**7), maxshape=(None,) * 4, dtype="f4")
            elif place == 4:
                file.create_dataset("data", shape=(10**7, 3, 5, 70), dtype="f4")
            elif place == 5:
                virtual(file, "epoch", (".", "epoch"), shape=(4,))
            else:
                file["data"].attrs["DIMENSION_LIST"] = np.full((4, 10**3), 2**60)
                file["data"].attrs["units"] = np.zeros(7000)
    assert memory_of_refusals(paths) < 100  # MiB
