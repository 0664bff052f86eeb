"""Runs under limits of the memory, and runs for which memory ran out in spite of the plan."""

from __future__ import annotations

import gc
import warnings
import weakref

import numpy as np
import pytest
import torch

from mmphate_gpu import MMPHATE, InputError, as_trace, plan
from mmphate_gpu.affinities import Interslice
from mmphate_gpu.operators import LazyAffinity, SparseAffinity, TiledAffinity
from mmphate_gpu.operators.choose import STORED_SHARE
from mmphate_gpu.ops.launch.twins import serves
from mmphate_gpu.params import Params
from mmphate_gpu.planning.fit import ran_out
from mmphate_gpu.planning.plan import LEAST, plan_run

CPU = torch.device("cpu")


def walk(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).cumsum(0)


# ---------------------------------------------------------------- limits of the memory


# 2,400 nodes; CSR takes 3.6 MB, the rest about 10 MB by plan.
TRACE = walk(120, 20, 8, seed=1)
OPTIONS = {"n_landmark": 100, "n_svd": 60, "random_state": 0, "device": "cpu"}


def least_bytes() -> int:
    """What the matrix-free run takes at least."""
    p = Params(n_landmark=100, n_svd=60, storage="lazy")
    options = {"dtype": torch.float64, "device": CPU, "available": 10**9, "entries": LEAST}
    return plan_run((120, 1, 20, 8), p, **options).peak_bytes


def form(op: MMPHATE) -> str:
    return op.affinity_.storage


@pytest.fixture(scope="module")
def uncapped() -> MMPHATE:
    return MMPHATE(**OPTIONS).fit(TRACE)


def assert_same(op: MMPHATE, other: MMPHATE) -> None:
    """The same bits: two forms have the same entries in the same order, and their products the same sums."""
    assert op.t_ == other.t_ and np.array_equal(op.embedding_, other.embedding_)


def test_one_picture_under_every_cap(uncapped, monkeypatch):
    least = least_bytes()
    stored = uncapped.affinity_.nbytes
    assert form(uncapped) == "sparse"
    for cap, expected in ((20 * stored, "sparse"), (int(1.01 * least), "lazy")):
        monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", str(cap))
        op = quiet_fit()
        assert form(op) == expected
        assert_same(op, uncapped)
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", str(least - 1))
    with pytest.raises(InputError, match=r"needs .* MiB in stage 'landmarks' but cpu has .*; by plan it fits with"):
        MMPHATE(**OPTIONS).fit(TRACE)


def quiet_fit(trace: np.ndarray = TRACE, **options: object) -> MMPHATE:
    """A run that does not have to fall back on another form."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return MMPHATE(**{**OPTIONS, **options}).fit(trace)


@pytest.mark.parametrize("storage", ["sparse", "tiles", "lazy"])
def test_the_bytes_of_the_plan_are_enough(storage, monkeypatch):
    planned = plan(as_trace(TRACE), n_landmark=100, n_svd=60, device="cpu", storage=storage)
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", str(planned.peak_bytes))
    assert form(quiet_fit(storage=storage)) == storage


def test_the_byte_at_which_auto_goes_leaner(uncapped, monkeypatch):
    counted = LEAST._replace(interslice=(uncapped.affinity_.nnz - 2400) / (2400 * 119))
    options = {"dtype": torch.float64, "device": CPU, "available": 10**9, "entries": counted}
    p = Params(n_landmark=100, n_svd=60, storage="sparse")
    needed = max(plan_run((120, 1, 20, 8), p, **options).peak_bytes, int(uncapped.affinity_.nbytes / 0.4) + 1)
    for cap, expected in ((needed, "sparse"), (needed - 1, "lazy")):
        monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", str(cap))
        assert form(quiet_fit()) == expected


@pytest.mark.parametrize("storage", ["auto", "sparse", "lazy"])
def test_the_advice_of_a_refusal_helps(settings_named, storage, monkeypatch):
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", str(least_bytes() - 1))
    with pytest.raises(InputError, match=r"needs .* MiB in stage .* but cpu has .* MiB available") as refused:
        quiet_fit(storage=storage)
    ways = settings_named(str(refused.value))
    for way in ways:
        quiet_fit(**{"storage": storage, **way})
    if not ways:  # without native ops the chunks of the lazy form are as large as so small an affinity
        assert storage == "sparse" and not serves(CPU) and "Trace.subsample" in str(refused.value)
        quiet_fit(TRACE[::2], storage=storage)


@pytest.fixture
def tight(uncapped, monkeypatch) -> None:
    """A limit of which the CSR takes less than 40 %, and under which the run still does not fit."""
    cap = int(1.02 * max(uncapped.affinity_.nbytes / STORED_SHARE, least_bytes()))
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", str(cap))


def test_a_stored_affinity_that_leaves_too_little_is_released(uncapped, tight):
    op = quiet_fit()
    reused = [report["stage"] for report in op.report_ if report["reused"]]
    assert form(op) == "lazy" and reused == ["normalize", "reduce"]
    assert_same(op, uncapped)


def test_a_requested_form_is_refused_once_its_entries_are_counted(tight, monkeypatch):
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


# ---------------------------------------------------------------- out of memory in spite of the plan


OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 20.00 GiB"


@pytest.fixture
def fails(monkeypatch):
    """Makes a method raise torch's error at its first calls; returns weak references to its objects."""
    held: list[weakref.ref] = []

    def once(owner, name, times=1):
        whole = getattr(owner, name)

        def method(self, *args, **kwargs):
            if len(held) < times:
                held.append(weakref.ref(self))
                raise torch.OutOfMemoryError(OUT_OF_MEMORY)
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
    gc.disable()  # so that an object in a cycle would stay
    try:
        with pytest.warns(
            RuntimeWarning, match="CUDA out of memory in stage 'landmarks': storage=\"sparse\" gives way"
        ):
            op = MMPHATE(storage=storage, **OPTIONS).fit(TRACE)
    finally:
        gc.enable()
    assert released == [True]  # the stored form is gone before the memory goes back to the device
    assert form(op) == "lazy"
    assert_same(op, uncapped)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError(OUT_OF_MEMORY), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    ],
)
def test_what_says_that_memory_ran_out(error, expected):
    assert bool(ran_out(error)) == expected


class FailedCapture:
    """Ends as torch.cuda.graph does after an error within it."""

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None:
        raise RuntimeError("CUDA error: operation failed due to a previous error during capture")


def test_memory_that_runs_out_while_a_graph_is_captured():
    with pytest.raises(RuntimeError, match="previous error") as raised, FailedCapture():
        raise torch.OutOfMemoryError(OUT_OF_MEMORY)
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


def test_out_of_memory_twice_is_reported_with_the_numbers(uncapped, fails):
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


def test_no_leaner_form_helps_before_the_affinity(monkeypatch):
    def fails(*args, **kwargs):
        raise torch.OutOfMemoryError(OUT_OF_MEMORY)

    monkeypatch.setattr("mmphate_gpu.pipeline.trace_points", fails)
    with pytest.raises(InputError, match="ran out of memory in stage 'normalize'"):
        MMPHATE(**OPTIONS).fit(TRACE)
