"""The Triton twins in Triton's interpreter, on the CPU, against the portable versions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmphate_gpu._optional import available

from . import triton_cases
from .triton_cases import CASES, portable

pytestmark = pytest.mark.skipif(not available("triton"), reason="triton is not installed")

# Of the norm. An entry may round to the next half, or fall to the other side of the cut: measured 1.1e-5. Stored tiles
# differ in the order of float32 sums only: 1.8e-7.
TOLERANCE = {"gaussian_product": 4e-5, "tile_matmul": 1e-6}


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """All cases in one process of their own: Triton reads the environment when it is imported."""
    out = tmp_path_factory.mktemp("triton") / "out.pt"
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, triton_cases.__file__, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return torch.load(out)


@pytest.mark.parametrize("name", CASES)
def test_twin_and_portable_agree(name: str, interpreted: dict[str, torch.Tensor]) -> None:
    wanted, found = portable(name), interpreted[name]
    assert found.dtype == wanted.dtype == torch.float32 and found.shape == wanted.shape
    if "nothing" in name:
        assert not found.any() and not wanted.any()
        return
    op, make = CASES[name]
    assert float((found - wanted).norm() / wanted.norm()) < TOLERANCE[op]
    # And the sums are not those of some rows only.
    block = make()[-1]
    assert float((found != 0).float().mean()) > 0.5 * float((block != 0).float().mean())


def test_both_ways_to_distances_are_taken() -> None:
    """By products above 16 features, unless the points of a tile lie too far apart for half precision."""
    from mmphate_gpu.ops import _triton

    ways = {name: _triton._by_feature(*make()[:2])[2] for name, (op, make) in CASES.items() if op == "gaussian_product"}
    assert {name for name, split in ways.items() if split} == {
        "gaussian, by products",
        "gaussian, 32 features, panels",
    }
