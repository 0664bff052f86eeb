"""Chunks of a .zarr that are damaged, promise what they do not hold, or decode to far more than their values."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import math
import struct
import warnings
import zlib

import numpy as np
import pytest

from mmphate_gpu import InputError
from mmphate_gpu.trace import as_trace, load_trace
from mmphate_gpu.trace.files import OPENERS
from mmphate_gpu.trace.formats import zarr_metadata, zarr_text

zarr = pytest.importorskip("zarr", "3")
numcodecs = pytest.importorskip("numcodecs")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # zarr: some codecs are not in its specification
SHAPE = (4, 3, 5, 7)
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
NUMCODECS = tuple(int(number) for number in numcodecs.__version__.split(".")[:2])
FORMS = ("2", "filter", "3", "shard")
every_codec = pytest.mark.parametrize("codec", CODECS)
every_form = pytest.mark.parametrize("form", FORMS)
streams = pytest.mark.parametrize("stream", [False, True])


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


def refusal(path):
    """The sentence by which `load_trace` refuses ``path``, in memory and block by block alike."""
    sentences = set()
    for stream in (False, True):
        with pytest.raises(InputError) as caught:
            load_trace(path, stream=stream).load()
        sentences.add(str(caught.value).removeprefix(f"{path}: "))
    assert len(sentences) == 1
    (sentence,) = sentences
    assert "\n" not in sentence and len(sentence) < len(str(path)) + 400
    return sentence


def check_read(path, values=VALUES):
    for stream in (False, True):
        assert np.array_equal(load_trace(path, stream=stream).load().data, as_trace(values).data)


# ---------------------------------------------------------------- every codec


@every_form
@every_codec
def test_honest_chunks(tmp_path, codec, form):
    check_read(store(tmp_path / "a.zarr", form, CODECS[codec], bytes(CODECS[codec].encode(VALUES))))


@every_form
@every_codec
def test_chunks_that_are_cut_off(tmp_path, codec, form):
    chunk = bytes(CODECS[codec].encode(VALUES))
    for left in (len(chunk) - 1, len(chunk) // 2, 3, 0):
        refusal(store(tmp_path / f"{left}.zarr", form, CODECS[codec], chunk[:left]))


@every_form
@every_codec
def test_chunks_that_decode_to_far_more_than_their_values(tmp_path, codec, form):
    for n_bytes in (MOST + 1, 10**6):
        chunk = bytes(CODECS[codec].encode(np.zeros(n_bytes, np.uint8)))
        sentence = refusal(store(tmp_path / f"{n_bytes}.zarr", form, CODECS[codec], chunk))
        assert f"more than {MOST} bytes" in sentence or f"a chunk of up to {MOST}" in sentence or "copied" in codec


@every_codec
def test_chunks_that_decode_to_a_few_bytes_more_or_less(tmp_path, codec):
    for form in FORMS:
        for n_values in (419, 840):
            chunk = bytes(CODECS[codec].encode(np.resize(VALUES, n_values)))
            refusal(store(tmp_path / f"{form}{n_values}.zarr", form, CODECS[codec], chunk))


def test_other_code_keeps_its_codecs(tmp_path):
    bomb = zlib.compress(bytes(10**6))
    refusal(path := store(tmp_path / "a.zarr", "2", CODECS["zlib"], bomb))
    assert len(numcodecs.get_codec({"id": "zlib"}).decode(bomb)) == 10**6
    array = zarr.open_array(str(path / "data"), mode="r")
    assert len(array.metadata.compressor.decode(bomb)) == 10**6


# ---------------------------------------------------------------- headers


BLOSC = bytes(CODECS["blosc"].encode(VALUES))
COPIED = bytes(CODECS["blosc, copied"].encode(VALUES))


@pytest.mark.parametrize("form", ["2", "shard"])
@pytest.mark.parametrize("chunk", [BLOSC, COPIED], ids=["packed", "copied"])
@pytest.mark.parametrize(
    ("place", "number"),
    [
        *((4, number) for number in (0, 1676, 1684, MOST + 1, 2**31 - 1, 2**32 - 1)),
        *((12, number) for number in (0, 1690, 1700, 2**31 - 1, 2**32 - 1)),
    ],
)
def test_headers_of_blosc(tmp_path, form, chunk, place, number):
    changed = chunk[:place] + number.to_bytes(4, "little") + chunk[place + 4 :]
    refusal(store(tmp_path / "a.zarr", form, CODECS["blosc"], changed))


@pytest.mark.parametrize("block", [0, 1, 7, 2**31 - 1, 2**31, 2**32 - 1])
def test_blocks_of_blosc(tmp_path, block):
    changed = BLOSC[:8] + block.to_bytes(4, "little") + BLOSC[12:]
    refusal(store(tmp_path / "a.zarr", "2", CODECS["blosc"], changed))
    refusal(store(tmp_path / "b.zarr", "shard", CODECS["blosc"], changed[:3] + b"\0" + changed[4:]))


@every_form
def test_a_flag_of_blosc_that_the_bytes_are_copied(tmp_path, form):
    """Blosc would copy 40 MB from behind a chunk of 116 bytes."""
    chunk = bytes([2, 1, 2, 4]) + struct.pack("<iii", 4 * 10**7, 4 * 10**7, 116) + bytes(100)
    path = store(tmp_path / "a.zarr", form, CODECS["blosc"], chunk, shape=(2, 1, 1, 5 * 10**6))
    assert "damaged or truncated" in refusal(path)


@pytest.mark.parametrize("form", ["2", "3"])
@pytest.mark.parametrize("number", [0, 1676, 1684, MOST + 1, 2**31 - 1, 2**32 - 1])
def test_headers_of_lz4(tmp_path, form, number):
    chunk = number.to_bytes(4, "little") + bytes(CODECS["lz4"].encode(VALUES))[4:]
    refusal(store(tmp_path / "a.zarr", form, CODECS["lz4"], chunk))


def frame(content, size=None, blocks=1):
    """A frame of zstd whose blocks repeat ``content``; without ``size`` it does not say how many bytes it holds."""
    header = b"\x28\xb5\x2f\xfd" + (b"\0\x58" if size is None else b"\x80\x58" + size.to_bytes(4, "little"))
    headers = [(len(content) << 3 | (place == blocks - 1)).to_bytes(3, "little") + content for place in range(blocks)]
    return header + b"".join(headers)


def repeated(n_blocks, size=None):
    """A frame of blocks of 128 KiB, each stored as one byte."""
    whole = frame(b"", size, blocks=1)[:-3]
    headers = [2**17 << 3 | 1 << 1 | (place == n_blocks - 1) for place in range(n_blocks)]
    return whole + b"".join(header.to_bytes(3, "little") + b"\0" for header in headers)


SKIPPED = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"notes"


@pytest.mark.skipif(NUMCODECS < (0, 16), reason="before numcodecs 0.16 such frames are damaged ones")
@every_form
def test_frames_of_zstd_that_do_not_say_how_much_they_hold(tmp_path, form):
    content = VALUES.tobytes()
    frames = [
        frame(content, 1680),
        frame(content),
        frame(content[:840]) + frame(content[840:]),
        frame(content) + SKIPPED,
    ]
    for number, chunk in enumerate(frames):
        assert numcodecs.Zstd().decode(chunk) == content
        check_read(store(tmp_path / f"{number}.zarr", form, CODECS["zstd"], chunk))


@every_form
def test_damaged_frames_of_zstd(tmp_path, form):
    content, several = VALUES.tobytes(), repeated(100)
    bombs = [several, repeated(100, 100 * 2**17), frame(content, 1680) + several, frame(content) + repeated(100, 1680)]
    for number, chunk in enumerate(bombs):
        path = store(tmp_path / f"bomb{number}.zarr", form, CODECS["zstd"], chunk)
        assert f"more than {MOST} bytes" in refusal(path)
    chunks = [
        frame(content, 1679),
        frame(content, 0),
        frame(content, 2**32 - 1),
        repeated(1, 1680),
        SKIPPED,
        SKIPPED[:-1],
    ]
    for number, chunk in enumerate([*chunks, frame(content) + b"x", b"x" + frame(content), frame(content)[:-1]]):
        refusal(store(tmp_path / f"{number}.zarr", form, CODECS["zstd"], chunk))


@pytest.mark.parametrize("name", ["gzip", "bz2", "lzma"])
def test_several_streams_behind_one_another(tmp_path, name):
    compress = {"gzip": gzip.compress, "bz2": bz2.compress, "lzma": lzma.compress}[name]
    content = VALUES.tobytes()
    chunk = compress(content[:1000]) + compress(b"") + compress(content[1000:])
    check_read(store(tmp_path / "a.zarr", "2", CODECS[name], chunk + bytes(8) * (name == "gzip")))
    bomb = compress(content) + compress(bytes(MOST))
    assert "more than" in refusal(store(tmp_path / "b.zarr", "3", CODECS[name], bomb))
    refusal(store(tmp_path / "c.zarr", "shard", CODECS[name], compress(content[:1000]) + compress(content[1000:])[:-1]))


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
def test_shards_that_are_cut_off(tmp_path, left):
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


# ---------------------------------------------------------------- memory, in a process of its own


@pytest.mark.slow
def test_no_chunk_takes_memory(tmp_path, memory_of_refusals):
    zeros = np.zeros(2 * 10**8, np.uint8)
    shape = (4, 3, 500, 7)  # so that the files, of up to 1 MB, pass
    paths = [store(tmp_path / "honest.zarr", "2", CODECS["zlib"], zlib.compress(VALUES.tobytes()))]
    for name in ("blosc", "bz2", "gzip", "lz4", "lzma", "zstd"):
        bomb = bytes(CODECS[name].encode(zeros))
        paths += [store(tmp_path / f"{name}{form}.zarr", form, CODECS[name], bomb, shape) for form in FORMS]
    paths.append(store(tmp_path / "frames.zarr", "3", CODECS["zstd"], repeated(10**4)))
    assert memory_of_refusals(paths[1:], honest=paths[0]) < 50  # MiB
