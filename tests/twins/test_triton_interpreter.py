"""The Triton twins in Triton's interpreter, on the CPU, against the portable versions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmphate_gpu.ops.launch.twins import PORTABLE, TRITON
from mmphate_gpu.runtime.optional import available

from . import triton_cases
from .triton_cases import CASES, NEAREST, portable

pytestmark = pytest.mark.skipif(not available("triton"), reason="triton is not installed")

# Of the norm. An entry made on the fly may round to the next half, or fall to the other side of the cut: measured
# 4.0e-5 (wide tiles by products; others 1.1e-5). Stored ones may round to the next half too, by the exponential (here
# not at all) or by a float32 distance (7.2e-7, of 100,000 nine); their products differ in the order of sums: 1.8e-7.
# The pass into a product has the same bits. The pass out of it adds entries in another order: 5e-8 in float32.
TOLERANCE = {
    **{"gaussian_product": 1e-4, "tile_entries": 4e-5, "tile_matmul": 1e-6, "tile_reached": 0.0},
    **{"tile_block": 0.0, "tile_rows": 1e-6},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """All cases in one process of their own: Triton reads the environment when it is imported."""
    out = tmp_path_factory.mktemp("triton") / "out.pt"
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, triton_cases.__file__, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if "only 0-dimensional arrays can be converted to Python scalars" in done.stderr:
        pytest.skip("the interpreter of this Triton needs a NumPy before 2.5")  # Triton 3.6 does, 3.7 does not
    assert done.returncode == 0, done.stderr
    return torch.load(out)


@pytest.fixture(scope="module")
def interpreted(run: dict[str, dict]) -> dict[str, torch.Tensor]:
    return run["found"]


@pytest.mark.parametrize("name", CASES)
def test_twin_and_portable_agree(name: str, interpreted: dict[str, torch.Tensor]) -> None:
    wanted, found = portable(name), interpreted[name]
    assert found.dtype == wanted.dtype and found.shape == wanted.shape
    assert bool(wanted.any()) == ("nothing" not in name)
    assert relative_error(found, wanted) <= TOLERANCE[CASES[name][0]]
    if "entries" in name:
        assert torch.equal(found != 0, wanted != 0)
        # The next half, at most.
        assert torch.equal(found.clamp(wanted * (1 - 2.0**-10), wanted * (1 + 2.0**-10)), found)


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm().clamp_min(1e-300))


def test_both_ways_to_distances_are_taken() -> None:
    """By products above 16 features, unless a tile is too wide for split coordinates."""
    centers = {name: make()[1] for name, (op, make) in CASES.items() if op == "gaussian_product"}
    assert {name for name, given in centers.items() if given is not None} == {
        "gaussian, by products",
        "gaussian, wide tiles by products",
        "gaussian, 32 features, panels",
    }


def test_float64_where_it_is_needed(run: dict[str, dict]) -> None:
    """For pairs at the reach to the last digits, and where float32 has no bound; a tile has four blocks of pairs."""
    blocks = {name: n for name, n in run["in_double"].items() if CASES[name][0] in ("tile_reached", "tile_entries")}
    assert {name: n for name, n in blocks.items() if n} == {
        "entries, of duplicates only": 2,  # a pair of tiles that share a point, both ways
        "reached, nothing": 6,
        "entries, wide tiles": 12,
        "entries, little of much": 16,
        "entries, at the reach": 8,
        "entries, out of range": 12,
        "reached, little of much": 5,
        "reached, at the reach": 2,
        "reached, just not": 2,
        "reached, out of range": 5,
    }


def assert_nearest(found: tuple[torch.Tensor, torch.Tensor], points: torch.Tensor, centers: torch.Tensor) -> None:
    """Each label is that of a nearest centre, to the rounding of squared norms; nothing is below 0 or not a number."""
    labels, squared = (part.cpu() for part in found)
    assert labels.dtype == torch.int64 and squared.dtype == points.dtype
    distances = torch.cdist(points.double(), centers.double(), compute_mode="donot_use_mm_for_euclid_dist").square()
    own = distances.gather(-1, labels[..., None])[..., 0]
    # Of the squares that are subtracted. Measured: 2.7e-7 in float32.
    rounding = 2e-6 * float(points.double().square().sum(-1).max() + centers.double().square().sum(-1).max())
    assert bool((squared >= 0).all()) and float((squared.double() - own).abs().max()) <= rounding
    assert float((own - distances.amin(-1)).max()) <= 2 * rounding


def test_the_probe_starts_what_a_fit_does(run: dict[str, dict]) -> None:
    """Every kernel; around a product the float32 blocks of the landmarks, and the float64 column of the row sums."""
    assert {op for op, *_ in run["probed"]} == set(TRITON.launchers)
    around = [line for line in run["probed"] if line[0] in ("tile_block", "tile_rows")]
    assert [line for line in around if line[0] == "tile_rows"] == [
        ("tile_rows", "torch.float32", "torch.float32", 128),  # sums, block
        ("tile_rows", "torch.float32", "torch.float64", 1),
    ]
    assert [line[1] for line in around if line[0] == "tile_block"] == ["torch.float32", "torch.float64"]


@pytest.mark.parametrize("name", NEAREST)
def test_nearest_centres(name: str, interpreted: dict[str, torch.Tensor]) -> None:
    arguments = NEAREST[name]()
    assert_nearest(interpreted[name], *arguments)
    assert_nearest(PORTABLE["assign_nearest"](*arguments), *arguments)
