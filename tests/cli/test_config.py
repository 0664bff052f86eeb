"""What `mmphate-gpu config` reports, in a process that has imported nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mmphate_gpu
from mmphate_gpu.ops.launch import native

OPS = {
    "csr_matmul", "descent_step", "guttman_transform", "kth_neighbor_distance", "landmark_aggregate",
    "median_kth_neighbor_distance", "radius_counts", "radius_fill", "symmetrized_affinity",
}  # fmt: skip
TRITON_OPS = {
    "assign_nearest", "gaussian_product", "tile_block", "tile_entries", "tile_matmul", "tile_reached", "tile_rows",
}  # fmt: skip


def config(**env: str) -> list[str]:
    env = {**os.environ, "PYTHONPATH": str(Path(mmphate_gpu.__file__).parents[1]), **env}
    command = [sys.executable, "-m", "mmphate_gpu", "config"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def after(lines: list[str], start: str) -> str:
    (line,) = [line for line in lines if line.strip().startswith(start)]
    return line.strip().removeprefix(start)


def listed(lines: list[str], start: str = "ops with twins on cuda: ") -> set[str]:
    """The ops, in the one line below what serves them."""
    (at,) = [i for i, line in enumerate(lines) if line.strip().startswith(start)]
    return set(lines[at + 1].strip().split(", "))


def test_every_op_is_listed_in_a_fresh_process():
    lines = config()
    assert listed(lines) == OPS
    assert listed(lines, "ops with twins on cpu: ") == OPS - {"descent_step"} | {"assign_nearest"}
    assert listed(lines, "ops of Triton on cuda: ") == TRITON_OPS
    if native.why_no_native() is None:
        assert after(lines, "ops with twins on cpu: ") == f"C++ ({native.isa()})"
        assert after(lines, "neighbors, auto on cpu: ") == "native ops"


def test_nothing_native_is_claimed_where_it_is_switched_off():
    lines = config(MMPHATE_GPU_NATIVE="0", CUDA_VISIBLE_DEVICES="")
    assert after(lines, "ops with twins on cpu: ") == "portable torch (MMPHATE_GPU_NATIVE=0 in the environment)"
    assert after(lines, "neighbors, auto on cpu: ") == "torch"
    assert after(lines, "ops of Triton on cuda: ").startswith("portable torch (MMPHATE_GPU_NATIVE=0")
    assert not any("native ops" in line or "native product" in line or "C++ (" in line for line in lines)
    assert listed(lines) == OPS
