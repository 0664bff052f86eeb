"""Steps 1 and 2 of docs/method.md: z-scores over samples, and principal component scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmphate_gpu.errors import InputError
from mmphate_gpu.trace import (
    as_trace,
    flat_points,
    normalize,
    pca,
    stored,
)
from mmphate_gpu.trace.pca import reduce

from .traces import SHAPE, full_mask, lengths_mask, same, same_points, values

# ---------------------------------------------------------------- normalize


def test_normalize_is_the_population_z_score():
    data = values() * 3 + 100
    expected = (data - data.mean(-1, keepdims=True)) / data.std(-1, keepdims=True)
    got = normalize(as_trace(data))
    assert got.dtype == torch.float64
    np.testing.assert_allclose(got.numpy(), expected.reshape(12, 5, 7), rtol=0, atol=1e-12)


def test_normalize_golden():
    path = Path(__file__).parents[1] / "golden" / "golden_walk_28x20x12.npz"
    if not path.exists():
        pytest.skip("golden data is not there")
    data = np.load(path)["trace"].astype(float)
    expected = (data - data.mean(-1, keepdims=True)) / data.std(-1, keepdims=True)
    np.testing.assert_allclose(normalize(as_trace(data)).numpy(), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("constant", [0.0, 0.1, -1 / 3, 1e150, 1e-300])
@pytest.mark.parametrize("masked", [False, True])
def test_dead_units_are_exactly_zero(constant, masked):
    data = values()
    data[1, 2, 3] = constant
    mask = full_mask() if masked else None
    if masked:
        data[~mask] = 77
    got = normalize(as_trace(data, mask=mask))
    present = mask[1, 2, 2:4] if masked else np.ones((2, 7), bool)
    assert not got[5, 3][present[1]].any() and got[5, 2][present[0]].any()


@pytest.mark.parametrize("mask", [full_mask(), lengths_mask()])
def test_masked_normalize_and_flat_points(mask):
    trace = as_trace(values(), mask=mask)
    full = np.broadcast_to(mask if mask.ndim == 4 else mask[None, :, None], SHAPE).reshape(12, 5, 7)
    alone = full.sum(-1, keepdims=True) < 2  # a single sample has no deviation
    data = np.ma.masked_array(values().reshape(12, 5, 7), ~full)
    std = np.where(data.std(-1).filled(0) == 0, 1, data.std(-1).filled(0))[..., None]
    expected = np.where(alone, np.nan, ((data - data.mean(-1)[..., None]) / std).filled(np.nan))
    np.testing.assert_allclose(normalize(trace).numpy(), expected, atol=1e-13)
    np.testing.assert_array_equal(flat_points(trace).numpy(), data.filled(np.nan))


def test_chunks_do_not_change_the_bits(monkeypatch):
    trace = as_trace(values(dtype=np.float32).transpose(1, 0, 2, 3), mask=full_mask().transpose(1, 0, 2, 3))
    whole = normalize(trace), flat_points(trace)
    monkeypatch.setattr(stored, "BLOCK_ELEMENTS", 80)
    assert same_points(normalize(trace), whole[0]) and same_points(flat_points(trace), whole[1])


# ---------------------------------------------------------------- reduce


def scores_by_svd(points, k):
    rows = points.reshape(-1, points.shape[-1]).numpy()
    rows = rows - rows.mean(0)
    _, _, loadings = np.linalg.svd(rows, full_matrices=False)
    loadings = loadings[:k]
    lead = loadings[np.arange(len(loadings)), np.abs(loadings).argmax(1)]
    return (rows @ (loadings * np.sign(lead)[:, None]).T).reshape(*points.shape[:-1], -1)


@pytest.mark.parametrize(("shape", "chunk"), [((30, 4, 20), 2**22), ((30, 4, 20), 300), ((3, 5, 60), 2**22)])
def test_reduce_is_pca(monkeypatch, shape, chunk):
    monkeypatch.setattr(stored, "BLOCK_ELEMENTS", chunk)
    points = torch.from_numpy(values(shape) * np.linspace(3, 0.5, shape[-1]) + 50)
    got = reduce(points, 8)
    assert got.shape == (*shape[:2], 8) and got.dtype == torch.float64
    np.testing.assert_allclose(got.numpy(), scores_by_svd(points, 8), atol=1e-10)
    assert torch.equal(got, reduce(points, 8))


def test_reduce_leaves_narrow_points_alone():
    points = torch.from_numpy(values((3, 4, 5)))
    assert reduce(points, None) is points and reduce(points, 5) is points and reduce(points, 100) is points
    with pytest.raises(InputError, match="n_pca"):
        reduce(points, 0)


def test_points_with_missing_samples_are_not_reduced():
    points = normalize(as_trace(values(), mask=full_mask()))
    assert reduce(points, 3) is points and pca.principal_axes(points, 3) is None


def test_reduce_of_fewer_nodes_than_scores_keeps_distances():
    points = torch.from_numpy(values((2, 3, 40)))
    got = reduce(points, 10)
    assert got.shape == (2, 3, 10)
    near = torch.cdist(got.reshape(6, -1), got.reshape(6, -1))
    torch.testing.assert_close(near, torch.cdist(points.reshape(6, -1), points.reshape(6, -1)), atol=1e-10, rtol=0)


@pytest.mark.parametrize("shape", [(40, 3, 12), (2, 4, 50)])
def test_reduce_of_degenerate_points(shape):
    assert torch.equal(reduce(torch.ones(shape), 4), torch.zeros(*shape[:2], 4, dtype=torch.float64))
    line = torch.from_numpy(values((*shape[:2], 1))) * torch.ones(shape[-1], dtype=torch.float64)
    got = reduce(line, 4)
    assert got[..., 1:].abs().max() < 1e-12 and got[..., 0].abs().max() > 1
    twice = torch.cat([line, line])  # duplicates stay duplicates
    assert (reduce(twice, 4)[: len(line)] - reduce(twice, 4)[len(line) :]).abs().max() < 1e-12


def test_reduce_randomized(monkeypatch):
    points = torch.from_numpy(values((40, 5, 60)) * 2.0 ** -np.arange(60))
    exact = reduce(points, 6)
    monkeypatch.setattr(pca, "EXACT_PCA", 20)
    state = torch.get_rng_state()
    got = reduce(points, 6)
    assert torch.equal(got, reduce(points, 6)) and torch.equal(state, torch.get_rng_state())
    torch.testing.assert_close(got, exact, atol=1e-8, rtol=0)
    torch.testing.assert_close(reduce(points, 6, seed=5), exact, atol=1e-8, rtol=0)


# ---------------------------------------------------------------- optional packages


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_stays_on_the_device_and_agrees():
    on_cpu, on_gpu = as_trace(values(), mask=full_mask()), as_trace(torch.from_numpy(values()).cuda(), mask=full_mask())
    assert on_gpu.data.is_cuda and on_gpu.mask.is_cuda and normalize(on_gpu).is_cuda
    close = {"atol": 1e-12, "rtol": 0, "equal_nan": True}
    torch.testing.assert_close(normalize(on_gpu).cpu(), normalize(on_cpu), **close)
    torch.testing.assert_close(flat_points(on_gpu).cpu(), flat_points(on_cpu), **close)
    whole = as_trace(values()), as_trace(torch.from_numpy(values()).cuda())
    torch.testing.assert_close(*(reduce(normalize(trace), 3).cpu() for trace in whole), atol=1e-9, rtol=0)
    same(as_trace(on_gpu.subsample(units=[3, 1]).data.cpu()), as_trace(on_cpu.subsample(units=[3, 1]).data))
