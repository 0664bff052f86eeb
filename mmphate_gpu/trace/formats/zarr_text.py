"""Read text of variable length from a .zarr without zarr, which takes memory for as many texts as a chunk claims."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...runtime.optional import require
from .arrays import padded_text
from .zarr_chunks import DECODED, MOST_TEXT, Decoder

TEXT = "vlen-utf8"
# The codecs that turn bytes into bytes and, to decode, need no settings but those of version 2.
_CODECS = ("adler32", "blosc", "bz2", "crc32", "crc32c", "fletcher32", "gzip", "lz4", "lzma", "zlib", "zstd")


def read_text(
    folder: Path, version: int, metadata: dict[str, Any], name_of_chunk: Callable[[tuple[int]], str]
) -> np.ndarray:
    """The texts of an array with a single axis, which has passed the checks of `trace.formats.zarr`.

    ``name_of_chunk`` gives the name of the file of a chunk, relative to ``folder``, by the index of the chunk.
    `InputError` refuses codecs that do not turn bytes into bytes, and a chunk with another number of texts than its
    shape says.
    """
    if version == 2:
        (size,), (step,) = metadata["shape"], metadata["chunks"]
        settings = [codec for codec in (*(metadata["filters"] or ()), metadata.get("compressor")) if codec]
    else:
        (size,), (step,) = metadata["shape"], metadata["chunk_grid"]["configuration"]["chunk_shape"]
        names = [codec["name"] if isinstance(codec, dict) else codec for codec in metadata["codecs"]]
        settings = [{"id": name.removeprefix("numcodecs.")} for name in names]
    if settings[0]["id"] != TEXT or any(codec["id"] not in _CODECS for codec in settings[1:]):
        raise InputError(
            f"{folder} holds text by the codecs {[codec['id'] for codec in settings]}; accepted: {_CODECS}"
        )
    decoders = [_decoder(folder, codec) for codec in settings[:0:-1]]
    texts: list[str] = []
    for index in range(-(-size // step)):
        file = folder / name_of_chunk((index,))
        if not file.exists():
            texts += [str(metadata.get("fill_value") or "")] * step
            continue
        content = file.read_bytes()
        for decode in decoders:
            content = bytes(decode(content))
        texts += _texts(file, content, step)
    return padded_text(str(folder), texts[:size])


def _decoder(folder: Path, settings: dict[str, Any]) -> Callable[[bytes], Any]:
    if settings["id"] in DECODED:
        return Decoder(folder, settings["id"], settings, MOST_TEXT)
    return require("numcodecs", extra="zarr", purpose=f"{folder}: reading .zarr").get_codec(settings).decode


def _texts(file: Path, content: bytes, n_texts: int) -> Iterator[str]:
    """The texts of a chunk: their number, and before each its length, as 4 bytes."""
    if int.from_bytes(content[:4], "little") != n_texts:
        raise InputError(f"{file} does not hold the {n_texts} texts of its chunk")
    start = 4
    for _ in range(n_texts):
        end = start + 4 + int.from_bytes(content[start : start + 4], "little")
        if start + 4 > len(content) or end > len(content):
            raise InputError(f"{file} is truncated")
        yield content[start + 4 : end].decode()
        start = end
