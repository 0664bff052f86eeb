"""The C++ twin of the sums by label against the portable version."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmphate_gpu.ops.launch.twins import CPP, PORTABLE

from .cases import MATRICES, STORAGE, assert_same, random_csr
from .instruction_sets import needs_cpp, on_every_isa

pytestmark = needs_cpp


@pytest.mark.parametrize(("index", "value"), STORAGE, ids=str)
@pytest.mark.parametrize("label", [torch.int32, torch.int64], ids=str)
def test_landmark_aggregate(index, value, label, monkeypatch):
    for n_rows, n_columns in MATRICES:
        parts = random_csr(n_rows, n_columns, value=value, index=index)
        rng = np.random.default_rng(0)
        for n in (1, 9, 300):
            labels = torch.from_numpy(rng.integers(0, max(1, n - 1), n_columns)).to(label)  # label n - 1 does not occur
            expected = PORTABLE["landmark_aggregate"](*parts, labels, n)
            # The sums have the same order, so they have the same bits.
            assert_same(CPP["landmark_aggregate"](*parts, labels, n), expected)
            on_every_isa(monkeypatch, lambda p=parts, ls=labels, n=n: CPP["landmark_aggregate"](*p, ls, n))


def test_landmark_aggregate_leaves_out_zeros(isa):
    """A stored zero makes no entry, neither alone nor before an entry of the same label."""
    indptr = torch.tensor([0, 2, 4, 4, 7], dtype=torch.int32)
    indices = torch.tensor([0, 1, 0, 2, 0, 1, 2], dtype=torch.int32)
    values = torch.tensor([0.0, 2.0, 0.0, 0.0, 1.0, 0.0, 3.0])
    labels = torch.tensor([4, 4, 1])
    result = CPP["landmark_aggregate"](indptr, indices, values, labels, 6)
    assert [part.tolist() for part in result] == [[0, 1, 1, 1, 3], [4, 1, 4], [2.0, 3.0, 1.0]]
    assert_same(result, PORTABLE["landmark_aggregate"](indptr, indices, values, labels, 6))
