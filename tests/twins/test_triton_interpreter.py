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

from .triton_cases import CASES, NEAREST, portable

pytestmark = pytest.mark.skipif(not available("triton"), reason="triton is not installed")

# Errors as a share of the norm.
# - gaussian_product: an entry may round to the next half precision number, or fall to the other side of the cut.
#   Measured: 4.0e-5 for wide tiles by products, 1.1e-5 for others.
# - tile_entries: an entry may round to the next half precision number. Measured: 7.2e-7, for nine of 100,000 entries.
# - tile_matmul: sums have another order. Measured: 1.8e-7.
# - tile_block has the same bits. tile_rows adds entries in another order. Measured: 5e-8 in float32.
TOLERANCE = {
    **{"gaussian_product": 1e-4, "tile_entries": 4e-5, "tile_matmul": 1e-6, "tile_reached": 0.0},
    **{"tile_block": 0.0, "tile_rows": 1e-6},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """The output of `triton_cases`, in another process, because Triton reads the environment when it is imported."""
    out = tmp_path_factory.mktemp("triton") / "out.pt"
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-m", "tests.twins.triton_cases", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if "only 0-dimensional arrays can be converted to Python scalars" in done.stderr:
        pytest.skip("the interpreter of this Triton needs a NumPy before 2.5")  # Triton 3.6 does, 3.7 does not
    assert done.returncode == 0, done.stderr
    return torch.load(out)


@pytest.fixture(scope="module")
def interpreted(run: dict[str, dict]) -> dict[str, torch.Tensor]:
    return run["results"]


@pytest.mark.parametrize("name", CASES)
def test_twin_and_portable_agree(name: str, interpreted: dict[str, torch.Tensor]) -> None:
    expected, result = portable(name), interpreted[name]
    assert result.dtype == expected.dtype and result.shape == expected.shape
    assert bool(expected.any()) == ("nothing" not in name)
    assert relative_error(result, expected) <= TOLERANCE[CASES[name][0]]
    if "entries" in name:
        assert torch.equal(result != 0, expected != 0)
        # An entry is off by the next half precision number at most.
        assert torch.equal(result.clamp(expected * (1 - 2.0**-10), expected * (1 + 2.0**-10)), result)


def relative_error(result: torch.Tensor, expected: torch.Tensor) -> float:
    return float((result.double() - expected.double()).norm() / expected.double().norm().clamp_min(1e-300))


def test_distances_by_differences_and_by_products_occur() -> None:
    """Distances come from products above 16 features, unless a tile is too wide for split coordinates."""
    centers = {name: make()[1] for name, (op, make) in CASES.items() if op == "gaussian_product"}
    assert {name for name, points in centers.items() if points is not None} == {
        "gaussian, by products",
        "gaussian, wide tiles by products",
        "gaussian, 32 features, panels",
    }


def test_float64_where_it_is_needed(run: dict[str, dict]) -> None:
    """Float64 decides pairs whose distance nearly equals the reach, and all where float32 has no bound.

    A tile has four blocks of pairs.
    """
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
        "entries, masked, at the reach": 8,
        "reached, masked, at the reach": 2,
        "reached, masked, just not": 2,
        "entries, masked, far away": 5,
        "entries, masked, wide tiles": 6,
    }


def assert_nearest(result: tuple[torch.Tensor, torch.Tensor], points: torch.Tensor, centers: torch.Tensor) -> None:
    """Each label is that of a nearest center up to the rounding of squared norms, and no square is below 0 or NaN."""
    labels, squared = (part.cpu() for part in result)
    assert labels.dtype == torch.int64 and squared.dtype == points.dtype
    distances = torch.cdist(points.double(), centers.double(), compute_mode="donot_use_mm_for_euclid_dist").square()
    of_labels = distances.gather(-1, labels[..., None])[..., 0]
    # As a share of the squares that are subtracted. Measured: 2.7e-7 in float32.
    rounding = 2e-6 * float(points.double().square().sum(-1).max() + centers.double().square().sum(-1).max())
    assert bool((squared >= 0).all()) and float((squared.double() - of_labels).abs().max()) <= rounding
    assert float((of_labels - distances.amin(-1)).max()) <= 2 * rounding


def test_the_probe_starts_what_a_fit_does(run: dict[str, dict]) -> None:
    """The probe starts every op. Around a product it has a float32 block, as for landmarks, and a float64 column."""
    assert {op for op, *_ in run["probed"]} == set(TRITON.launchers)
    around = [line for line in run["probed"] if line[0] in ("tile_block", "tile_rows")]
    assert [line for line in around if line[0] == "tile_rows"] == [
        ("tile_rows", "torch.float32", "torch.float32", 128),  # sums, block
        ("tile_rows", "torch.float32", "torch.float64", 1),
    ]
    assert [line[1] for line in around if line[0] == "tile_block"] == ["torch.float32", "torch.float64"]


@pytest.mark.parametrize("name", NEAREST)
def test_nearest_centers(name: str, interpreted: dict[str, torch.Tensor]) -> None:
    arguments = NEAREST[name]()
    assert_nearest(interpreted[name], *arguments)
    assert_nearest(PORTABLE["assign_nearest"](*arguments), *arguments)
