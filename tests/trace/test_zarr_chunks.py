"""Chunks of a .zarr are decoded within the bytes that they may have."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import zlib

import numpy as np
import pytest

from .traces import refusal
from .zarr_chunk_stores import CODECS, MOST, VALUES, check_read, store

zarr = pytest.importorskip("zarr", "3")
numcodecs = pytest.importorskip("numcodecs")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # zarr: some codecs are not in its specification
NUMCODECS = tuple(int(number) for number in numcodecs.__version__.split(".")[:2])
FORMS = ("2", "filter", "3", "shard")
every_codec = pytest.mark.parametrize("codec", CODECS)
every_form = pytest.mark.parametrize("form", FORMS)


# ---------------------------------------------------------------- every codec


@every_form
@every_codec
def test_honest_chunks(tmp_path, codec, form):
    check_read(store(tmp_path / "a.zarr", form, CODECS[codec], bytes(CODECS[codec].encode(VALUES))))


@every_form
@every_codec
def test_truncated_chunks(tmp_path, codec, form):
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
