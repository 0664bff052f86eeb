"""A refit repeats only what changed, and what a user writes into results or arguments changes no later fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mmphate_gpu as mm
from mmphate_gpu import MMPHATE, as_trace
from mmphate_gpu.stages import STAGES

OPTIONS = {"n_landmark": 60, "random_state": 0, "device": "cpu"}


def walk(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(30, 4, 10)).cumsum(0)


def reused(op: MMPHATE) -> list[str]:
    return [report["stage"] for report in op.report_ if report["reused"]]


# ---------------------------------------------------------------- reuse of stages


@pytest.mark.parametrize(
    ("change", "first_run_again"),
    [
        ({}, None),
        ({"n_components": 3}, "mds"),
        ({"mds_solver": "classic"}, "mds"),
        ({"n_init": 1}, "mds"),
        ({"mds_dist": "cosine"}, "distances"),
        ({"islands": "states"}, "distances"),
        ({"refine_knn": 5}, "interpolate"),
        ({"gamma": 1}, "potential"),
        ({"t": 7}, "potential"),
        ({"n_landmark": 40}, "landmarks"),
        ({"landmarks": "stratified"}, "landmarks"),
        ({"landmarks": np.arange(120) % 50}, "landmarks"),
        ({"decay": 10}, "affinity"),
        ({"normalize": False}, "normalize"),
    ],
)
def test_a_refit_repeats_the_changed_stages_and_matches_a_fresh_fit(change, first_run_again):
    trace = walk()
    op = MMPHATE(**OPTIONS).fit(trace)
    op.set_params(**change).fit(trace)
    kept = STAGES if first_run_again is None else STAGES[: STAGES.index(first_run_again)]
    assert reused(op) == list(kept)
    assert np.array_equal(op.embedding_, MMPHATE(**{**OPTIONS, **change}).fit_transform(trace))


def test_labels_that_change_in_place_are_a_change():
    labels = np.arange(120) % 50
    op = MMPHATE(landmarks=labels, random_state=0, device="cpu").fit(walk())
    assert reused(op.fit(walk())) == list(STAGES)
    labels[0] = 2
    assert "landmarks" not in reused(op.fit(walk())) and op.clusters_[0] == 2


def test_a_trace_that_changed_in_place_is_embedded_again():
    trace = walk()
    op = MMPHATE(**OPTIONS).fit(trace)
    trace[5] += 1.0 + np.arange(10)
    op.fit(trace)
    assert reused(op) == []
    assert np.array_equal(op.embedding_, MMPHATE(**OPTIONS).fit_transform(trace))


def test_a_failed_fit_leaves_the_fitted_state_and_the_next_fit_is_a_fresh_one():
    def stop(stage, done, total):
        if stage == "mds":
            raise RuntimeError("stop")

    first, second = walk(seed=1), walk(seed=2)
    op = MMPHATE(**OPTIONS).fit(first)
    before = op.embedding_.copy()
    with pytest.raises(RuntimeError, match="stop"):
        op.set_params(callback=stop).fit(second)
    assert np.array_equal(op.embedding_, before)
    op.set_params(callback=None).fit(second)
    assert np.array_equal(op.embedding_, MMPHATE(**OPTIONS).fit_transform(second))


# ---------------------------------------------------------------- writes


def write_to_affinity(op: MMPHATE) -> None:
    op.affinity_.csr.values[:] = 1


def write_to_tensor(op: MMPHATE) -> None:
    op.affinity_.tensor.values().mul_(2)


def write_to_scipy(op: MMPHATE) -> None:
    matrix = mm.to_scipy(op.affinity_)
    matrix.data[:], matrix.indices[:] = 1, 0


def write_to_torch_csr(op: MMPHATE) -> None:
    mm.to_torch_csr(op.affinity_).values()[:] = 1


def write_to_results(op: MMPHATE) -> None:
    for name in ("embedding_", "landmark_op_", "clusters_", "von_neumann_entropy_", "diff_potential_"):
        getattr(op, name)[:] = 1
    op.transitions_.data[:] = 1
    op.result_.coordinates[:] = 1
    op.result_.entropy[:] = 1


WRITES = [write_to_affinity, write_to_tensor, write_to_scipy, write_to_torch_csr, write_to_results]


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("changed", [{"n_landmark": 50}, {"gamma": 1}, {"t": 3}, {"thresh": 1e-3}, {"n_components": 3}])
def test_writing_into_a_result_changes_no_later_fit(write, changed):
    trace = walk()
    wanted = MMPHATE(**OPTIONS | changed).fit(trace)
    op = MMPHATE(**OPTIONS).fit(trace)
    write(op)
    op.set_params(**changed).fit(trace)
    assert op.t_ == wanted.t_ and np.array_equal(op.embedding_, wanted.embedding_)


@pytest.mark.parametrize("storage", ["sparse", "lazy", "tiles"])
def test_a_refit_without_writes_reuses_all_stages(storage):
    """Products and conversions fill caches of the operator, but do not change its entries."""
    op = MMPHATE(storage=storage, **OPTIONS).fit(walk())
    op.affinity_ @ torch.ones(120)
    mm.to_scipy(op.affinity_)
    assert reused(op.fit(walk())) == list(STAGES)


def test_a_stage_whose_result_was_written_to_is_run_again():
    op = MMPHATE(**OPTIONS).fit(walk())
    write_to_affinity(op)
    assert reused(op.fit(walk())) == ["normalize", "reduce"]


def test_writing_into_the_coordinates_of_a_trace_changes_no_result():
    arguments = {"epoch": np.arange(30.0), "unit": np.array(list("abcd")), "label": np.arange(10) % 3}
    trace = as_trace(walk(), **arguments)
    op = MMPHATE(**OPTIONS).fit(trace)
    arguments["epoch"][:], arguments["unit"][:], arguments["label"][:] = -1, "z", -1
    assert trace.epoch[:3].tolist() == [0, 1, 2] and trace.label.min() == 0
    assert op.result_.by("unit")[:5].tolist() == ["a", "b", "c", "d", "a"]
    assert op.result_.by("epoch")[:5].tolist() == [0, 0, 0, 0, 1]
