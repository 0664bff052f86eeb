"""The hash that distinguishes traces: it notices every change, and only the bits count."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmphate_gpu import as_trace
from mmphate_gpu.ops import word_hashes as module
from mmphate_gpu.ops.word_hashes import WIDTH, word_hashes
from mmphate_gpu.trace.fingerprint import fingerprint

DTYPES = [torch.float32, torch.float64]
SHAPE = (3, 2, 5, 400)


def normal(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def by_python(tensor: torch.Tensor) -> list[list[int]]:
    """The definition, in integers of any size."""
    data = np.ascontiguousarray(tensor.numpy()).tobytes()
    words = np.frombuffer(data + bytes(-len(data) % 4), np.int32).tolist()
    keys = module._keys().tolist()
    rows = [words[start : start + WIDTH] for start in range(0, len(words), WIDTH)]
    sums = [[sum(w * k for w, k in zip(row, lane, strict=False)) % 2**64 for lane in keys] for row in rows]
    return [[total - 2**64 if total >= 2**63 else total for total in pair] for pair in sums]


@pytest.mark.parametrize("at_once", [2**16, WIDTH])
@pytest.mark.parametrize("n", [1, WIDTH - 1, WIDTH, WIDTH + 1, 3 * WIDTH + 7])
@pytest.mark.parametrize("dtype", [*DTYPES, torch.bool], ids=str)
def test_against_the_definition(n, dtype, at_once, device, monkeypatch):
    """Overflow wraps around, and neither chunks nor devices change the hashes."""
    monkeypatch.setattr(module, "AT_ONCE", at_once)
    monkeypatch.setattr(module, "AT_ONCE_ON_GPU", at_once)
    tensor = normal(n) > 0 if dtype == torch.bool else normal(n, dtype=dtype)
    assert word_hashes(tensor.to(device)).tolist() == by_python(tensor)


def test_a_view_is_hashed_in_its_own_order():
    square = normal(70, 70)
    assert torch.equal(word_hashes(square.T), word_hashes(square.T.contiguous()))
    assert not torch.equal(word_hashes(square.T), word_hashes(square))


@pytest.mark.parametrize("first", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float16], ids=str)
def test_a_view_may_begin_within_a_word(dtype, first, device):
    """Tensors of whole words, and others."""
    whole = (40 * normal(200).abs()).to(dtype).to(device)
    for last in (first + 100, first + 99):
        part = whole[first:last]
        assert part.storage_offset() == first
        assert word_hashes(part).tolist() == by_python(part.cpu())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_single_bit_counts(dtype):
    """Whichever bit of whichever word is flipped, one row of hashes changes, in both columns."""
    tensor = normal(WIDTH, dtype=dtype)
    bits, before = tensor.view(torch.int32), word_hashes(tensor)
    for bit in range(32):
        for place in (0, 1, WIDTH // 2, bits.numel() - 1):
            bits[place] ^= -(2**31) if bit == 31 else 2**bit
            assert ((word_hashes(tensor) != before).sum(0) == 1).all(), (bit, place)
            bits[place] ^= -(2**31) if bit == 31 else 2**bit
    assert torch.equal(word_hashes(tensor), before)


# ---------------------------------------------------------------- the hash of a trace


def two_swapped(data: torch.Tensor) -> torch.Tensor:
    data[0, 0, 0, 3], data[2, 1, 4, 5] = data[2, 1, 4, 5].item(), data[0, 0, 0, 3].item()
    return data


CHANGES = {
    "epochs turned round": lambda x: x.flip(0),
    "steps swapped": lambda x: x.flip(1),
    "units permuted": lambda x: x[:, :, [1, 0, 2, 4, 3]],
    "samples turned round": lambda x: x.flip(3),
    "two slices swapped that hash in different rows": lambda x: x.flatten(0, 1)[[5, 1, 2, 3, 4, 0]].view(SHAPE),
    "two values swapped": two_swapped,
    "all signs": lambda x: -x,
    "two signs": lambda x: x * (1 - 2 * (torch.arange(400) < 2)),
    "a zero's sign": lambda x: torch.where(x == 0, -0.0, x),
    "the last place": lambda x: x + torch.where(torch.arange(400) == 7, 3e-16, 0.0) * x,
    "twice": lambda x: 2 * x,
    "a sample of zeros more": lambda x: torch.nn.functional.pad(x, (0, 1)),
    "an epoch of zeros more": lambda x: torch.cat([x, torch.zeros_like(x[:1])]),
    "other axes": lambda x: x.reshape(2, 3, 5, 400),
    "units as samples": lambda x: x.reshape(3, 2, 400, 5),
    "float32": lambda x: x.float(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_noticed(change):
    data = normal(*SHAPE)
    data[1, 1, 1, 1] = 0
    changed = CHANGES[change](data.clone())
    assert changed.shape != data.shape or changed.dtype != data.dtype or not _same_bits(changed, data)
    before = fingerprint(as_trace(data))
    assert fingerprint(as_trace(changed)) != before == fingerprint(as_trace(data.clone()))


def _same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    return torch.equal(first.view(torch.int64), second.view(torch.int64))


def test_the_mask_counts_and_what_is_under_it():
    """A masked NaN is equal to itself here."""
    data = normal(*SHAPE)
    data[0, 0, 0, 3] = float("nan")
    mask = ~data.isnan()
    before = fingerprint(as_trace(data, mask=mask))
    assert fingerprint(as_trace(data.clone(), mask=mask.clone())) == before
    assert fingerprint(as_trace(data.nan_to_num(), mask=mask)) != before
    other = mask.clone()
    other[2, 1, 4, -1] = False
    assert fingerprint(as_trace(data, mask=other)) != before
    whole = as_trace(data.nan_to_num())
    # A mask that hides nothing is no mask.
    assert fingerprint(replace(whole, mask=torch.ones(SHAPE, dtype=torch.bool))) == fingerprint(whole)


def test_strides_do_not_count():
    data = normal(*SHAPE)
    transposed = data.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    assert fingerprint(as_trace(transposed)) == fingerprint(as_trace(data))


def test_ten_thousand_traces_have_as_many_digests():
    """Each trace differs from the first in a bit of two words, for which sums of products cancel most easily."""
    data = torch.zeros(1, 2, 1, 5000, dtype=torch.float32)
    bits, seen = data.view(-1).view(torch.int32), set()
    for i in range(10_000):
        places = [i % 100, 200 + i // 100]
        bits[places] = -(2**31)  # -0.0
        seen.add(tuple(word_hashes(data).flatten().tolist()))
        bits[places] = 0
    assert len(seen) == 10_000


def test_another_process_has_the_same_numbers():
    script = "import torch; from mmphate_gpu.ops.word_hashes import *; print(word_hashes(torch.arange(9.0)).tolist())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(word_hashes(torch.arange(9.0)).tolist())
