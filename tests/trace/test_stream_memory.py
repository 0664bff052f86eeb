"""Large files stay on disk, and runs that read them take little memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import mmphate_gpu as mp
from mmphate_gpu.cli import main
from mmphate_gpu.trace import (
    as_trace,
    files,
    load_trace,
    save_trace,
    trace_points,
)
from mmphate_gpu.trace.contents import Contents
from mmphate_gpu.trace.pca import principal_axes

from .stored_files import FORMATS, streamed, values


def test_a_large_file_stays_on_disk(tmp_path, monkeypatch):
    for name, write in FORMATS.items():
        if name == ".zarr":
            pytest.importorskip("zarr")
        (tmp_path / name[1:3]).mkdir(exist_ok=True)
        path = write(tmp_path / name[1:3], False)
        needed = 4 * int(np.prod(files.heading(path).shape))
        monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", str(4 * needed - 4))
        assert streamed(load_trace(path)) and not streamed(load_trace(path, stream=False)), name
        monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", str(4 * needed))
        assert not streamed(load_trace(path)) and streamed(load_trace(path, stream=True)), name


MEASURE = """
import sys
from pathlib import Path
import numpy as np
import mmphate_gpu as mp
from mmphate_gpu.cli import main

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024

mp.MMPHATE(random_state=0, device="cpu").fit(np.random.default_rng(0).normal(size=(30, 4, 10)).cumsum(0))
before = peak()
code = main(["embed", sys.argv[1], "--out", sys.argv[2], "--n-landmark=100", "--no-plots", "--device=cpu"])
print(peak() - before)
sys.exit(code)
"""


def embed_peak(path: Path, limit: float) -> int:
    """Bytes that ``embed`` adds to a process that has embedded a small trace before."""
    env = os.environ | {"MMPHATE_GPU_MEMORY_LIMIT": str(limit), "OMP_NUM_THREADS": "1"}
    env["PYTHONPATH"] = os.pathsep.join([str(Path(mp.__file__).parent.parent), env.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", MEASURE, str(path), str(path.with_suffix(".out"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1])


def write_walk(path: Path, n_slices: int, n_units: int, n_samples: int) -> None:
    """A walk of the units on a curve in sample space, written slice by slice."""
    shape = (n_slices, n_units, n_samples)
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    base = np.random.default_rng(0).normal(size=(3, *shape[1:])).astype(np.float32)
    for i in range(n_slices):
        out[i] = np.cos(i / 15) * base[0] + np.sin(i / 25) * base[1] + np.cos(i / 7) * base[2]


def ceiling(n_nodes: int, n_samples: int) -> int:
    """What a run read block by block may add, in bytes: loadings, blocks, and square matrices of the nodes.

    Loadings (D, 100) in float64 three times (the product, its QR, LAPACK's copy); eight blocks of 32 MiB (values and
    two temporaries in float32, points, centered points and their products in float64); the Gram matrix, its
    eigenvectors and LAPACK's two copies; 64 MiB for the stages after the PCA and for the allocator.
    """
    return 3 * 8 * 100 * n_samples + 8 * 2**25 + 4 * 8 * n_nodes**2 + 2**26


LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="VmHWM is Linux's")


@LINUX
def test_embed_of_a_file_above_the_limit_stays_small(tmp_path):
    write_walk(tmp_path / "a.npy", 50, 20, 50_000)  # 200 MB, in float64 400 MB; from memory a run adds 512 MB
    assert embed_peak(tmp_path / "a.npy", 6e8) < ceiling(1000, 50_000) < 0.9e9


@LINUX
@pytest.mark.slow
def test_embed_of_a_large_file_stays_small(tmp_path):
    write_walk(tmp_path / "a.npy", 100, 20, 187_500)  # 1.5 GB, in float64 3 GB
    assert embed_peak(tmp_path / "a.npy", 2e9) < ceiling(2000, 187_500) < 1e9


def test_the_command_line_gives_the_same_embedding_block_by_block(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_trace("a.npz", as_trace(values((10, 3, 5, 400)), label=np.arange(400) % 4))
    argv = ["embed", "a.npz", "--n-landmark=40", "--no-plots", "--device=cpu", "--out"]
    assert main([*argv, "memory"]) == 0
    used = []
    plain = Contents.stored
    monkeypatch.setattr(Contents, "stored", lambda contents: (used.append(contents.path), plain(contents))[1])
    monkeypatch.setattr("mmphate_gpu.trace.files.STREAM_SHARE", 1e-9)
    assert main([*argv, "parts"]) == 0 and len(used) == 1
    from_memory, from_file = (mp.Embedding.load(f"{out}/embedding.npz") for out in ("memory", "parts"))
    assert np.array_equal(from_memory.coordinates, from_file.coordinates) and np.array_equal(
        from_memory.most_active, from_file.most_active
    )
    assert main(["plan", "a.npz"]) == 0 and len(used) == 2


def test_the_plan_counts_no_trace_that_goes_block_by_block():
    """1.5 GB of values: more than a quarter of a 4 GB card, less than one of an 8 GB card."""
    small, large = (mp.plan((100, 20, 187_500), device=f"{size} GB card", n_landmark=100) for size in (4, 8))
    assert small.fits and large.peak_bytes - small.peak_bytes == 100 * 20 * 187_500 * 4


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_is_given_one_block_at_a_time(tmp_path):
    np.save(tmp_path / "a.npy", values((40, 8, 200_000)))
    held = load_trace(tmp_path / "a.npy", stream=False)
    trace = load_trace(tmp_path / "a.npy", stream=True).to(torch.device("cuda", 0))
    torch.cuda.reset_peak_memory_stats()
    start = torch.cuda.memory_allocated()
    lazy = trace_points(trace, n_pca=10).points
    assert torch.cuda.max_memory_allocated() - start < 8 * 2**25 < trace.nbytes * 2
    in_memory = trace_points(held, n_pca=10).points
    theirs, ours = principal_axes(lazy, 10).scores(lazy).cpu(), principal_axes(in_memory, 10).scores(in_memory)
    assert (theirs - ours)[..., :3].abs().max() < 1e-8 * ours.abs().max()
