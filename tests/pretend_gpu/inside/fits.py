"""Whole fits on the pretended GPU, beside fits on the CPU: every form, input, device and recipe."""

from __future__ import annotations

import pickle
from typing import Any

import cupy
import numpy as np
import pytest
import torch
from torch import nn

import mmphate_gpu as mp
from mmphate_gpu.ops.launch.twins import CUPY, TRITON
from tests.pretend_gpu import device
from tests.pretend_gpu.cuda_kernels import without_kernel

FIT = {"n_landmark": 40, "random_state": 0}
FORMS = ("sparse", "tiles", "lazy")
# The kernels of the CPU sum in other orders than those of csrc/cuda under emulation. Measured: 2.5e-11 of pictures of
# size 1, and 1.0e-8 after the 30 sweeps of the refinement.
SAME = 1e-6


def walk(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).cumsum(0)


WALK = walk(30, 4, 6)
MASK = np.broadcast_to(np.arange(6) < np.array([6, 6, 4, 5])[:, None], WALK.shape)
OPTIONS: dict[str, dict[str, Any]] = {
    "no landmarks": {"n_landmark": None},
    "three dimensions": {"n_components": 3, "n_pca": 3},
    "classic": {"mds_solver": "classic", "gamma": 0},
    "nonmetric": {"mds_solver": "nonmetric", "n_landmark": 20},
    "stratified": {"landmarks": "stratified", "gamma": -1, "t": 3},
    "places by states": {"islands": "states", "interslice_knn": 2},
    "refined": {"refine_knn": 5},
    "eigenvalues": {"t": "eigenvalues"},
    "no decay": {"decay": None},
}


def slow(value: Any) -> Any:
    return pytest.param(value, marks=pytest.mark.slow)


def fitted(data: Any = WALK, **options: Any) -> mp.MMPHATE:
    return mp.MMPHATE(**FIT | options).fit(data)


def on_host(values: Any) -> np.ndarray:
    values = values.get() if isinstance(values, cupy.ndarray) else values
    return values.cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def assert_same(op: mp.MMPHATE, other: mp.MMPHATE) -> None:
    assert (op.t_, op.t_range_) == (other.t_, other.t_range_)
    np.testing.assert_array_equal(on_host(op.clusters_), on_host(other.clusters_))
    for name in ("embedding_", "landmark_op_", "diff_potential_"):
        np.testing.assert_allclose(on_host(getattr(op, name)), on_host(getattr(other, name)), rtol=0, atol=SAME)


@pytest.fixture(autouse=True)
def the_device_is_left_alone():
    """A fit leaves the current device and stream as they were, writes into its memory only, and calls ops of CUDA."""
    yield
    names = device.LIBRARY.pretend_names().decode().split()
    assert names and without_kernel(names) == []
    assert torch.cuda.current_device() == 0 and torch.cuda.current_stream().cuda_stream == 0
    assert device.LIBRARY.pretend_overruns() == 0


@pytest.fixture(scope="module")
def plain() -> mp.MMPHATE:
    return fitted(device="cpu")


def test_the_twins_of_cuda_and_triton_run():
    assert CUPY.serves() and TRITON.serves()


@pytest.mark.parametrize("card", ["cuda:0", slow("cuda:1")])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_picture_of_the_cpu(form, card, plain):
    op = fitted(storage=form, device=card)
    assert op.affinity_.storage == form and op.affinity_.device == torch.device(card)
    assert_same(op, plain)
    np.testing.assert_allclose(op.transform(WALK), plain.transform(WALK), rtol=0, atol=SAME)


@pytest.mark.parametrize("name", ["refined", *map(slow, sorted(OPTIONS.keys() - {"refined"}))])
def test_other_options_give_the_picture_of_the_cpu(name):
    assert_same(fitted(device="cuda", **OPTIONS[name]), fitted(device="cpu", **OPTIONS[name]))


@pytest.mark.parametrize("form", ["sparse", slow("tiles"), slow("lazy")])
def test_masked_traces(form):
    assert_same(*(fitted(mp.as_trace(WALK, mask=MASK), storage=form, device=card) for card in ("cuda", "cpu")))


@pytest.mark.parametrize("make", [mp.MMPHATE.stable, slow(mp.M_PHATE.stable), slow(mp.M_PHATE)])
def test_recipes(make):
    pictures = [make(**FIT, device=card).fit_transform(WALK) for card in ("cuda", "cpu")]
    np.testing.assert_allclose(*pictures, rtol=0, atol=SAME)


@pytest.mark.parametrize("card", [slow("cuda:0"), "cuda:1"])
@pytest.mark.parametrize("library", ["numpy", "torch", "cupy"])
def test_results_are_arrays_of_the_library_and_the_device_of_the_input(library, card, plain):
    tensor = torch.from_numpy(WALK).to(card)
    with torch.cuda.device(card):
        data = {"numpy": lambda: WALK, "torch": lambda: tensor, "cupy": lambda: cupy.from_dlpack(tensor)}[library]()
    op = fitted(data, device=card if library == "numpy" else "auto")
    array = {"numpy": np.ndarray, "torch": torch.Tensor, "cupy": cupy.ndarray}[library]
    results = op.embedding_, op.landmark_op_, op.diff_potential_, op.clusters_, op.transform(data)
    assert all(type(result) is array for result in results)
    if library == "torch":
        assert {result.device for result in results} == {torch.device(card)}
    assert_same(op, plain)


def test_a_fit_goes_on_on_another_device(plain):
    op = mp.MMPHATE(**FIT, device="cuda")
    op.fit(WALK).set_params(t=5).fit(WALK)
    on_gpu = op.embedding_
    np.testing.assert_allclose(op.set_params(device="cpu").fit(WALK).embedding_, on_gpu, rtol=0, atol=SAME)


def test_a_fit_is_saved_with_its_device():
    op = fitted(torch.from_numpy(WALK).to("cuda:1"))
    again = pickle.loads(pickle.dumps(op))
    assert again.embedding_.device == torch.device("cuda:1") and torch.equal(again.embedding_, op.embedding_)


def test_a_fit_that_does_not_fit_in_memory_is_refused():
    torch.cuda.set_per_process_memory_fraction(1e-6, 0)  # about a megabyte
    try:
        with pytest.raises(mp.InputError, match="needs .* but cuda:0 has .* available"):
            fitted(device="cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, 0)


def test_a_model_on_the_gpu_is_recorded_and_drawn():
    torch.manual_seed(0)
    model = nn.LSTM(3, 5, batch_first=True).to("cuda")
    probe = torch.randn(8, 4, 3, generator=torch.Generator().manual_seed(0)).to("cuda")
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    with mp.Recorder(model, "", probe=probe) as recorder:
        for epoch in range(5):
            loss = model(probe)[0].square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.snapshot(epoch)
    trace = recorder.trace()
    np.testing.assert_allclose(trace.data[-1].cpu(), model(probe)[0].permute(1, 2, 0).detach().cpu(), atol=1e-6)
    assert_same(*(fitted(trace, interslice_knn=5, device=card) for card in ("cuda", "cpu")))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_memory_for_close_pairs_is_planned(metric):
    """Half of all pairs are close, and their distances are computed again from the rows."""
    L = 300
    plan = mp.plan(mp.as_trace(walk(100, 4, 5)), device="cuda", n_landmark=L, mds_dist=metric)
    planned = {stage.stage: stage.peak_bytes for stage in plan.stages}
    near = 1e-9 * torch.rand(L, L, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sides = torch.zeros(L, L, dtype=torch.float64)
    sides[torch.arange(L), torch.arange(L) % 2] = 10.0
    potential = (near + sides).to("cuda")
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    distances = mp.potential_distances(potential, metric)
    assert 0 < float(distances[0, 2]) < 1e-6 < 0.9 < float(distances[0, 1])
    # The plan also counts the potential and the landmark operator, which are results of other stages.
    taken = torch.cuda.max_memory_allocated() - before
    assert 3 * potential.nbytes < taken <= planned["distances"] - 2 * potential.nbytes
