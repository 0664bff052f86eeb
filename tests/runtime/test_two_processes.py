"""One random_state, device and dtype give the same bits in another process, whatever its clock, memory or hashes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ..pretend_gpu.environment import FOLDER_VARIABLE

# The trace is like a recording of human activity: many slices that drift, few units, converged in the end. On CUDA it
# has so many landmarks that a clock chooses the solvers of the eigenvalues and of the eigenpairs.
RUN = """
import sys
import numpy as np, torch
from mmphate_gpu import MMPHATE
out, device, n_slices, n_landmark, n_svd = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
steps = np.random.default_rng(0).normal(size=(n_slices, 6, 10)) / np.arange(1, n_slices + 1)[:, None, None] ** 0.5
op = MMPHATE(device=device, random_state=0, n_landmark=n_landmark, n_svd=n_svd)
op.fit(torch.from_numpy(np.cumsum(steps, axis=0).astype(np.float32)))
torch.save({"t": torch.tensor(op.t_), "landmark_op": op.landmark_op_, "embedding": op.embedding_}, out)
"""

PRETENDED = (150, 100, 30)  # for a GPU that the CPU pretends, and whose threads run one after the other


@pytest.mark.parametrize(
    ("device", "sizes"),
    [
        ("cpu", (80, 60, 20)),
        pytest.param("cuda", PRETENDED if FOLDER_VARIABLE in os.environ else (2000, 1500, 100), marks=pytest.mark.cuda),
    ],
    ids=str,
)
def test_two_processes_give_the_same_bits(device, sizes, tmp_path):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    # One after the other: two at once on a card would disturb each other's clocks.
    first, second = (_run(tmp_path / f"{seed}.pt", device, sizes, seed) for seed in (1, 2))
    assert first["embedding"].shape == (6 * sizes[0], 2) and first["landmark_op"].shape == (sizes[1],) * 2
    assert bool(first["embedding"].isfinite().all()) and int(first["t"]) > 1
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def _run(out: Path, device: str, sizes: tuple[int, ...], seed: int) -> dict[str, torch.Tensor]:
    """Each process with hashes of its own, so that no order of a set is the same by chance."""
    environment = os.environ | {"PYTHONHASHSEED": str(seed)}
    command = [sys.executable, "-c", RUN, str(out), device, *map(str, sizes)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return torch.load(out)
