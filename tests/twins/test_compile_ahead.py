"""A fit launches the kernels that were compiled ahead, and no others."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from mmphate_gpu import MMPHATE, as_trace, estimator
from mmphate_gpu.mds import smacof
from mmphate_gpu.ops.launch import compile_ahead, kernel
from mmphate_gpu.ops.launch.cuda import Gpu
from mmphate_gpu.ops.launch.kernel import Launch
from mmphate_gpu.ops.launch.rehearsal import MOST_POINTS, Sizes

from .emulation import Twins
from .fake_cupy import FakeCupy, without_cuda

Kernels = set[tuple[str, str, tuple[tuple[str, str], ...]]]


def kernels(launches: Iterable[Launch]) -> Kernels:
    return {kernel.Key.of(launch, 0)[1:] for launch in launches}


def recorded_by(calls: Callable[[Twins], None]) -> list[Launch]:
    """The launches of ``calls`` of launchers, whose results are 0."""
    launches: list[Launch] = []
    calls(Twins(partial(_note, launches)))
    return launches


def _note(launches: list[Launch], launch: Launch, _: torch.device) -> None:
    launches.append(launch)
    for argument in launch.arguments:
        if isinstance(argument, torch.Tensor):
            argument.zero_()


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Launch]:
    """The launches of all later calls of ops of csrc/cuda, which also call the CUDA launcher, without a kernel."""
    launches: list[Launch] = []

    def wrapped(op: Any, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            copies = [value.clone() if isinstance(value, torch.Tensor) else value for value in arguments]
            getattr(Twins(partial(_note, launches)), name)(*copies)
            return op(*arguments)

        return call

    ops = {name: getattr(torch.ops.mmphate_gpu, name) for name in sorted(compile_ahead.CUPY.launchers)}
    for module in [module for key, module in sys.modules.items() if key.startswith("mmphate_gpu.")]:
        for name, op in ops.items():
            if vars(module).get(name) is op:
                monkeypatch.setattr(module, name, wrapped(op, name))
    return launches


@pytest.mark.parametrize(
    ("shape", "storage", "dtype", "options", "missing"),
    [
        ((60, 5, 8), "sparse", "float32", {}, 0),
        ((60, 5, 8), "lazy", "float64", {"n_components": 3, "decay": 2.5, "n_init": 3}, 0),
        ((1100, 2, 3), "sparse", "float32", {"n_landmark": 40}, 0),  # a sample brackets the medians
        ((60, 5, 30), "sparse", "float32", {"n_pca": 10, "n_init": 1}, 0),
        ((60, 5, 30), "sparse", "float32", {"n_pca": 10}, 4),  # of 30 samples, which are then not reduced
        ((1100, 2, 4), "lazy", "float32", {"n_landmark": 40}, 1),
    ],
    ids=str,
)
def test_a_fit_launches_what_was_compiled_ahead(shape, storage, dtype, options, missing, monkeypatch):
    ahead: list[Launch] = []
    monkeypatch.setattr(compile_ahead.CUPY, "serves", lambda: True)
    monkeypatch.setattr(compile_ahead, "begin_compiling", lambda launches, _: ahead.extend(launches))
    on_cuda = compile_ahead.compile_ahead
    monkeypatch.setattr(estimator, "compile_ahead", lambda _, **sizes: on_cuda(torch.device("cuda", 0), **sizes))
    trace = np.cumsum(np.random.default_rng(0).normal(size=shape), axis=0).astype(dtype)
    mask = np.arange(shape[-1]) >= missing * (np.arange(shape[0]) % 2)[:, None]  # (slice, sample)
    # MDS of many landmarks begins in float32, and here of few.
    monkeypatch.setattr(smacof, "PLAIN_BELOW", 8)
    monkeypatch.setattr(smacof, "ROUGH_FROM", 8)
    # The op of this package computes the neighbors, as on a GPU, with or without C++ twins.
    monkeypatch.setattr("mmphate_gpu.neighbors.serves", lambda _: True)
    launched = recorded(monkeypatch)
    settings = {"device": "cpu", "storage": storage, "random_state": 0, "n_landmark": 50}
    MMPHATE(**(settings | options)).fit(as_trace(trace, mask=mask))
    needed = kernels(launched)
    assert {kernel for _, kernel, _ in needed} >= {"radius_fill", "guttman_transform", "descent_places"}
    assert needed == kernels(ahead)


def test_it_begins_only_where_the_twins_serve(monkeypatch):
    cupy = FakeCupy()
    without_cuda(monkeypatch, devices=cupy.devices)
    monkeypatch.setattr(kernel, "require_cupy", lambda **_: cupy)
    monkeypatch.setattr(kernel, "_compiled", {})
    sizes = {"n_points": 3000, "n_features": 6, "n_columns": 110, "n_components": 2, "wide": False}
    monkeypatch.setattr(compile_ahead.CUPY, "serves", lambda: False)
    compile_ahead.compile_ahead(torch.device("cuda", 0), **sizes)
    monkeypatch.setattr(compile_ahead.CUPY, "serves", lambda: True)
    compile_ahead.compile_ahead(torch.device("cpu"), **sizes)
    assert not cupy.modules
    compile_ahead.compile_ahead(torch.device("cuda", 0), **sizes)
    for key in list(kernel._compiled):
        kernel._kernel(key)
    assert not cupy.calls
    launches = compile_ahead.launches_of(Sizes(MOST_POINTS + 1, 6, 110, 2, torch.float32))
    assert len(cupy.modules) == len({module["code"] for module in cupy.modules}) == len(kernels(launches))


def test_a_second_fit_rehearses_nothing(monkeypatch):
    """A longer fit launches the same kernels and rehearses nothing either. A fit of other features does."""
    compile_ahead.launches_of.cache_clear()
    rehearsals, began = [], []
    monkeypatch.setattr(compile_ahead, "Gpu", lambda start: rehearsals.append(start) or Gpu(start))
    monkeypatch.setattr(compile_ahead.CUPY, "serves", lambda: True)
    monkeypatch.setattr(compile_ahead, "begin_compiling", lambda launches, _: began.append(launches))
    sizes = {"n_points": 3000, "n_features": 6, "n_columns": 110, "n_components": 2, "wide": False}
    for changed in ({}, {}, {"n_points": 10**9}, {"n_features": 7}):
        compile_ahead.compile_ahead(torch.device("cuda", 0), **(sizes | changed))
    assert len(rehearsals) == 2 and began[0] == began[1] == began[2] != began[3]
    assert not any(launch.arguments for launch in began[0])  # these would keep the tensors of the rehearsal


@pytest.mark.parametrize("n", [60, 1100])
def test_masked_points_compile_kernels_of_their_own(n):
    """The kernels compiled ahead for points that may lack features are those that ops start for such points."""
    launched = recorded_by(lambda twins: masked_calls(twins, n))
    sizes = {"n_features": 3, "n_columns": 110, "n_components": 2, "dtype": torch.float32}
    ahead = {masked: kernels(compile_ahead.launches_of(Sizes(n, **sizes, masked=masked))) for masked in (False, True)}
    over_pairs = {key for key in ahead[True] if key[0] in ("pair_screen", "radius_affinity", "kth_neighbor_distance")}
    assert kernels(launched) == over_pairs and not over_pairs & ahead[False]
    assert ahead[True] - over_pairs <= ahead[False]
    assert {kernel for _, kernel, _ in ahead[True]} == {kernel for _, kernel, _ in ahead[False]} | {"pair_presence"}


def masked_calls(twins: Twins, n: int) -> None:
    """The calls over pairs of a fit of ``n`` slices of five units."""
    small, large = (torch.zeros(1, size, 3, dtype=torch.float64) for size in (5, n))
    rows = torch.zeros(2, n + 1, dtype=torch.int64)
    twins.kth_neighbor_distance(small, 2, True)
    twins.median_kth_neighbor_distance(large, 2, True)
    twins.radius_counts(large, 1.0, True)
    entries = rows[0, :0].int(), torch.zeros(0)
    twins.radius_fill(large, 1.0, 2.0, 1.0, 0, n, rows[0], rows[1, :n], *entries, True)
    twins.symmetrized_affinity(small, small[..., 0].contiguous(), 5.0, 0.0, 0.0, 1.0, torch.float32, True)
