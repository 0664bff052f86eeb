"""Results are copied when they are first read. They belong to one run, and the memory that they hold is counted."""

from __future__ import annotations

import pickle
import sys
from types import FrameType
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from mmphate_gpu import M_PHATE, MMPHATE, estimator
from mmphate_gpu.stages import STAGES, Stages

OPTIONS = {"n_landmark": 20, "random_state": 0, "device": "cpu", "mds_solver": "classic"}
RESULTS = ("landmark_op_", "landmark_degrees_", "transitions_", "clusters_", "von_neumann_entropy_", "diff_potential_")


def walk(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(30, 2, 6)).cumsum(0)


def dense(result: Any) -> np.ndarray:
    return result.toarray() if scipy.sparse.issparse(result) else np.asarray(result)


def results(op: MMPHATE) -> dict[str, np.ndarray]:
    return {name: dense(getattr(op, name)) for name in RESULTS}


def same(first: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(first[name], other[name]) for name in RESULTS)


def in_stages(op: MMPHATE) -> dict[str, torch.Tensor]:
    landmarks = op._stages.result("landmarks")
    return {
        "landmark_op_": landmarks.landmark_op,
        "landmark_degrees_": landmarks.degrees,
        "transitions_": landmarks.transitions,
        "clusters_": landmarks.clusters,
        "von_neumann_entropy_": op._stages.result("entropy").entropy,
        "diff_potential_": op._stages.result("potential"),
    }


@pytest.mark.parametrize("estimator", [MMPHATE, M_PHATE])
def test_results_exist_after_a_fit(estimator):
    op = estimator(**OPTIONS)
    for name in RESULTS:
        assert not hasattr(op, name)
        with pytest.raises(NotFittedError, match="not fitted yet"):
            getattr(op, name)
    op._repr_html_()
    op.fit(walk())
    assert all(hasattr(op, name) and name in dir(op) for name in RESULTS)
    assert op.n_landmark_ == len(op.landmark_op_) == 20 and not hasattr(clone(op), "landmark_op_")
    op._repr_html_()


def test_fit_copies_no_result():
    op = MMPHATE(**OPTIONS).fit(walk())
    assert not op._copies and all(op._results[name] is kept for name, kept in in_stages(op).items())


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_a_result_is_copied_once_and_may_be_written_to(convert):
    op = MMPHATE(**OPTIONS).fit(convert(walk()))
    for name, kept in in_stages(op).items():
        result = getattr(op, name)
        assert getattr(op, name) is result and name not in op._results
        assert isinstance(result, torch.Tensor) == (convert is torch.from_numpy)
        assert np.array_equal(dense(result.to_dense() if isinstance(result, torch.Tensor) else result), kept.to_dense())
    values = op.transitions_.data if convert is np.asarray else op.transitions_.values()
    for array in (op.landmark_op_, values, op.clusters_, op.von_neumann_entropy_, op.diff_potential_):
        array[:] = 0
    op.set_params(gamma=0.5, n_components=3).fit(convert(walk()))
    fresh = MMPHATE(**OPTIONS | {"gamma": 0.5, "n_components": 3}).fit(walk())
    assert np.array_equal(np.asarray(op.embedding_), fresh.embedding_)
    assert np.array_equal(dense(op.landmark_op_), fresh.landmark_op_) and fresh.landmark_op_.any()


@pytest.mark.parametrize("read", [(), ("clusters_",), RESULTS], ids=["none", "clusters", "all"])
def test_a_pickle_holds_all_results(read):
    op = MMPHATE(**OPTIONS).fit(walk())
    for name in read:
        getattr(op, name)
    again = pickle.loads(pickle.dumps(op))
    assert again._stages is None and not again._results
    assert same(results(again), results(MMPHATE(**OPTIONS).fit(walk())))
    assert same(results(again.fit(walk(1))), results(MMPHATE(**OPTIONS).fit(walk(1))))
    assert pickle.loads(pickle.dumps(MMPHATE(**OPTIONS))).get_params() == MMPHATE(**OPTIONS).get_params()


def stop(stage: str, done: int, total: int) -> None:
    if stage == "mds":
        raise RuntimeError("stop")


@pytest.mark.parametrize("change", [{}, {"n_landmark": 10}, {"decay": 3}, {"gamma": 1}])
def test_results_survive_a_failed_refit(change):
    """They also survive if the refit has dropped the stages that made them."""
    first = walk()
    op, wanted = MMPHATE(**OPTIONS).fit(first), results(MMPHATE(**OPTIONS).fit(first))
    with pytest.raises(RuntimeError, match="stop"):
        op.set_params(callback=stop, **change).fit(first)
    assert same(results(op), wanted)
    assert same(results(op.set_params(callback=None).fit(first)), results(MMPHATE(**OPTIONS | change).fit(first)))


def test_an_interruption_leaves_the_state_of_one_run():
    """This holds for an interruption at any line of the fit after the last stage."""
    codes = {MMPHATE.fit.__code__, MMPHATE._fitted.__code__}
    old, new = MMPHATE(**OPTIONS).fit(walk(1)), MMPHATE(**OPTIONS | {"n_landmark": 10}).fit(walk(2))
    states = [{**results(op), "embedding_": op.embedding_, "t_": op.t_, "n": op.n_landmark_} for op in (old, new)]
    seen, line = set(), 0
    while True:
        op = MMPHATE(**OPTIONS).fit(walk(1)).set_params(n_landmark=10)
        ran, interrupted = _interrupted_fit(op, walk(2), codes, line)
        if not interrupted:
            break
        result = {**results(op), "embedding_": op.embedding_, "t_": op.t_, "n": op.n_landmark_}
        (which,) = [i for i, state in enumerate(states) if all(np.array_equal(state[k], result[k]) for k in state)]
        # In both cases the stages are those of the interrupted fit, so the next fit can reuse them.
        assert len(op._stages.result("landmarks").landmark_op) == 10
        assert len(op.report_) == len(STAGES) and len(op.transform(walk(3))) == 60
        seen.add(which)
        line += 1
    assert seen == {0, 1} and ran > 20


def _interrupted_fit(op: MMPHATE, trace: np.ndarray, codes: set, line: int) -> tuple[int, bool]:
    """Fit, and interrupt before line number ``line`` of ``codes`` after the run. Returns the number of these lines."""
    ran, after = -1, False

    def watch(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal ran, after
        if frame.f_code not in codes:
            return None
        after = after or "run" in frame.f_locals
        if event == "line" and after:
            ran += 1
            if ran == line:
                raise KeyboardInterrupt
        return watch

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        op.fit(trace)
    except KeyboardInterrupt:
        return ran, True
    finally:
        sys.settrace(before)
    return ran, False


# ---------------------------------------------------------------- memory


def test_held_bytes_count_a_tensor_once():
    stages = Stages(torch.device("cpu"))
    points, square = torch.zeros(100), torch.zeros(10, 10, dtype=torch.float64)
    stages("normalize", lambda: points)
    stages("reduce", lambda: (points, None))
    stages("affinity", lambda: square)
    assert stages.held_bytes() == 400 + 800
    assert stages.held_bytes(without=(square,)) == 400 and stages.held_bytes(without=(torch.zeros(5),)) == 1200


def test_a_refit_does_not_count_memory_that_results_hold_as_free(monkeypatch):
    """An unread result stays until the refit succeeds. A result that was copied is freed with its stage."""
    allowed = []

    def run(*arguments: Any) -> Any:
        allowed.append(arguments[-1])
        return run_within_memory(*arguments)

    run_within_memory = estimator.run_within_memory
    monkeypatch.setattr(estimator, "run_within_memory", run)
    monkeypatch.setattr(estimator, "available_bytes", lambda device: 10**9)
    op = MMPHATE(**OPTIONS).fit(walk())
    held, unread = op._stages.held_bytes(), Stages(torch.device("cpu"))
    unread("landmarks", lambda: tuple(in_stages(op).values()))
    op.fit(walk())
    results(op)
    op.fit(walk())
    # At the second fit no result has been read. At the third fit all results of the second have been copied.
    assert allowed == [10**9, 10**9 + held - unread.held_bytes(), 10**9 + held]
    assert unread.held_bytes() > 2 * 20 * 20 * 8
