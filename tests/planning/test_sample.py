"""The number of entries of an affinity, by formula and from a sample of its rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

import mmphate_gpu as mm
from mmphate_gpu import as_trace, plan
from mmphate_gpu.affinities.intraslice import intraslice_affinity
from mmphate_gpu.operators.multislice import affinity_of_points
from mmphate_gpu.ops.tile_block import in_node_order
from mmphate_gpu.params import Params
from mmphate_gpu.planning import sample
from mmphate_gpu.trace import normalize, trace_points


def walk(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).cumsum(0)


@pytest.mark.parametrize("decay", [5, 2, None])
@pytest.mark.parametrize(("units", "samples"), [(1, 4), (2, 3), (30, 1), (30, 6), (300, 8), (300, 40), (500, 20)])
def test_entries_between_independent_units(units, samples, decay):
    points = np.random.default_rng(0).normal(size=(4, units, samples))
    points = torch.from_numpy((points - points.mean(-1, keepdims=True)) / (points.std(-1, keepdims=True) + 1e-9))
    counted = intraslice_affinity(points, decay=decay).nnz / (4 * units)
    planned = sample.intraslice_entries(units, samples, Params(decay=decay))
    # Ten entries of a node take a tenth of its share of the landmarks' basis.
    assert counted * 0.9 - 10 < planned < 1.35 * counted + 10


def test_a_sample_of_all_rows_has_the_entries_of_the_affinity():
    trace = mm.datasets.bifurcation("hopf_pitchfork", 12, 14)
    entries = sample.sampled_entries(trace, Params())
    lazy = affinity_of_points(normalize(trace), storage="lazy").operator
    counts = lazy.interslice.counts
    assert entries.interslice == pytest.approx(int(counts.sum()) / (trace.n_nodes * (trace.n_slices - 1)), rel=1e-9)
    assert entries.intraslice == pytest.approx(lazy.intraslice.nnz / trace.n_nodes, rel=1e-9)
    assert entries.alone == pytest.approx(float((counts == 0).double().mean()), rel=1e-9)


def test_loose_pieces_of_slices():
    """Two slices are unlike all others, and so is one unit of a third slice, which its other units link."""
    random = np.random.default_rng(0)
    data = random.normal(size=(1, 4, 12)) + 0.05 * random.normal(size=(60, 4, 12))
    data[[7, 30]] = random.normal(size=(2, 4, 12))
    data[44, 1] = random.normal(size=12)
    trace = as_trace(data)
    lazy = affinity_of_points(normalize(trace), storage="lazy").operator
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


def test_a_stored_trace_is_sampled_block_by_block(tmp_path, monkeypatch):
    np.save(tmp_path / "trace.npy", walk(60, 4, 8))
    whole, stored = (mm.load_trace(tmp_path / "trace.npy", stream=stream) for stream in (False, True))
    entries = sample.sampled_entries(whole, Params())
    monkeypatch.setattr(type(stored), "load", lambda self: pytest.fail("the trace is read into memory"))
    assert sample.sampled_entries(stored, Params()) == entries
    assert plan(stored, device="cpu").stages == plan(whole, device="cpu").stages


@pytest.mark.parametrize(("rows", "tolerance"), [(16, 1e-9), (4, 0.1)])
def test_the_share_of_active_tiles_is_that_of_the_layout(monkeypatch, counted_entries, rows, tolerance):
    """All 8 rows of tiles of a unit, which is exact but for rounding, and every second row. Measured: 0.023."""
    trace = mm.datasets.bifurcation("hopf_pitchfork", 30, 30)
    lazy = affinity_of_points(normalize(trace), storage="lazy").operator
    monkeypatch.setattr(sample, "SAMPLED_ROWS", rows)
    entries = sample.sampled_entries(trace, Params(), tiles=True).tiles
    assert entries == pytest.approx(counted_entries(trace, lazy).tiles, rel=tolerance)


def test_the_share_of_active_tiles_is_estimated_where_it_matters(monkeypatch):
    seen = []
    trace = as_trace(walk(40, 3, 5))
    monkeypatch.setattr(sample, "_active_share", lambda points, reach, masked: seen.append(reach) or 0.25)
    plan(trace, device="cpu")
    plan(trace, device="24 GB card", active_tiles=0.1)
    plan(trace, device="24 GB card", storage="sparse")
    assert not seen
    on_card = plan(trace, device="24 GB card")
    shares = {"active_tiles": 0.25, "active_share": sample.sampled_entries(trace, Params()).interslice}
    assert len(seen) == 1 and on_card.storage == plan(trace, device="24 GB card", **shares).storage
    plan(trace, device="cpu", storage="tiles")
    assert len(seen) == 2


@pytest.mark.parametrize("normalized", [True, False])
def test_a_sample_of_all_rows_of_a_masked_trace(normalized):
    """Missing samples, and nodes that are left out of the graph: they have no entry, and are no piece of a slice."""
    mask = np.random.default_rng(1).random((40, 5, 8)) < 0.5
    mask[[3, 4]], mask[10, 2] = False, False
    trace, p = as_trace(walk(40, 5, 8), mask=mask), Params(normalize=normalized, interslice_knn=4, n_pca=3)
    entries = sample.sampled_entries(trace, p)
    points, resolution = trace_points(trace, normalize=normalized)
    made = affinity_of_points(points, storage="lazy", interslice_knn=4, resolution=resolution, masked=True).operator
    counts, pairs = made.whole.interslice.counts, trace.n_nodes * (trace.n_slices - 1)
    assert entries.interslice == pytest.approx(int(counts.sum()) / pairs, rel=1e-9)
    assert entries.intraslice == pytest.approx(made.whole.intraslice.nnz / trace.n_nodes, rel=1e-9)
    assert entries.alone == pytest.approx(float((counts == 0).double().mean()), rel=1e-9)
    assert entries.loose == 0  # every piece that has a node is linked
    assert 0 < sample.sampled_entries(trace, p, tiles=True).tiles <= 1


def test_the_samples_of_a_masked_trace_are_planned_as_they_are():
    mask = np.random.default_rng(1).random((40, 5, 60)) < 0.7
    masked, whole = as_trace(walk(40, 5, 60), mask=mask), as_trace(walk(40, 5, 60))
    points = {
        name: plan(trace, n_pca=10, device="cpu").stages[0].bytes
        for name, trace in {"masked": masked, "whole": whole}.items()
    }
    assert points["masked"] == 200 * (60 + 1) * 8 > 5 * points["whole"]
    assert plan(masked, n_pca=10, device="cpu").stages == plan(masked, n_pca=None, device="cpu").stages
