"""Changes of zip files: of the directory alone, or of the members, with checksums that fit the changed members."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Callable

from documents import PICKLE, npy_of
from seeds import zip_bytes

_METHODS = (0, 8, 12, 14, 9, 1, 93, 99, 65535)
_FLAGS = (0x1, 0x8, 0x20, 0x40, 0x800, 0x2000, 0xFFFF)
_NAMES = (
    *("data.npy", "trace.npy", "mask.npy", "label.npy", "axes.npy", "epoch.npy", "DATA.npy", "Label.npy", "data", ""),
    *("../data.npy", "/data.npy", "a/data.npy", "data.npy/", "data.npy\x00", "\u212b.npy", "x" * 70 + ".npy", "t.npy"),
)
# (offset, size) of the fields of both headers of a member, and of the record at the end of the directory.
_LOCAL = {"version": (4, 2), "flags": (6, 2), "method": (8, 2), "crc": (14, 4), "packed": (18, 4), "size": (22, 4)}
_LOCAL |= {"name": (26, 2), "extra": (28, 2)}
_CENTRAL = {"version": (6, 2), "flags": (8, 2), "method": (10, 2), "crc": (16, 4), "packed": (20, 4), "size": (24, 4)}
_CENTRAL |= {"name": (28, 2), "extra": (30, 2), "comment": (32, 2), "disk": (34, 2), "offset": (42, 4)}
_END = {"disk": (4, 2), "disk 2": (6, 2), "here": (8, 2), "entries": (10, 2), "size": (12, 4), "offset": (16, 4)}
_END |= {"comment": (20, 2)}
_HEADERS = {b"PK\x03\x04": _LOCAL, b"PK\x01\x02": _CENTRAL, b"PK\x05\x06": _END}


def mutated_directory(rng: random.Random, content: bytes) -> bytes:
    """Change one to three fields of headers; a third of the changes of a member are made in both of its headers."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = [(mark, at) for mark in _HEADERS for at in _all(content, mark)]
        mark, at = rng.choice(places)
        field = rng.choice(sorted(_HEADERS[mark]))
        size = _HEADERS[mark][field][1]
        value = _value(rng, field, int.from_bytes(changed[at + _HEADERS[mark][field][0] :][:size], "little"))
        both = mark == b"PK\x01\x02" and field in _LOCAL and rng.random() < 0.6
        _put(changed, mark, at, field, value)
        if both:
            _put(changed, b"PK\x03\x04", int.from_bytes(content[at + 42 : at + 46], "little"), field, value)
    return bytes(changed)


def _all(content: bytes, mark: bytes) -> list[int]:
    return [at for at in range(len(content)) if content.startswith(mark, at)]


def _put(content: bytearray, mark: bytes, at: int, field: str, value: int) -> None:
    start, size = _HEADERS[mark][field]
    content[at + start : at + start + size] = (value % 2 ** (8 * size)).to_bytes(size, "little")


def _value(rng: random.Random, field: str, before: int) -> int:
    if field == "method":
        return rng.choice(_METHODS)
    if field == "flags":
        return before ^ rng.choice(_FLAGS)
    return rng.choice(
        (0, 1, before + 1, before - 1, before * 2, before // 2, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFE)
    )


def mutated_archive(rng: random.Random, content: bytes, mutated_npy: Callable[[random.Random, bytes], bytes]) -> bytes:
    """The archive with changed members and right checksums."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
        method = archive.infolist()[0].compress_type
    place = rng.randrange(len(members))
    name, member = members[place]
    draw = rng.random()
    if draw < 0.7:
        members[place] = name, mutated_npy(rng, member)
    elif draw < 0.8:
        members[place] = rng.choice(_NAMES), member
    elif draw < 0.85:
        members.append((rng.choice(_NAMES), rng.choice((member, PICKLE, b"", members[0][1]))))
    elif draw < 0.9:
        del members[place]
    elif draw < 0.994:
        members[place] = (
            name,
            rng.choice((PICKLE, b"", members[rng.randrange(len(members))][1], _lie(rng), _empty(rng))),
        )
    else:
        members[place] = name, _bomb(rng)
        return zip_bytes(members, zipfile.ZIP_DEFLATED)
    return zip_bytes(members, method if rng.random() < 0.9 else rng.choice((0, 8, 12, 14)))


def _lie(rng: random.Random) -> bytes:
    """A header that claims more than the member holds."""
    shape = rng.choice(((10**9,), (2**40,), (2**31, 3, 2, 5), (10**5, 10**5)))
    return npy_of(str({"descr": rng.choice(("<f8", "<U100", "|b1")), "fortran_order": False, "shape": shape}), bytes(8))


def _empty(rng: random.Random) -> bytes:
    descr = rng.choice(("<f8", "<U5", "|b1", "|V0", "|S0", "<U0", "[]"))
    shape = rng.choice(((0,), (), (0, 3, 2, 5), (2**62, 0), (10**9,)))
    return npy_of(str({"descr": descr, "fortran_order": False, "shape": shape}), b"")


def _bomb(rng: random.Random) -> bytes:
    """270 MB of zeros, which a compressed archive holds in 270 kB."""
    count = 256 * 2**20 // 8 // 120 * 120
    shape = rng.choice(((count,), (count // 120, 3, 8, 5), (count // 8, 2, 4)))
    header = {"descr": rng.choice(("<f8", "<U2", "<i8", "|V8")), "fortran_order": False, "shape": shape}
    return npy_of(str(header), bytes(count * 8))
