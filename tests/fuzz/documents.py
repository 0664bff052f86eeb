"""Changes of text with a structure: the headers of .npy files, and JSON."""

from __future__ import annotations

import json
import math
import random
import re
import struct
from copy import deepcopy
from typing import Any

from mmphate_gpu.trace.formats.recording import sealed

# A pickle that makes a file called CANARY in the working folder when it is loaded.
CANARY = "fuzz-canary"
PICKLE = f"cio\nopen\n(S'{CANARY}'\nS'w'\ntR.".encode()

NUMBERS = (
    *("0", "-1", "1", "2", "7", "255", "65536", "1000000", "2147483647", "2147483648", "4294967296", "1099511627776"),
    *("9223372036854775807", "9223372036854775808", "18446744073709551616", "1" + "0" * 30, "1.5", "1e308", "-0"),
)
_DTYPES = (
    *("'|O'", "'<f8'", "'<f4'", "'<f2'", "'<f16'", "'<c16'", "'|b1'", "'<i8'", "'<u8'", "'|i1'", "'<U5'", "'<U0'"),
    *("'|S0'", "'|V4'", "'|V2000000000'", "'<M8[s]'", "'<m8'", "'<U500000000'", "''", "'x'", "4", "None"),
    *("[('a','<f4')]", "[('a','|O')]", "[('','<f4'),('','<f4')]", "('<f4',(1000000,))", "('<f4',-1)", "['<f4']"),
    "[('a',[('b','<f4',(1000,1000,1000))])]",
)
_SOUND = (
    *(("<f8", 8), ("<f4", 4), ("<f2", 2), ("|b1", 1), ("<i8", 8), ("<u8", 8), ("|i1", 1), (">f8", 8), (">i4", 4)),
    *(("<U2", 8), (">U1", 4), ("|S8", 8), ("<M8[s]", 8), ("<M8[ns]", 8), ("<M8", 8), ("<m8[D]", 8), ("<c16", 16)),
    *(("|V8", 8), ("<f16", 16), ([("a", "<f4")], 4), ("<U0", 0), ("|S0", 0), ("|V0", 0)),
)
_SHAPES = (
    *(
        "()",
        "(0,0,0)",
        "(4,3,2,0)",
        "(-4,-3,2,5)",
        "(-1,3,2,5)",
        "(1.5,2)",
        "((4,3),(2,5))",
        "[4,3,2,5]",
        "'4'",
        "None",
    ),
    *("(4,)", "(120,)", "(4,30)", "(True,120,1)", "(4,3,10)", "(1,1,1,120)", "(2,2,3,2,5)", "(5,2,3,4)", "(1,2,3,20)"),
    *("(4294967296,4294967296,2,5)", "(9223372036854775807,3,2,5)", "(0,9223372036854775807,9223372036854775807)"),
    *("(1,)*99", "(" + "1," * 70 + ")", "(" * 300 + ")" * 300, "-" * 5000 + "1", "(4,3,2,5" + ",1" * 3000 + ")"),
)


def mutated_npy_header(rng: random.Random, content: bytes) -> bytes:
    """A .npy file with a changed header, whose length field is right in most cases."""
    if content[:6] != b"\x93NUMPY":
        return content
    wide = content[6] > 1
    start = 12 if wide else 10
    (size,) = struct.unpack("<I" if wide else "<H", content[8:start])
    text, values = content[start : start + size].decode("latin-1"), content[start + size :]
    for _ in range(rng.choice((1, 1, 2))):
        text = _changed_header(rng, text)
    if "O'" in text and rng.random() < 0.9:
        values = PICKLE
    return npy_of(text, values, version=rng.choice((content[6],) * 8 + (0, 1, 2, 3, 4, 255)), fits=rng.random() < 0.9)


def other_npy(rng: random.Random) -> bytes:
    """A valid .npy file of an array that may not fit its name."""
    descr, size = rng.choice(_SOUND)
    shape = rng.choice(
        ((4, 3, 2, 5), (4, 2, 5), (3, 2, 5), (3, 5), (4,), (3,), (2,), (5,), (), (0,), (4, 0, 5), (24, 2), (24,))
    )
    n_bytes = math.prod(shape) * size
    numbers = struct.pack("<d", rng.choice((0.0, 1.0, -1.0, math.nan, math.inf, 2.0**53, 1e308, 5e-324)))
    values = rng.choice(
        (
            bytes(n_bytes),
            b"\xff" * n_bytes,
            rng.randbytes(n_bytes),
            (bytes(range(1, 6)) + bytes(3)) * n_bytes,
            numbers * n_bytes,
        )
    )
    return npy_of(str({"descr": descr, "fortran_order": rng.random() < 0.3, "shape": shape}), values[:n_bytes])


def npy_of(text: str, values: bytes, version: int = 1, fits: bool = True) -> bytes:
    """The .npy file with ``text`` as its header; ``fits`` says whether its length field is right."""
    line = text.rstrip().encode("latin-1", "replace")
    line += b" " * (-(len(line) + 11) % 64) + b"\n"
    length = struct.pack("<I", len(line)) if version > 1 else struct.pack("<H", min(len(line), 65535))
    length = length if fits else bytes([length[0] ^ 0x40]) + length[1:]
    return b"\x93NUMPY" + bytes([version, 0]) + length + line + values


def _changed_header(rng: random.Random, text: str) -> str:
    draw = rng.random()
    if draw < 0.3:
        return replaced_number(rng, text.encode("latin-1", "replace")).decode("latin-1")
    if draw < 0.5:
        return re.sub(r"'descr': [^,]*,", lambda _: f"'descr': {rng.choice(_DTYPES)},", text, count=1)
    if draw < 0.75:
        return re.sub(r"'shape': \([^)]*\)", lambda _: f"'shape': {rng.choice(_SHAPES)}", text, count=1)
    if draw < 0.85:
        return re.sub(r"True|False", lambda _: rng.choice(("True", "False", "1", "None", "'C'")), text, count=1)
    return rng.choice((_without_a_key, _with_another_key, _cut_off))(rng, text)


def _without_a_key(rng: random.Random, text: str) -> str:
    return text.replace(
        rng.choice(("'descr'", "'shape'", "'fortran_order'")), rng.choice(("'x'", "1", "[]", "b'shape'"))
    )


def _with_another_key(rng: random.Random, text: str) -> str:
    return text.replace("{", rng.choice(("{'x': 1, ", "{'shape': (1, 2), ", "{{", "", "{" + "[" * 200)), 1)


def _cut_off(rng: random.Random, text: str) -> str:
    return text[: rng.randrange(len(text))] + rng.choice(("", "\n", "\x00", "#", "'", "\\"))


def replaced_number(rng: random.Random, content: bytes) -> bytes:
    """``content`` with one of its numbers replaced."""
    places = list(re.finditer(rb"-?\d+(?:\.\d+)?", content))
    if not places:
        return content
    match = rng.choice(places)
    number = rng.choice((*NUMBERS, "[" + match[0].decode() + "]")).encode()
    return content[: match.start()] + number + content[match.end() :]


# ---------------------------------------------------------------- JSON

# Two placeholders that no document contains by itself; `_text` replaces them.
_DEEP, _TWICE = "@a list in a list in a list@", "@a key once more@"
_VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 65536, 2**31, 2**53 + 1, 2**63, 2**64, 10**30, 1.5, 1e308, float("nan")),
    *("", "x", "NaN", "Infinity", "0x7fc00000", "C", "F", "../..", "/etc", "\0", "\ud800", "x" * 10000),
    *([], {}, [None], [[1]], [0, 0, 0, 0], [1, 1, 1, 1], [2**31] * 4, [-1] * 4, {"name": "bytes"}, _DEEP),
    *("<f4", "<f8", ">i2", "|O", "<U5", "<U500000000", "|V8", "<M8[ns]", "|b1", [["a", "<f4"]], [["a", "|O"]]),
    *("float32", "float16", "complex64", "bool", "string", "object", "r8", "int2", "variable_length_utf8"),
)
_CODECS: tuple[Any, ...] = (
    *({"id": name} for name in ("pickle", "json2", "msgpack2", "vlen-utf8", "vlen-array", "zlib", "bz2", "lzma", "x")),
    *({"id": name} for name in ("packbits", "base64", "crc32", "adler32", "fletcher32", "shuffle", "categorize")),
    {"id": "pickle", "protocol": 5},
    {"id": "blosc", "cname": "zstd", "clevel": 5, "shuffle": 2, "blocksize": 2**31},
    {"id": "zstd", "level": 10**10},
    {"id": "gzip", "level": -5},
    {"id": "quantize", "digits": 10**9, "dtype": "<f4"},
    {"id": "fixedscaleoffset", "scale": 0, "offset": 1, "dtype": "<f4", "astype": "|u1"},
    {"id": "delta", "dtype": "|O"},
    *(
        {"name": name}
        for name in ("crc32c", "gzip", "zstd", "blosc", "vlen-utf8", "vlen-bytes", "x", "sharding_indexed")
    ),
    *({"name": f"numcodecs.{name}", "configuration": {}} for name in ("pickle", "json2", "zlib", "lzma", "delta", "x")),
    {"name": "transpose", "configuration": {"order": [3, 2, 1, 0]}},
    {"name": "transpose", "configuration": {"order": [0, 0, 0, 0]}},
    {"name": "bytes", "configuration": {"endian": "big"}},
    {"name": "gzip", "configuration": {"level": 10**10}},
)


def mutated_json(rng: random.Random, content: bytes) -> bytes:
    """A JSON document with a changed structure."""
    document = json.loads(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        document = _changed(rng, document)
    return _text(rng, document)


def resealed(rng: random.Random, content: bytes) -> bytes:
    """JSON on one line, mostly with the checksum that fits it, as somebody would make it on purpose."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return content.replace(b"\n", b"")
    if isinstance(document, dict) and "checksum" in document and rng.random() < 0.9:
        document = sealed({name: value for name, value in document.items() if name != "checksum"})
    return json.dumps(document).encode()


def _text(rng: random.Random, document: Any) -> bytes:
    text = json.dumps(document, indent=1)
    text = text.replace(json.dumps(_DEEP), "[" * 20000 + "]" * rng.choice((20000, 20000, 0)))
    for key in re.findall(f'"{_TWICE}([^"]*)"', text):
        text = text.replace(f'"{_TWICE}{key}"', f'"{key}"')
    return rng.choice((b"",) * 30 + (b"\xef\xbb\xbf", b"\xff\xfe", b"//\n")) + text.encode()


def _changed(rng: random.Random, document: Any) -> Any:
    places = list(_places(document, ()))
    if not places:
        return deepcopy(rng.choice(_VALUES))
    place = rng.choice(places)
    holder, last = _at(document, place[:-1]), place[-1]
    draw = rng.random()
    if last in ("compressor", "filters", "codecs", "id", "name") and draw < 0.6 or draw < 0.08:
        _put_codec(rng, holder, last)
    elif draw < 0.2:
        del holder[last]
    elif draw < 0.3 and isinstance(holder, dict):
        holder[_TWICE + last] = deepcopy(rng.choice(_VALUES))
    elif draw < 0.4:
        holder[last] = [holder[last]]
    elif draw < 0.5:
        holder[last] = deepcopy(_at(document, rng.choice(places)))
    else:
        holder[last] = deepcopy(rng.choice(_VALUES))
    return document


def _put_codec(rng: random.Random, holder: Any, last: Any) -> None:
    codec = deepcopy(rng.choice(_CODECS))
    if last in ("id", "name"):
        holder[last] = codec.get("id", codec.get("name"))
    else:
        value = holder[last]
        rest = value if isinstance(value, list) else []
        holder[last] = rng.choice((codec, [codec], [codec, *rest], [*rest, codec], [codec] * 1000))


def _places(document: Any, place: tuple[Any, ...]) -> Any:
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        yield (*place, key)
        yield from _places(value, (*place, key))


def _at(document: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        document = document[key]
    return document
