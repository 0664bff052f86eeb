"""What products, sums and conversions of the matrix-free and the tiled form take beside their results."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from mmphate_gpu.ops.launch.twins import serves

MEMORY_SCRIPT = """
import psutil, torch
from mmphate_gpu.affinities import Interslice, intraslice_affinity
from mmphate_gpu.operators import LazyAffinity, TiledAffinity
from mmphate_gpu.operators.lazy_fused import LazyFusedAffinity
from mmphate_gpu.slices import unit_major

def peak():  # bytes. Not getrusage: on Linux a process inherits the peak of the one that started it
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

torch.set_num_threads(1)  # two spin against each other where other tests run beside
def make(n_slices, n_units):
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(n_slices, n_units, 5, dtype=torch.float64, generator=generator)
    bandwidth = torch.tensor({bandwidth}, dtype=torch.float64)
    interslice = Interslice(unit_major(points), bandwidth, 1e-4)
    return LazyAffinity(intraslice_affinity(points, dtype=torch.float32), interslice)

small = make(64, 6)  # the libraries' own buffers come with the first use
small @ torch.ones(384, 16); small.row_sums(); small.aggregate(torch.arange(384) % 9, 9); small.to_csr()
lazy = make({n_slices}, 6)
n = lazy.shape[0]
before = psutil.Process().memory_info().rss
{action}
print(peak() - before)
"""


MIB = 2**20
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")


def growth_of(action: str, n_slices: int, bandwidth: float = 0.1) -> int:
    """Bytes from those held before ``action`` to the peak of a fresh process; tracemalloc does not see torch's."""
    script = textwrap.dedent(MEMORY_SCRIPT)
    for name, value in {"action": action, "n_slices": n_slices, "bandwidth": bandwidth}.items():
        script = script.replace("{" + name + "}", str(value))
    # glibc gives blocks above this back at once; what it would keep for later changes from run to run.
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**16)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@needs_proc
@pytest.mark.parametrize(
    ("action", "n_slices", "bandwidth", "ceiling", "portable_ceiling"),
    [
        # 6 x 6000 x 6000 distances are 1.7 GB in float64. Rows are made 2^18 entries at a time: 2 MiB, with their
        # offsets, counts and gaps (36,000 x 8 bytes, 0.3 MiB) less than 4; the 36,000 x 16 sides and the product are
        # 2.2 MiB each, row sums in float64 another 2 MiB of entries. Measured: 15 MiB. Portable: a block of 2^21
        # distances is 16 MiB, its mask 2, and the entries actual have eight lists of 8 bytes: 38 MiB.
        ("lazy @ torch.ones(n, 16); lazy.row_sums()", 6000, 0.1, 24 * MIB, 60 * MIB),
        # 36,000 x 1000 sums are 275 MiB in float64 if dense; there are 36,000 x 13 of 8 bytes: 3.6 MiB in pieces and
        # again in one. Measured: 13 MiB, and 37 with the portable blocks.
        ("lazy.aggregate(torch.arange(n) % 1000, 1000)", 6000, 0.1, 24 * MIB, 60 * MIB),
        # Bandwidth 0.8: three pairs in ten are entries, 28 million or 224 MB. A sixteenth of them is 13.4 MiB, and the
        # rows before are let go when the next ones are there: 27 MiB, and 1.5 MiB for either side. Measured: 30 MiB.
        # Portable: a block of 2^21 pairs has 6e5 entries, each with its row, column, set, place, ... in 8 bytes, a
        # dozen lists of 5 MiB beside the 16 MiB of distances: 87 MiB.
        ("lazy @ torch.ones(n, 16)", 4000, 0.8, 45 * MIB, 130 * MIB),
        # Its counts: 24,000 x 8 bytes, and the points of one set. Measured: 1.3 MiB, and 18 by a block of distances.
        ("lazy.interslice.counts", 4000, 0.8, 5 * MIB, 30 * MIB),
    ],
    ids=["product", "aggregate", "product of many entries", "counts"],
)
def test_lazy_memory_stays_at_a_few_blocks(action, n_slices, bandwidth, ceiling, portable_ceiling):
    growth = growth_of(action, n_slices, bandwidth)
    print(f"{action}: {growth / MIB:.0f} MiB")
    assert growth < (ceiling if serves(torch.device("cpu")) else portable_ceiling)


@needs_proc
def test_assembly_holds_nothing_twice():
    """To CSR: the result, and beside it a few blocks, but no second list of its entries."""
    # Bandwidth 0.8: 224 MB of entries; a list of them in int64 and float64 would be 448 MB. Measured: 7 MiB (offsets,
    # counts and gaps of 24,000 rows, and the intraslice entries of all of them in int64). Portable: a dozen lists of
    # the 6e5 entries of one block of 2^21 pairs, 8 bytes each, are 60 MB, beside the 16 MiB of its distances: 62 MiB.
    action = (
        "csr = lazy.to_csr(); size = sum(part.nbytes for part in csr[:3]); assert size > 200e6, size; before += size"
    )
    growth = growth_of(action, 4000, bandwidth=0.8)
    print(f"assembly beyond the result: {growth / MIB:.0f} MiB")
    assert growth < (20 if serves(torch.device("cpu")) else 110) * MIB


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize(
    ("action", "ceiling"),
    [
        # 3000 slices of each of 6 units are 24 x 24 tiles, all of them active, of which the 300 on the diagonal and
        # above are stored: 1,800 of 32 KiB, 56 MiB. They are made 128 at a time: 2^21 distances in float64, over the
        # bandwidth, and squared (16 MiB each), in float32 (8 MiB). A product takes 128 in float32, 8 MiB, those to be
        # transposed once more, and less for its blocks: 18,000 x 16 of 8 bytes are 2 MiB. Measured: 56 MiB beyond the
        # tiles.
        (
            "tiled = TiledAffinity(lazy.intraslice, lazy.interslice)\n"
            "size = tiled.tiles.nbytes; assert size == 1800 * 2**15, size\n"
            "tiled @ torch.ones(n, 16); before += size",
            80 * MIB,
        ),
        # Matrix-free: none of them, distances in float32 (8 MiB), entries, and masks of 2 MiB. Measured: 31 MiB, those
        # of the search for active tiles (16 MiB of distances) among them.
        (
            "LazyFusedAffinity(lazy.intraslice, lazy.interslice) @ torch.ones(n, 16)",
            50 * MIB,
        ),
    ],
    ids=["tiles", "fused"],
)
def test_tiles_are_held_once(action, ceiling):
    growth = growth_of(action, 3000, bandwidth=0.8)
    print(f"{action}: {growth / MIB:.0f} MiB")
    assert growth < ceiling
