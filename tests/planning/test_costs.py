"""The predicted bytes of a run, of its stages and of the forms of the affinity, against what is measured."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import mmphate_gpu as mm
from mmphate_gpu import MMPHATE, as_trace, plan
from mmphate_gpu.linalg.symmetric_power import most_powers
from mmphate_gpu.operators import SparseAffinity, TiledAffinity
from mmphate_gpu.operators.multislice import affinity_of_points
from mmphate_gpu.params import Params
from mmphate_gpu.planning import costs
from mmphate_gpu.planning.costs import Costs, Machine
from mmphate_gpu.trace import normalize

HAR = (127, 128, 30, 6)
CLEAR = Path("/proc/self/clear_refs")
ROOT = str(Path(mm.__file__).resolve().parents[1])


def walk(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).cumsum(0)


# ---------------------------------------------------------------- the peak, predicted and measured


MEASURE = """
import ctypes, gc, json, sys
from pathlib import Path
import torch, mmphate_gpu as mm
from mmphate_gpu import MMPHATE
from mmphate_gpu.runtime.memory_use import held_bytes, peak_bytes
device, (made, options) = torch.device("cpu"), json.loads(sys.argv[1])
torch.set_num_threads(1)
trace = mm.as_trace(getattr(mm.datasets, made[0])(*made[1:]))
gc.collect()
if hasattr(ctypes.CDLL(None), "malloc_trim"):  # else the run takes memory that the imports have left
    ctypes.CDLL(None).malloc_trim(0)
held = held_bytes(device)
planned = mm.plan(trace, device=device, **options)
Path("/proc/self/clear_refs").write_text("5")
op = MMPHATE(device=device, random_state=0, **options).fit(trace)
of_shape = mm.plan(trace.data, device=device, **options).peak_bytes
form = type(op.affinity_).__name__
print(json.dumps([held, planned.peak_bytes, peak_bytes(device), form, planned.storage, of_shape]))
"""


MEASURED = {
    "sparse": (["random_walk", 800, 10, 8], {"n_landmark": 1000}),
    "lazy": (["bifurcation", "hopf", 30, 40], {"n_landmark": 800, "storage": "lazy"}),
}


# Traces of so many independent units that the shape alone predicts the peak.
UNITS = {
    "1000 units": (["random_walk", 6, 1000, 20], {}),
    "1000 units, many samples": (["random_walk", 20, 1000, 50], {}),
    "2000 units": (["random_walk", 6, 2000, 30], {"n_landmark": 1000}),
}


SLOW = {
    "no landmarks": (["random_walk", 200, 12, 8], {"n_landmark": None}),
    "many landmarks": (["random_walk", 300, 20, 8], {"n_landmark": 1500}),
    "few landmarks": (["bifurcation", "hopf_pitchfork", 70, 70], {"n_landmark": 200, "storage": "sparse"}),
    "wide": (["random_walk", 1000, 30, 8], {"n_landmark": 400}),
    "few vectors": (["bifurcation", "hopf", 101, 80], {"n_landmark": 2000, "n_svd": 50, "storage": "sparse"}),
    "matrix-free": (["random_walk", 1500, 20, 12], {"n_landmark": 2500, "storage": "lazy"}),
    "nonmetric": (["random_walk", 20, 200, 30], {"n_landmark": 1200, "mds_solver": "nonmetric"}),
    "cosine": (["random_walk", 300, 20, 30], {"n_landmark": 1800, "mds_dist": "cosine"}),
    "many components": (
        ["random_walk", 400, 100, 8],
        {"n_landmark": 300, "n_components": 200, "mds_solver": "classic"},
    ),
    **UNITS,
}


@pytest.mark.skipif(not os.access(CLEAR, os.W_OK), reason="the high-water mark cannot be reset here")
@pytest.mark.parametrize("case", [*MEASURED, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_the_peak_of_a_run_is_predicted(case):
    """Within 15 % of the process. Full-size cases: suite "pipeline" of the benchmarks."""
    # A small run takes less if it finds memory that the imports have left: the largest of three peaks counts.
    runs = [measured(case) for _ in range(3 if case == "lazy" else 1)]
    held, planned, peak, form, storage, of_shape = max(runs, key=lambda run: run[2] - run[0])
    assert form == {"sparse": "SparseAffinity", "lazy": "LazyAffinity"}[storage]
    # Measured, five to ten runs each: 0.92 to 1.02.
    assert 0.85 < (held + planned) / peak < 1.15
    # The run alone, without the rest of the process. Measured: 0.83 to 1.25. Of smaller runs some is what the C
    # allocator keeps, and that differs from run to run (960 nodes without landmarks: 0.97 to 1.51).
    assert 0.75 < planned / (peak - held) < 1.35
    if case in UNITS:  # Measured: 0.96 to 1.13. Without the formula for independent units: 0.27 to 0.97.
        assert 0.9 < of_shape / (peak - held) < 1.2


def measured(case: str) -> list:
    # With several threads the peak depends on which of their buffers are held at one time.
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([ROOT, os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-c", MEASURE, json.dumps((MEASURED | SLOW)[case])]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return json.loads(out.splitlines()[-1])


def test_the_modules_that_the_formulas_name_exist():
    source = Path(costs.__file__).read_text(encoding="utf-8")
    names = set(re.findall(r"[\w/]+\.(?:py|cpp)\b", source))
    checkout = Path(__file__).parents[2]
    assert len(names) > 15
    assert [
        name for name in names if not any((root / name).is_file() for root in (checkout, checkout / "mmphate_gpu"))
    ] == []


# ---------------------------------------------------------------- bytes that are kept


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_forms_keep_the_bytes_that_are_planned(dtype, counted_entries):
    trace = mm.datasets.bifurcation("hopf", 14, 20)
    lazy = affinity_of_points(normalize(trace), storage="lazy", dtype=dtype).operator
    lazy.interslice.counts.sum()  # the counts and the layout of tiles are kept from the first access on
    nbytes = {"lazy": lazy.nbytes, "sparse": SparseAffinity(lazy.to_csr()).nbytes}
    nbytes["tiles"] = TiledAffinity(lazy.intraslice, lazy.interslice).nbytes
    planned = Costs(trace.shape, Params(), dtype, counted_entries(trace, lazy), Machine(2**34))
    for storage, held in nbytes.items():
        # The plan leaves out one row offset and parts of the layout. Measured: 2e-5 (lazy) and 5e-4 (tiles).
        assert planned.form_bytes(storage) == pytest.approx(held, rel=1e-2), storage


def test_what_the_stages_keep_is_what_the_run_holds():
    trace = as_trace(walk(120, 6, 8).astype(np.float32))
    op = MMPHATE(n_landmark=100, random_state=0, device="cpu", storage="sparse").fit(trace)
    planned = plan(trace, n_landmark=100, device="cpu", storage="sparse")
    held = {report["stage"]: report["bytes"] for report in op.report_}
    for stage in planned.stages:
        # Transitions are estimated; a result that is a view of an earlier one is counted with both.
        tolerance = 0.3 if stage.stage == "landmarks" else 0.05
        if stage.bytes:
            assert held[stage.stage] == pytest.approx(stage.bytes, rel=tolerance), stage.stage


# ---------------------------------------------------------------- stages


def test_what_mds_takes_is_planned():
    """In squares of 8 L^2 bytes and blocks of 8 L C; the numbers are those of the code's own arrays."""
    shape, L = (100, 10, 5, 8), 3000

    def mds(**options: object) -> float:
        planned = plan(shape, device="cpu", n_landmark=L, **options)
        return next(stage.peak_bytes for stage in planned.stages if stage.stage == "mds")

    square = 8 * L**2
    # Pairs, order, groups, two sets of values: half a square each.
    assert mds(mds_solver="nonmetric") - mds() > 5 * square
    # Ten rows of steps and falls, five places.
    assert mds(n_components=1000) - mds() > 15 * 8 * L * 1000 - square
    assert mds(mds_solver="classic", n_components=300) > mds(mds_solver="classic")
    cosine, euclidean = plan(shape, device="cpu", mds_dist="cosine"), plan(shape, device="cpu")
    assert cosine.peak_bytes > euclidean.peak_bytes


def test_a_refinement_is_planned():
    """Distances and indices of the neighbors of every node. Of six slices a third are neighbors."""

    def last(shape: tuple[int, ...], knn: int) -> float:
        return plan(shape, device="cpu", n_landmark=300, refine_knn=knn).stages[-1].peak_bytes

    assert last((800, 10, 50, 8), 20) - last((800, 10, 50, 8), 10) >= 16 * 10 * 400_000
    assert last((3, 2, 500, 8), 20) == last((3, 2, 500, 8), 2) > last((3, 2, 500, 8), 0)


def test_coordinates_in_many_dimensions_are_planned():
    """Held at once: the coordinates, two copies, and float64 ones of the landmark of every node in two orders."""
    few, many = (plan((100, 10, 50, 8), device="cpu", n_landmark=500, n_components=n).stages[-1] for n in (2, 202))
    assert many.peak_bytes - few.peak_bytes >= 50_000 * 200 * (3 * 4 + 2 * 8)
    assert many.bytes - few.bytes == 50_000 * 200 * 4


def test_the_powers_that_are_planned_are_enough():
    assert max(map(most_powers, range(1, 101))) == costs.AUTO_POWERS


def test_more_of_anything_takes_no_less():
    """The plan grows with sizes and settings. Otherwise a refusal could not say what helps."""
    base = {"shape": [20, 20, 6, 10], "n_landmark": 300, "n_svd": 40, "n_components": 2}
    for storage in ("sparse", "lazy", "tiles"):

        def peak(storage=storage, **change):
            settings = {**base, **change}
            options = {name: settings[name] for name in ("n_landmark", "n_svd", "n_components")}
            return plan(settings["shape"], device="cpu", storage=storage, **options).peak_bytes

        for axis in range(4):
            more = list(base["shape"])
            more[axis] *= 4
            assert peak(shape=more) >= peak()
        assert peak(n_landmark=600) >= peak() and peak(n_svd=80) >= peak() and peak(n_components=3) >= peak()


# ---------------------------------------------------------------- large runs


@pytest.mark.parametrize("card", ["24 GB card", "12 GB card", "8 GB card"])
def test_the_har_run_fits_workstation_cards(card):
    planned = plan(HAR, device=card)
    assert planned.fits and planned.device == card
    assert planned.storage == ("lazy" if card == "8 GB card" else "tiles")
    # Of Hopf units CSR would take 1.3 GB at 2 % of the pairs; tiles come first above 1 %.
    assert plan(HAR, device=card, active_share=0.005).storage == "sparse"


def test_twenty_thousand_landmarks_are_a_normal_run():
    """Six squares of 3.2 GB: the operator, powers on the way to the potential, distances."""
    for shape in (HAR, (1000, 50, 30, 6)):
        for card in ("24 GB card", "80 GB card", "141 GB card"):
            assert plan(shape, n_landmark=20_000, device=card).fits
        refused = plan(shape, n_landmark=20_000, device="12 GB card")
        assert not refused.fits and "n_landmark=10000" in refused.remedy
    entropy, symmetric = (
        {stage.stage: stage for stage in plan(HAR, n_landmark=20_000, t=t, device="24 GB card").stages}["entropy"]
        for t in ("auto", "eigenvalues")
    )
    assert symmetric.peak_bytes - entropy.peak_bytes == 8 * 20_000**2  # the symmetric form
    # Sampled: 6496 products with the matrix, where all eigenvalues take 4 L^3.
    assert entropy.operations == pytest.approx(2 * 6496 * 20_000**2)


def test_ten_million_nodes_on_cards():
    large = (500, 100, 200, 50)
    assert not plan(large, device="24 GB card").fits
    assert plan(large, device="141 GB card").storage == "lazy"


def test_ten_million_nodes_fit_a_card_of_80_gb(monkeypatch):
    """50,000 slices of 200 units. In float64 the landmark basis would take 44 GB, and its blocks 22 GB."""
    planned = plan((125, 400, 200, 50), device="80 GB card")
    landmarks = next(stage for stage in planned.stages if stage.stage == "landmarks")
    assert planned.fits and planned.storage == "lazy" and planned.peak_bytes == landmarks.peak_bytes
    krylov = Costs._krylov
    monkeypatch.setattr(Costs, "_krylov", lambda self, *arguments: 2 * krylov(self, *arguments))
    assert not plan((125, 400, 200, 50), device="80 GB card").fits
