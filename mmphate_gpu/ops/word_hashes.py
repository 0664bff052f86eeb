"""Hashes of the bits of a tensor, computed on its device: a digest of gigabytes copies megabytes to the host."""

from __future__ import annotations

from functools import cache

import torch
from torch.nn.functional import pad

WIDTH = 4096  # words of a pair of hashes
# Words at a time. On a CPU the products of 2^16 words stay in the cache; on a GPU few launches matter more.
AT_ONCE, AT_ONCE_ON_GPU = 2**16, 2**22


def word_hashes(tensor: torch.Tensor) -> torch.Tensor:  # -> (ceil(words / WIDTH), 2) int64, on the tensor's device
    """Two 64-bit hashes of every `WIDTH` words of 32 bits of ``tensor``, in the order of its elements.

    A hash is the sum modulo 2^64 of the words, each times an odd random 64-bit number of its place. Sums of integers
    are the same on every device and for every chunk size. A change of a single word always changes the hash. Two rows
    that differ in more words have equal hashes with a probability of at most 2^-64, unless they were made from the
    random numbers. Zeros at the end change nothing. O(n) time, bounded chunks. Source of the family:
    Carter and Wegman, "Universal classes of hash functions", 1979; of its form: Lemire and Kaser, "Strongly universal
    string hashing is fast", 2014.
    """
    data = tensor.contiguous().view(-1).view(torch.uint8)
    if data.numel() % 4 or data.storage_offset() % 4:  # not a number of whole words, or not aligned to words
        data = pad(data, (0, -data.numel() % 4))  # a copy
    words = data.view(torch.int32)
    keys = _keys().to(words.device)
    parts = words.split(AT_ONCE if words.device.type == "cpu" else AT_ONCE_ON_GPU)
    return torch.cat([_of_rows(row, keys) for part in parts for row in _whole_rows(part)])


def _whole_rows(words: torch.Tensor) -> list[torch.Tensor]:  # (n,) -> (rows, WIDTH), (1, the rest)
    whole = words.numel() // WIDTH * WIDTH
    return [part for part in (words[:whole].view(-1, WIDTH), words[None, whole:]) if part.numel() > 0]


def _of_rows(words: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:  # (rows, w), (2, WIDTH) -> (rows, 2)
    words = words.long()
    return torch.stack([(words * lane[: words.shape[1]]).sum(-1) for lane in keys], -1)


@cache
def _keys() -> torch.Tensor:  # (2, WIDTH) int64, odd; the same in every process
    generator = torch.Generator("cpu").manual_seed(0x6D6D7068617465)
    return torch.randint(-(2**63), 2**63 - 1, (2, WIDTH), generator=generator, device="cpu") | 1
