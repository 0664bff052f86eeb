"""Changes of seeds: the number of a mutation of a format always makes the same file.

A tree is a dict {path within: entry}; an entry is bytes, or a `Special` that replaces a file.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from containers import mutated_h5
from documents import PICKLE, mutated_json, mutated_npy_header, other_npy, replaced_number, resealed
from seeds import Seed, seeds_of
from zips import mutated_archive, mutated_directory

INTERESTING_BYTES = (0, 1, 0x7F, 0x80, 0xFF)
# Values that replace lengths, offsets and counts of 1, 2, 4 and 8 bytes.
INTERESTING_INTEGERS = (0, 1, 0xFF, 0xFFFF, 2**20, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1)


class Special(Enum):
    """What may replace a file."""

    FOLDER = "a folder"
    FIFO = "a FIFO"
    LINK_OUT = "a link to a copy of the file outside of the folder"
    LINK_TO_NOTHING = "a link to nothing"
    LINK_TO_ITSELF = "a link to itself"


Entry = bytes | Special
Tree = dict[str, Entry]


class Mutated(NamedTuple):
    """A changed file or folder, its ending, and the unchanged files that it comes from."""

    name: str
    ending: str
    tree: Tree
    honest: dict[str, bytes]


def mutated(format_name: str, number: int) -> Mutated:
    """The mutated file with this ``number``; -1, -2, ... are the unchanged seeds."""
    seeds = seeds_of(format_name)
    if number < 0:
        seed = seeds[-1 - number]
        return Mutated(seed.name, seed.ending, dict(seed.files), seed.files)
    rng = random.Random(f"{format_name} {number}")
    seed = seeds[number % len(seeds)]
    change = _FORMATS[format_name]
    tree: Tree = dict(seed.files)
    while tree == seed.files:  # some changes have no effect
        tree = change(rng, seed)
    return Mutated(seed.name, seed.ending, tree, seed.files)


def n_seeds(format_name: str) -> int:
    """How many seeds there are."""
    return len(seeds_of(format_name))


# ---------------------------------------------------------------- bytes


def mutated_bytes(rng: random.Random, content: bytes, head: int | None = None) -> bytes:
    """Make one to four changes at random places, most of them in the first ``head`` bytes unless ``head`` is None."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        content = rng.choice(_BYTE_CHANGES)(rng, bytearray(content), head) if content else bytes(rng.randrange(1, 64))
    return content


def _place(rng: random.Random, content: bytearray, head: int | None) -> int:
    near = head is not None and rng.random() < 0.8
    return rng.randrange(min(len(content), head) if near else len(content))


def _flip(rng: random.Random, content: bytearray, head: int | None) -> bytes:
    content[_place(rng, content, head)] ^= 1 << rng.randrange(8)
    return bytes(content)


def _overwrite(rng: random.Random, content: bytearray, head: int | None) -> bytes:
    start, size = _place(rng, content, head), rng.choice((1, 1, 2, 4, 8, 16))
    content[start : start + size] = bytes([rng.choice(INTERESTING_BYTES)]) * min(size, len(content) - start)
    return bytes(content)


def _overwrite_integer(rng: random.Random, content: bytearray, head: int | None) -> bytes:
    size = rng.choice((1, 2, 4, 8))
    start = _place(rng, content, head) // size * size
    integer = (rng.choice(INTERESTING_INTEGERS) % 2 ** (8 * size)).to_bytes(size, "little")
    content[start : start + size] = integer[: len(content) - start]
    return bytes(content)


def _insert(rng: random.Random, content: bytearray, head: int | None) -> bytes:
    start = _place(rng, content, head)
    content[start:start] = rng.randbytes(rng.choice((1, 2, 8, 64)))
    return bytes(content)


def _delete(rng: random.Random, content: bytearray, head: int | None) -> bytes:
    start = _place(rng, content, head)
    del content[start : start + rng.choice((1, 2, 8, 64))]
    return bytes(content)


def _duplicate(rng: random.Random, content: bytearray, head: int | None) -> bytes:
    start = _place(rng, content, head)
    content[start:start] = content[start : start + rng.choice((1, 8, 64, 512))]
    return bytes(content)


def _truncate(rng: random.Random, content: bytearray, head: int | None) -> bytes:
    return bytes(content[: _place(rng, content, head)])


def _extend(rng: random.Random, content: bytearray, head: int | None) -> bytes:
    return bytes(content) + rng.choice((bytes(1), rng.randbytes(7), bytes(64), bytes(content)))


def _swap_blocks(rng: random.Random, content: bytearray, head: int | None) -> bytes:
    size = rng.choice((1, 4, 8, 32))
    left, right = _place(rng, content, head), _place(rng, content, head)
    low, high = min(left, right), max(left, right)
    if high - low >= size and high + size <= len(content):
        content[low : low + size], content[high : high + size] = (
            content[high : high + size],
            content[low : low + size],
        )
    return bytes(content)


_BYTE_CHANGES: tuple[Callable[[random.Random, bytearray, int | None], bytes], ...] = (
    _flip,
    _flip,
    _overwrite,
    _overwrite_integer,
    _insert,
    _delete,
    _duplicate,
    _truncate,
    _extend,
    _swap_blocks,
)

# ---------------------------------------------------------------- formats


def _replaced(rng: random.Random, tree: Tree) -> Tree:
    """Replace one file of the tree by something other than a regular file."""
    return tree | {rng.choice(sorted(tree)): rng.choice(tuple(Special))}


def _change_npy(rng: random.Random, seed: Seed) -> Tree:
    if rng.random() < 0.01:
        return {"": rng.choice([special for special in Special if special is not Special.LINK_OUT])}
    return {"": mutated_npy(rng, seed.files[""])}


def mutated_npy(rng: random.Random, content: bytes) -> bytes:
    """A .npy file with another header, with other bytes, or of another array."""
    draw = rng.random()
    if draw < 0.4:
        return mutated_npy_header(rng, content)
    if draw < 0.6:
        return other_npy(rng)
    return mutated_bytes(rng, content, head=rng.choice((16, 128, None)))


def _change_zip(rng: random.Random, seed: Seed) -> Tree:
    content, draw = seed.files[""], rng.random()
    if draw < 0.45:
        return {"": mutated_archive(rng, content, mutated_npy)}
    if draw < 0.75:
        return {"": mutated_directory(rng, content)}
    return {"": mutated_bytes(rng, content)}


def _change_h5(rng: random.Random, seed: Seed) -> Tree:
    if rng.random() < 0.5:
        return {"": mutated_h5(rng, seed.files[""])}
    return {"": mutated_bytes(rng, seed.files[""], head=rng.choice((96, 1024, 4096, None)))}


def _change_folder(rng: random.Random, seed: Seed) -> Tree:
    """Change one file of a folder, or the folder itself."""
    tree: Tree = dict(seed.files)
    if rng.random() < 0.12:
        return _changed_members(rng, tree)
    documents = [name for name in sorted(tree) if _is_document(name)]
    name = rng.choice(documents if rng.random() < 0.65 else sorted(tree))
    content = _mutated_file(rng, name, seed.files[name])
    if b"pickle" in content or b"|O" in content:  # then its chunks are replaced by pickles
        folder = name.rpartition("/")[0]
        tree |= {other: PICKLE for other in tree if other.startswith(folder) and not _is_document(other)}
    return tree | {name: content}


def _is_document(name: str) -> bool:
    base = name.rpartition("/")[2]
    return base.endswith(".json") or base.startswith(".z")


def _mutated_file(rng: random.Random, name: str, content: bytes) -> bytes:
    draw = rng.random()
    if name.endswith(".jsonl") and draw < 0.7:
        lines = content.splitlines()
        place = rng.randrange(len(lines))
        lines[place] = resealed(rng, mutated_json(rng, lines[place]))
        return b"\n".join([*lines, b""])
    if name == "meta.json" and draw < 0.7:
        return resealed(rng, mutated_json(rng, content))
    if _is_document(name):
        return (
            mutated_json(rng, content)
            if draw < 0.7
            else replaced_number(rng, content)
            if draw < 0.85
            else mutated_bytes(rng, content)
        )
    if name.endswith(".npy"):
        return mutated_npy(rng, content)
    if draw < 0.05:
        return _bomb(content)
    return mutated_bytes(rng, content, head=rng.choice((16, None)))


def _bomb(content: bytes) -> bytes:
    """Many zeros in the compression of ``content``, if that is gzip or zlib; of Blosc a header that promises them."""
    if content[:2] == b"\x02\x01":
        return content[:2] + struct.pack("<BBiii", 2, 4, 2**28, 2**28, 2**28 + 16) + content[16:]
    if content[:2] not in (b"\x1f\x8b", b"\x78\x01"):
        return bytes(len(content))
    packer = zlib.compressobj(9, zlib.DEFLATED, 31 if content[:1] == b"\x1f" else 15)
    block = bytes(2**20)
    return b"".join(packer.compress(block) for _ in range(300)) + packer.flush()


def _changed_members(rng: random.Random, tree: Tree) -> Tree:
    name, other = rng.sample(sorted(tree), 2)
    draw = rng.randrange(8)
    if draw == 0:
        del tree[name]
    elif draw == 1:
        tree[name] = b""
    elif draw == 2:
        tree[name], tree[other] = tree[other], tree[name]
    elif draw == 3:
        tree[name] = tree[other]
    elif draw == 4:
        return _replaced(rng, tree)
    elif draw < 7:
        return _with_folder_elsewhere(rng, tree)
    else:
        tree["another file"] = rng.choice((b"", b"{}", Special.FIFO, Special.LINK_TO_ITSELF, Special.FOLDER))
    return tree


def _with_folder_elsewhere(rng: random.Random, tree: Tree) -> Tree:
    """The tree with an array of a .zarr under another name, or under a second one."""
    folders = sorted({name.partition("/")[0] for name in tree if "/" in name}) or ["."]
    source, target = rng.choice(folders), rng.choice((*folders, "data", "trace", "label", "unit", "axes", "sample"))
    copies = {target + name.removeprefix(source): tree[name] for name in tree if name.startswith(source + "/")}
    gone = (target + "/", source + "/") if rng.random() < 0.5 else target + "/"
    kept = {name: entry for name, entry in tree.items() if not name.startswith(gone)}
    return kept | copies


_FORMATS: dict[str, Callable[[random.Random, Seed], Tree]] = {
    "npy": _change_npy,
    "npz": _change_zip,
    "embedding": _change_zip,
    "zarr": _change_folder,
    "recording": _change_folder,
    "h5": _change_h5,
}
