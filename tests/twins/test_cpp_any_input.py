"""The C++ twins on any small input of whole numbers, where every sum is exact and ties abound."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mmphate_gpu.ops.csr import of_dense_rows
from mmphate_gpu.ops.launch.twins import CPP, PORTABLE

from .cases import assert_same
from .cpp_affinities import assert_filled_alike, assert_symmetrized_alike
from .instruction_sets import ISAS, needs_cpp

# A machine with a GPU may lack hypothesis. The other files of this folder run without it.
hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
pytestmark = needs_cpp


few = hypothesis.settings(derandomize=True, max_examples=60, deadline=None)


@st.composite
def whole_points(draw: st.DrawFn) -> torch.Tensor:
    """A small stack of whole numbers times a power of two."""
    n_sets, n, p = draw(st.integers(1, 3)), draw(st.integers(1, 40)), draw(st.integers(1, 5))
    span = draw(st.integers(0, 4))
    values = draw(st.lists(st.integers(-span, span), min_size=n_sets * n * p, max_size=n_sets * n * p))
    scale = 2.0 ** draw(st.integers(-300, 300))
    return scale * torch.tensor(values, dtype=torch.float64).view(n_sets, n, p)


@few
@hypothesis.given(points=whole_points(), square=st.integers(0, 90), data=st.data())
def test_any_whole_points(points, square, data):
    scale = float(points.abs()[points != 0].min()) if bool((points != 0).any()) else 1.0
    reach = scale * math.sqrt(square)
    assert_same((CPP["radius_counts"](points, reach),), (PORTABLE["radius_counts"](points, reach),))
    first = data.draw(st.integers(0, points.shape[1]))
    last = data.draw(st.integers(first, points.shape[1]))
    assert_filled_alike(iter(ISAS[:1]), points, reach, rows=(first, last))
    assert_symmetrized_alike(iter(ISAS[:1]), points)
    if points.shape[1] > 1:
        k = data.draw(st.integers(1, points.shape[1] - 1))
        for name in ("kth_neighbor_distance", "median_kth_neighbor_distance"):
            assert_same((CPP[name](points, k),), (PORTABLE[name](points, k),))


@st.composite
def whole_matrix(draw: st.DrawFn) -> np.ndarray:
    n_rows, n_columns = draw(st.integers(1, 20)), draw(st.integers(1, 30))
    entries = st.sampled_from([0, 0, 0, 1, 2, 5])
    values = draw(st.lists(entries, min_size=n_rows * n_columns, max_size=n_rows * n_columns))
    return np.array(values, dtype=float).reshape(n_rows, n_columns)


@few
@hypothesis.given(dense=whole_matrix(), width=st.integers(1, 20), interleave=st.integers(1, 25), seed=st.integers(0, 5))
def test_any_whole_matrix(dense, width, interleave, seed):
    rng = np.random.default_rng(seed)
    csr = of_dense_rows([torch.from_numpy(dense)], dense.shape[1])
    block = rng.integers(-9, 9, (dense.shape[1], width)).astype(float)
    result = CPP["csr_matmul"](*csr[:3], torch.from_numpy(block), interleave)
    np.testing.assert_array_equal(result.numpy(), dense @ block)
    labels = rng.integers(0, 4, dense.shape[1])
    indptr, indices, values = CPP["landmark_aggregate"](*csr[:3], torch.from_numpy(labels), 4)
    again = np.zeros((len(dense), 4))
    again[np.repeat(np.arange(len(dense)), np.diff(indptr.numpy())), indices.numpy()] = values.numpy()
    np.testing.assert_array_equal(again, dense @ np.eye(4)[labels])
