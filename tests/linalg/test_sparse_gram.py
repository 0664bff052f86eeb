"""Weighted Gram matrices of sparse columns against dense ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmphate_gpu.linalg.sparse_gram import sparse_gram
from mmphate_gpu.ops import csr as csr_ops
from mmphate_gpu.runtime.memory_use import held_bytes

from ..ops.sparse import of_dense


@pytest.mark.parametrize("n_columns", [3, 64, 65, 200])  # dense rows (the first) and sparse ones
@pytest.mark.parametrize("labeling", ["alike", "random", "one label"])
def test_sparse_gram_against_dense(n_columns, labeling, device):
    rng = np.random.default_rng(n_columns)
    n = 500
    labels = {
        "alike": np.arange(n) * n_columns // n,
        "random": rng.integers(0, n_columns, n),
        "one label": np.zeros(n),
    }[labeling]
    labels = labels.astype(np.int64)
    dense = np.where(rng.random((n, n_columns)) < 0.05, rng.random((n, n_columns)), 0)
    dense[np.arange(n), labels] = 1
    weights = rng.random(n)
    csr = csr_ops.of_dense_rows([torch.from_numpy(dense).to(device)], n_columns)
    gram = sparse_gram(csr, torch.from_numpy(weights).to(device))
    # Measured: 2e-13 of entries up to 250.
    np.testing.assert_allclose(gram.cpu().numpy(), dense.T @ (weights[:, None] * dense), rtol=0, atol=1e-11)
    assert torch.equal(gram, gram.T)


@pytest.mark.parametrize("without", ["MKL", "narrow indices"])
def test_sparse_gram_by_scipy(without, monkeypatch):
    dense = np.where(np.random.default_rng(0).random((300, 90)) < 0.04, 0.5, 0)
    csr = of_dense(dense, 300)
    expected = sparse_gram(csr, torch.ones(300))
    if without == "MKL":
        monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    else:
        csr = csr._replace(indptr=csr.indptr.long(), indices=csr.indices.long())
    assert torch.equal(sparse_gram(csr, torch.ones(300)), expected)  # quarters: every sum is exact


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_sparse_gram_keeps_nothing():
    """Of five products of 5e6 entries, 12 bytes an entry that are never freed would be 61 MB each."""
    dense = np.where(np.random.default_rng(0).random((3000, 2700)) < 0.02, 1.0, 0)
    csr = of_dense(dense, 3000)
    held = []
    for _ in range(5):
        entries = int((sparse_gram(csr, torch.ones(3000)) != 0).sum())
        held.append(held_bytes(torch.device("cpu")))
    assert entries > 4e6
    # Measured: less than 1 MB from the second to the last.
    assert held[-1] - held[1] < 60e6


def test_sparse_gram_of_float32_sums_in_float64():
    dense = np.random.default_rng(0).random((2000, 5)).astype(np.float32)
    gram = sparse_gram(of_dense(dense, 2000), torch.ones(2000))
    np.testing.assert_allclose(gram.numpy(), dense.astype(float).T @ dense.astype(float), rtol=1e-13)
