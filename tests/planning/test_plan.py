"""What a run is said to take, and what it takes; runs that do not fit, and runs that ran out of memory."""

from __future__ import annotations

import gc
import json
import math
import os
import re
import subprocess
import sys
import warnings
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

import mmphate_gpu as mm
from mmphate_gpu import MMPHATE, InputError, as_trace, plan
from mmphate_gpu.affinities import Interslice, intraslice_affinity
from mmphate_gpu.linalg.symmetric_power import most_powers
from mmphate_gpu.operators import LazyAffinity, SparseAffinity, TiledAffinity, affinity_of_points
from mmphate_gpu.operators.choose import STORED_SHARE
from mmphate_gpu.ops.launch.twins import serves
from mmphate_gpu.ops.tile_block import in_node_order
from mmphate_gpu.params import Params
from mmphate_gpu.planning import costs, sample
from mmphate_gpu.planning.costs import Costs
from mmphate_gpu.planning.fit import ran_out
from mmphate_gpu.planning.plan import LEAST, plan_run
from mmphate_gpu.planning.sample import Entries
from mmphate_gpu.trace import normalize

CPU = torch.device("cpu")
HAR = (127, 128, 30, 6)
CLEAR = Path("/proc/self/clear_refs")
ROOT = str(Path(mm.__file__).resolve().parents[1])


def walk(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).cumsum(0)


# ---------------------------------------------------------------- the peak, predicted and measured

MEASURE = """
import json, sys
from pathlib import Path
import torch, mmphate_gpu as mm
from mmphate_gpu import MMPHATE
from mmphate_gpu.stages import held_bytes, peak_bytes
device, (made, options) = torch.device("cpu"), json.loads(sys.argv[1])
torch.set_num_threads(1)
trace = mm.as_trace(getattr(mm.datasets, made[0])(*made[1:]))
held = held_bytes(device)
planned = mm.plan(trace, device=device, **options)
Path("/proc/self/clear_refs").write_text("5")
op = MMPHATE(device=device, random_state=0, **options).fit(trace)
of_shape = mm.plan(trace.data, device=device, **options).peak_bytes
form = type(op.affinity_).__name__
print(json.dumps([held, planned.peak_bytes, peak_bytes(device), form, planned.storage, of_shape]))
"""
MEASURED = {
    "no landmarks": (["random_walk", 200, 12, 8], {"n_landmark": None}),
    "sparse": (["random_walk", 800, 10, 8], {"n_landmark": 1000}),
    "lazy": (["bifurcation", "hopf", 30, 40], {"n_landmark": 800, "storage": "lazy"}),
}
# Traces of which the shape tells as much as the values.
UNITS = {
    "1000 units": (["random_walk", 6, 1000, 20], {}),
    "1000 units, many samples": (["random_walk", 20, 1000, 50], {}),
    "2000 units": (["random_walk", 6, 2000, 30], {"n_landmark": 1000}),
}
SLOW = {
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
    held, planned, peak, form, storage, of_shape = measured(case)
    assert form == {"sparse": "SparseAffinity", "lazy": "LazyAffinity"}[storage]
    # Measured, five to ten runs each: 0.92 to 1.02.
    assert 0.85 < (held + planned) / peak < 1.15
    # What is added, which the rest of the process does not hide. Measured: 0.83 to 1.04; of smaller runs most is what
    # the C allocator keeps, which differs from run to run (960 nodes without landmarks: 0.97 to 1.51).
    assert 0.75 < planned / (peak - held) < 1.35
    if case in UNITS:  # Measured: 0.96 to 1.13. Before units of one slice were taken for independent: 0.27 to 0.97.
        assert 0.9 < of_shape / (peak - held) < 1.2


def measured(case: str) -> list:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([ROOT, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", MEASURE, json.dumps((MEASURED | SLOW)[case])]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return json.loads(out.splitlines()[-1])


@pytest.mark.parametrize("decay", [5, 2, None])
@pytest.mark.parametrize(("units", "samples"), [(1, 4), (2, 3), (30, 1), (30, 6), (300, 8), (300, 40), (500, 20)])
def test_entries_between_independent_units(units, samples, decay):
    points = np.random.default_rng(0).normal(size=(4, units, samples))
    points = torch.from_numpy((points - points.mean(-1, keepdims=True)) / (points.std(-1, keepdims=True) + 1e-9))
    counted = intraslice_affinity(points, decay=decay).nnz / (4 * units)
    about = {"dtype": torch.float64, "entries": Entries(), "room": 2**34}
    planned = Costs((2, 2, units, samples), Params(decay=decay), **about).intraslice / (4 * units)
    # Ten entries a node are a tenth of what the landmarks' basis takes of it.
    assert counted * 0.9 - 10 < planned < 1.35 * counted + 10


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


def test_coordinates_in_many_dimensions_are_planned():
    """They, two copies of them, and float64 ones of the landmark of every node in two orders."""
    few, many = (plan((100, 10, 50, 8), device="cpu", n_landmark=500, n_components=n).stages[-1] for n in (2, 202))
    assert many.peak_bytes - few.peak_bytes >= 50_000 * 200 * (3 * 4 + 2 * 8)
    assert many.bytes - few.bytes == 50_000 * 200 * 4


def test_the_powers_that_are_planned_are_enough():
    assert max(map(most_powers, range(1, 101))) == costs.POWERS


def test_twenty_thousand_landmarks_are_a_normal_run():
    """Six squares of 3.2 GB: the operator, powers on the way to the potential, distances; half as many do not do."""
    for shape in (HAR, (1000, 50, 30, 6)):
        for card in ("24 GB card", "80 GB card", "141 GB card"):
            assert plan(shape, n_landmark=20_000, device=card).fits
        refused = plan(shape, n_landmark=20_000, device="12 GB card")
        assert not refused.fits and "n_landmark=10000" in refused.remedy
    entropy = {stage.stage: stage for stage in plan(HAR, n_landmark=20_000, device="24 GB card").stages}["entropy"]
    # Sampled: 6496 products with the matrix, where all eigenvalues take 4 L^3.
    assert entropy.operations == pytest.approx(2 * 6496 * 20_000**2)


# ---------------------------------------------------------------- the entries


def points_of(trace: mm.Trace) -> torch.Tensor:
    return normalize(trace)


def test_a_sample_of_all_rows_has_the_entries_of_the_affinity():
    trace = mm.datasets.bifurcation("hopf_pitchfork", 12, 14)
    found = sample.sampled_entries(trace, Params())
    lazy = affinity_of_points(points_of(trace), storage="lazy").operator
    counts = lazy.interslice.counts
    assert found.interslice == pytest.approx(int(counts.sum()) / (trace.n_nodes * (trace.n_slices - 1)), rel=1e-9)
    assert found.intraslice == pytest.approx(lazy.intraslice.nnz / trace.n_nodes, rel=1e-9)
    assert found.alone == pytest.approx(float((counts == 0).double().mean()), rel=1e-9)


def test_pieces_of_slices_that_nothing_links_to_others():
    """Slices alike but for two that are wholly unlike any, and one of whose units one is: it hangs with its others."""
    random = np.random.default_rng(0)
    data = random.normal(size=(1, 4, 12)) + 0.05 * random.normal(size=(60, 4, 12))
    data[[7, 30]] = random.normal(size=(2, 4, 12))
    data[44, 1] = random.normal(size=12)
    trace = as_trace(data)
    lazy = affinity_of_points(points_of(trace), storage="lazy").operator
    counts, within = lazy.interslice.counts, in_node_order(lazy.intraslice)
    parts = connected_components(csr_array((within.values, within.indices, within.indptr), shape=within.shape))[1]
    n_loose = parts.max() + 1 - len(np.unique(parts[(counts.T.flatten() > 0).numpy()]))
    assert n_loose >= 2 and int((counts == 0).sum()) == 9
    assert sample.sampled_entries(trace, Params()).loose == n_loose / 60


@pytest.mark.parametrize("scenario", ["hopf", "hopf_pitchfork"])
def test_a_part_of_the_rows_is_enough(scenario, monkeypatch):
    trace = mm.datasets.bifurcation(scenario, 30, 30)
    everything = sample.sampled_entries(trace, Params())
    monkeypatch.setattr(sample, "WORK", sample.LEAST_ROWS * trace.n_slices * trace.n_samples * trace.n_units)
    some, again = (sample.sampled_entries(trace, Params()) for _ in range(2))
    assert some == again
    # 64 rows of 900 for each of the 6 units. Measured: 0.03 (hopf) and 0.02.
    assert some.interslice == pytest.approx(everything.interslice, rel=0.1)
    assert 0 < some.interslice < 1 and some.alone == pytest.approx(everything.alone, abs=0.05)


def test_a_sample_of_the_units_where_all_are_too_much_work(monkeypatch):
    trace = as_trace(walk(90, 12, 6))
    seen = []
    monkeypatch.setattr(
        sample, "_interslice", lambda points, resolution, rows, p: seen.append(points.shape) or (0.5, 0.0, 1.0)
    )
    monkeypatch.setattr(sample, "WORK", 3 * sample.LEAST_ROWS * 90 * 6)
    assert sample.sampled_entries(trace, Params()).interslice == 0.5
    assert seen == [(3, 90, 6)]


def test_a_stored_trace_is_sampled_by_parts(tmp_path, monkeypatch):
    np.save(tmp_path / "trace.npy", walk(60, 4, 8))
    whole, stored = (mm.load_trace(tmp_path / "trace.npy", stream=stream) for stream in (False, True))
    found = sample.sampled_entries(whole, Params())
    monkeypatch.setattr(type(stored), "load", lambda self: pytest.fail("the trace is taken into memory"))
    assert sample.sampled_entries(stored, Params()) == found
    assert plan(stored, device="cpu").stages == plan(whole, device="cpu").stages


def exact(trace: mm.Trace, lazy: LazyAffinity) -> Entries:
    pairs = trace.n_nodes * (trace.n_slices - 1)
    tiles = lazy.interslice.tile_layout.n_active / (trace.n_units * math.ceil(trace.n_slices / costs.TILE) ** 2)
    counts = lazy.interslice.counts
    return Entries(int(counts.sum()) / pairs, lazy.intraslice.nnz / trace.n_nodes, 0.0, tiles)


@pytest.mark.parametrize(("rows", "tolerance"), [(16, 1e-9), (4, 0.1)])
def test_the_share_of_active_tiles_is_that_of_the_layout(monkeypatch, rows, tolerance):
    """8 rows of tiles a unit: all of them, which is exact but for rounding, and every second. Measured: 0.023."""
    trace = mm.datasets.bifurcation("hopf_pitchfork", 30, 30)
    lazy = affinity_of_points(points_of(trace), storage="lazy").operator
    monkeypatch.setattr(sample, "SAMPLED_ROWS", rows)
    found = sample.sampled_entries(trace, Params(), tiles=True).tiles
    assert found == pytest.approx(exact(trace, lazy).tiles, rel=tolerance)


def test_the_share_of_active_tiles_is_estimated_where_it_matters(monkeypatch):
    seen = []
    trace = as_trace(walk(40, 3, 5))
    monkeypatch.setattr(sample, "_active_share", lambda points, reach: seen.append(reach) or 0.25)
    plan(trace, device="cpu")
    plan(trace, device="24 GB card", active_tiles=0.1)
    plan(trace, device="24 GB card", storage="sparse")
    assert not seen
    on_card = plan(trace, device="24 GB card")
    given = {"active_tiles": 0.25, "active_share": sample.sampled_entries(trace, Params()).interslice}
    assert len(seen) == 1 and on_card.storage == plan(trace, device="24 GB card", **given).storage
    plan(trace, device="cpu", storage="tiles")
    assert len(seen) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_forms_keep_the_bytes_that_are_planned(dtype):
    trace = mm.datasets.bifurcation("hopf", 14, 20)
    lazy = affinity_of_points(points_of(trace), storage="lazy", dtype=dtype).operator
    lazy.interslice.counts.sum()
    nbytes = {"lazy": lazy.nbytes, "sparse": SparseAffinity(lazy.to_csr()).nbytes}
    nbytes["tiles"] = TiledAffinity(lazy.intraslice, lazy.interslice).nbytes
    planned = Costs(trace.shape, Params(), dtype=dtype, entries=exact(trace, lazy), room=2**34)
    for storage, held in nbytes.items():
        # Offsets are one longer than the nodes, and tiles have a layout. Measured: 1e-4.
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


# ---------------------------------------------------------------- a device by its name


@pytest.mark.parametrize("card", ["24 GB card", "12 GB card", "8 GB card"])
def test_the_har_run_fits_workstation_cards(card):
    found = plan(HAR, device=card)
    assert found.fits and found.device == card
    assert found.storage == ("lazy" if card == "8 GB card" else "tiles")
    # Of Hopf units CSR would take 1.3 GB at 2 % of the pairs; tiles come first above 1 %.
    assert plan(HAR, device=card, active_share=0.005).storage == "sparse"


def test_a_card_has_the_memory_in_its_name_and_no_other(monkeypatch):
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", "1000")
    found = plan(HAR, device="7.5 GB card")
    assert found.available_bytes == 7_500_000_000
    # The trace has to be copied there.
    there = plan_run(HAR, Params(), dtype=torch.float32, device=torch.device("cuda"), available=10**9,
                     entries=Entries(), name="x")  # fmt: skip
    assert found.stages[0].peak_bytes - there.stages[0].peak_bytes == 4 * 127 * 128 * 30 * 6


@pytest.mark.parametrize("device", ["24 GB", "GB card", "0 GB card", "-3 GB card", "24 TB card", "card"])
def test_what_is_no_card(device):
    with pytest.raises(InputError, match=re.escape(f"device={device!r}")):
        plan(HAR, device=device)


def test_ten_million_nodes_on_cards():
    large = (500, 100, 200, 50)
    assert not plan(large, device="24 GB card").fits
    assert plan(large, device="141 GB card").storage == "lazy"


def test_the_form_and_why():
    on_card = {"device": "12 GB card"}
    assert plan(HAR, active_share=0.1, active_tiles=0.4, **on_card).storage == "tiles"
    assert plan(HAR, active_share=0.02, active_tiles=1, **on_card).storage == "sparse"  # the tiles would not fit
    assert plan(HAR, active_share=0.3, active_tiles=1, **on_card).storage == "lazy"
    assert plan(HAR, storage="tiles", **on_card).why == "as asked for"
    told = str(plan(HAR, **on_card))
    assert "affinity: tiles, which takes 3.9 GiB for 0.27 of the pairs and leaves room for the rest" in told
    assert "fp16 tiles" in told and "128 tiles" in told and "at once" in told
    assert "matrix-free" in str(plan(HAR, storage="lazy", **on_card))


def test_more_of_anything_takes_no_less():
    """The plan grows with sizes and settings: otherwise a refusal could not say what helps."""
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


# ---------------------------------------------------------------- refusals, and what they advise


def settings_named(text: str) -> list[dict[str, object]]:
    """The settings that a refusal says a run fits with: one dictionary for each way."""
    if "by plan it fits with" not in text:
        return []
    found = []
    parts = [text] if text.endswith("together") else text.split(", or with ")
    for part in parts:
        numbers = {name: int(value) for name, value in re.findall(r"(n_\w+)=(\d+)", part)}
        found.append(numbers | ({"storage": "lazy"} if 'storage="lazy"' in part else {}))
    return found


CAPS = [10.0**exponent for exponent in np.arange(5.5, 11, 0.25)]


@pytest.mark.parametrize("storage", ["auto", "sparse", "lazy"])
@pytest.mark.parametrize("shape", [HAR, (200, 1, 5, 4), (20, 20, 10, 5000), (100, 1, 50, 25)])
def test_what_a_refusal_advises_helps(shape, storage):
    advised, worst = 0, set()
    for cap in CAPS:
        about = {"dtype": torch.float32, "device": CPU, "available": int(cap), "entries": Entries()}
        p = Params(storage=storage)
        found = plan_run(shape, p, **about)
        if found.fits:
            continue
        worst.add(max(found.stages, key=lambda stage: stage.peak_bytes).stage)
        with pytest.raises(InputError, match=re.escape(found.remedy)):
            found.check()
        for settings in settings_named(found.remedy):
            advised += 1
            changed = replace(p, **settings)
            assert plan_run(shape, changed, **about).fits
            assert all(getattr(changed, name) != getattr(p, name) for name in settings)
        if "Trace.subsample" in found.remedy:
            fewer = (max(1, shape[0] // 2), *shape[1:])
            assert plan_run(fewer, p, **about).peak_bytes < found.peak_bytes
    assert advised and worst


def test_a_refusal_names_no_more_than_has_to_change():
    """The matrix-free form takes a little too much, and fits with half the vectors: as many landmarks as before."""
    about = {"dtype": torch.float32, "device": CPU, "entries": LEAST._replace(interslice=0.3)}
    lean = plan_run(HAR, Params(storage="lazy"), available=10**12, **about).peak_bytes
    found = plan_run(HAR, Params(storage="sparse"), available=lean - 1, **about)
    assert found.remedy == 'by plan it fits with storage="lazy" and a smaller n_svd=50 together'


def test_a_counted_run_is_not_refused_for_what_it_does_not_take():
    """HAR size: 8.6 GB of CSR, and a peak of 12.9 GB measured; transitions are a small part of it."""
    counted = LEAST._replace(interslice=0.136)
    about = {"dtype": torch.float32, "device": CPU, "available": 14 * 10**9, "entries": counted}
    found = plan_run(HAR, Params(storage="sparse"), **about)
    assert found.fits and {stage.stage: stage for stage in found.stages}["landmarks"].bytes < 5e8


def test_landmarks_that_are_given_are_not_told_to_be_fewer():
    labels = np.arange(1000) % 500
    about = {"dtype": torch.float32, "device": CPU, "entries": LEAST}
    found = plan_run((200, 1, 5, 4), Params(landmarks=labels), available=10**6, **about)
    assert not found.fits and "n_landmark" not in found.remedy and "n_svd" not in found.remedy
    cheap = plan_run((200, 1, 5, 4), Params(landmarks="stratified", n_landmark=500), available=10**6, **about)
    assert not cheap.fits and "n_svd" not in cheap.remedy


# ---------------------------------------------------------------- caps on the memory

# 2,400 nodes; CSR takes 3.6 MB, the rest about 10 MB by plan.
TRACE = walk(120, 20, 8, seed=1)
OPTIONS = {"n_landmark": 100, "n_svd": 60, "random_state": 0, "device": "cpu"}


def least_bytes() -> int:
    """What the matrix-free run takes at least."""
    p = Params(n_landmark=100, n_svd=60, storage="lazy")
    about = {"dtype": torch.float64, "device": CPU, "available": 10**9, "entries": LEAST}
    return plan_run((120, 1, 20, 8), p, **about).peak_bytes


def form(op: MMPHATE) -> str:
    return op.affinity_.storage


@pytest.fixture(scope="module")
def uncapped() -> MMPHATE:
    return MMPHATE(**OPTIONS).fit(TRACE)


def assert_same(op: MMPHATE, other: MMPHATE) -> None:
    """The two forms make the same entries in the same order, and their products the same sums: the same bits."""
    assert op.t_ == other.t_ and np.array_equal(op.embedding_, other.embedding_)


def test_one_picture_under_every_cap(uncapped, monkeypatch):
    least = least_bytes()
    stored = uncapped.affinity_.nbytes
    assert form(uncapped) == "sparse"
    for cap, expected in ((20 * stored, "sparse"), (int(1.01 * least), "lazy")):
        monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", str(cap))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            op = MMPHATE(**OPTIONS).fit(TRACE)
        assert form(op) == expected
        assert_same(op, uncapped)
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", str(least - 1))
    with pytest.raises(InputError, match=r"needs .* MiB in stage 'landmarks' but cpu has .*; by plan it fits with"):
        MMPHATE(**OPTIONS).fit(TRACE)


def quiet_fit(given: np.ndarray = TRACE, **options: object) -> MMPHATE:
    """A run that does not have to fall back on another form."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return MMPHATE(**{**OPTIONS, **options}).fit(given)


@pytest.mark.parametrize("storage", ["sparse", "tiles", "lazy"])
def test_the_bytes_of_the_plan_are_enough(storage, monkeypatch):
    planned = plan(as_trace(TRACE), n_landmark=100, n_svd=60, device="cpu", storage=storage)
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", str(planned.peak_bytes))
    assert form(quiet_fit(storage=storage)) == storage


def test_the_byte_at_which_auto_goes_leaner(uncapped, monkeypatch):
    counted = LEAST._replace(interslice=(uncapped.affinity_.nnz - 2400) / (2400 * 119))
    about = {"dtype": torch.float64, "device": CPU, "available": 10**9, "entries": counted}
    p = Params(n_landmark=100, n_svd=60, storage="sparse")
    needed = max(plan_run((120, 1, 20, 8), p, **about).peak_bytes, int(uncapped.affinity_.nbytes / 0.4) + 1)
    for cap, expected in ((needed, "sparse"), (needed - 1, "lazy")):
        monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", str(cap))
        assert form(quiet_fit()) == expected


@pytest.mark.parametrize("storage", ["auto", "sparse", "lazy"])
def test_what_a_refused_run_is_told_works(storage, monkeypatch):
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", str(least_bytes() - 1))
    with pytest.raises(InputError, match=r"needs .* MiB in stage .* but cpu has .* MiB available") as refused:
        quiet_fit(storage=storage)
    ways = settings_named(str(refused.value))
    for way in ways:
        quiet_fit(**{"storage": storage, **way})
    if not ways:  # without twins no form of so few nodes is lean, once its entries are counted
        assert storage == "sparse" and not serves(CPU) and "Trace.subsample" in str(refused.value)
        quiet_fit(given=TRACE[::2], storage=storage)


@pytest.fixture
def tight(uncapped, monkeypatch) -> None:
    """Memory of which the CSR takes less than 40 %, and with which the run does not fit all the same."""
    cap = int(1.02 * max(uncapped.affinity_.nbytes / STORED_SHARE, least_bytes()))
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", str(cap))


def test_a_stored_affinity_that_leaves_too_little_is_let_go(uncapped, tight):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        op = MMPHATE(**OPTIONS).fit(TRACE)
    assert form(op) == "lazy" and [report["stage"] for report in op.report_ if report["reused"]] == [
        "normalize",
        "reduce",
    ]
    assert_same(op, uncapped)


def test_one_that_was_asked_for_is_refused_once_it_is_counted(tight, monkeypatch):
    def computes(*args, **kwargs):
        raise AssertionError("the landmarks are being computed")

    monkeypatch.setattr("mmphate_gpu.pipeline.landmark_diffusion", computes)
    with pytest.raises(
        InputError, match=r"needs .* in stage .* but cpu has .* available \(MMPHATE_GPU_MEMORY_LIMIT is .* MiB\); "
    ):
        MMPHATE(storage="sparse", **OPTIONS).fit(TRACE)


def test_the_plan_of_a_trace_foresees_the_form(tight):
    options = {name: OPTIONS[name] for name in ("n_landmark", "n_svd", "device")}
    assert plan(as_trace(TRACE), **options).storage == form(MMPHATE(**OPTIONS).fit(TRACE)) == "lazy"


# ---------------------------------------------------------------- out of memory in spite of it

TOLD = "CUDA out of memory. Tried to allocate 20.00 GiB"


@pytest.fixture
def fails(monkeypatch):
    """Makes a method raise torch's error at its first calls; gives what was held then, weakly."""
    held: list[weakref.ref] = []

    def once(owner, name, times=1):
        whole = getattr(owner, name)

        def method(self, *args, **kwargs):
            if len(held) < times:
                held.append(weakref.ref(self))
                raise torch.OutOfMemoryError(TOLD)
            return whole(self, *args, **kwargs)

        monkeypatch.setattr(owner, name, method)
        return held

    return once


@pytest.mark.parametrize("storage", ["auto", "sparse"])
def test_out_of_memory_falls_back_once(storage, uncapped, fails, monkeypatch):
    held = fails(SparseAffinity, "aggregate")
    released = []
    monkeypatch.setattr("mmphate_gpu.stages.release_cached", lambda device: released.append(held[0]() is None))
    gc.collect()
    gc.disable()  # what is held by a cycle would stay
    try:
        with pytest.warns(
            RuntimeWarning, match="CUDA out of memory in stage 'landmarks': storage=\"sparse\" gives way"
        ):
            op = MMPHATE(storage=storage, **OPTIONS).fit(TRACE)
    finally:
        gc.enable()
    assert released == [True]  # nothing holds the stored form any more when the memory is given back
    assert form(op) == "lazy"
    assert_same(op, uncapped)


@pytest.mark.parametrize(
    ("error", "out"),
    [
        (torch.OutOfMemoryError(TOLD), True),
        (MemoryError(), True),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
            True,
        ),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    ],
)
def test_what_says_that_memory_ran_out(error, out):
    assert bool(ran_out(error)) == out


class FailedCapture:
    """As torch.cuda.graph ends once anything in it has failed."""

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None:
        raise RuntimeError("CUDA error: operation failed due to a previous error during capture")


def test_memory_that_runs_out_while_a_graph_is_captured():
    with pytest.raises(RuntimeError, match="previous error") as raised, FailedCapture():
        raise torch.OutOfMemoryError(TOLD)
    assert ran_out(raised.value) == "CUDA out of memory"


def test_out_of_memory_while_the_affinity_is_stored(uncapped, fails):
    fails(Interslice, "fill")
    with pytest.warns(RuntimeWarning, match='stage .affinity.: storage="auto" gives way to the leaner storage="lazy"'):
        op = MMPHATE(**OPTIONS).fit(TRACE)
    assert_same(op, uncapped)


def test_tiles_give_way_too(fails):
    fails(TiledAffinity, "row_sums")
    with pytest.warns(RuntimeWarning, match='storage="tiles" gives way to the leaner storage="lazy"'):
        assert form(MMPHATE(storage="tiles", **OPTIONS).fit(TRACE)) == "lazy"


def test_out_of_memory_twice_is_told_with_the_numbers(uncapped, fails):
    fails(LazyAffinity, "aggregate")
    op = MMPHATE(**OPTIONS).fit(TRACE)
    before = op.embedding_.copy()
    words = r"ran out of memory in stage 'landmarks' with storage=\"lazy\" \(CUDA out of memory\): it takes at least "
    with pytest.raises(InputError, match=words + r".* MiB, and cpu had .* available; fewer"):
        op.set_params(storage="lazy").fit(TRACE)
    assert np.array_equal(op.embedding_, before)
    assert_same(op.fit(TRACE), uncapped)


def test_out_of_memory_in_both_forms(fails, monkeypatch):
    fails(Interslice, "fill", times=2)
    warned = pytest.warns(RuntimeWarning, match="gives way")
    with warned, pytest.raises(InputError, match="in stage 'landmarks' with storage=\"lazy\""):
        MMPHATE(**OPTIONS).fit(TRACE)


def test_no_leaner_affinity_helps_before_there_is_one(monkeypatch):
    def fails(*args, **kwargs):
        raise torch.OutOfMemoryError(TOLD)

    monkeypatch.setattr("mmphate_gpu.pipeline.trace_points", fails)
    with pytest.raises(InputError, match="ran out of memory in stage 'normalize'"):
        MMPHATE(**OPTIONS).fit(TRACE)


def test_ten_million_nodes_fit_a_card_of_80_gb(monkeypatch):
    """The large run: 50,000 slices of 200 units, 50 samples. In float64 the landmark basis alone would be 44 GB, and 22
    GB of blocks would stand beside it."""
    found = plan((125, 400, 200, 50), device="80 GB card")
    landmarks = next(stage for stage in found.stages if stage.stage == "landmarks")
    assert found.fits and found.storage == "lazy" and found.peak_bytes == landmarks.peak_bytes
    krylov = Costs._krylov
    monkeypatch.setattr(Costs, "_krylov", lambda self, *about: 2 * krylov(self, *about))
    assert not plan((125, 400, 200, 50), device="80 GB card").fits
